"""What model transformers' `config.json` describes, and the `config.json` of a model."""

from collections.abc import Container, Mapping
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError, nearest
from vit_jax.models.preprocessing import IMAGENET, INCEPTION, Preprocessing
from vit_jax.models.vit_config import MaeConfig, ViTConfig
from vit_jax.weights.layouts.transformers import PREFIXES
from vit_jax.weights.preprocessing_formats import from_hf
from vit_jax.weights.tensors import RawCheckpoint

TOWERS = ("clip", "siglip", "siglip2", "clip_vision_model", "siglip_vision_model")
ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
# What transformers assumes when a `config.json` does not say: files omit values that are the default.
DEFAULTS = dict(
    hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072, hidden_act="gelu",
    layer_norm_eps=1e-12, image_size=224, patch_size=16, num_channels=3, qkv_bias=True,
)  # fmt: skip
_OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    "vit_msn": dict(layer_norm_eps=1e-6),
    "dinov2": dict(layer_norm_eps=1e-6, mlp_ratio=4, use_swiglu_ffn=False),
    "dinov2_with_registers": dict(layer_norm_eps=1e-6, mlp_ratio=4, use_swiglu_ffn=False, num_register_tokens=4),
    "dinov3_vit": dict(
        hidden_size=384, num_attention_heads=6, intermediate_size=1536, layer_norm_eps=1e-5, rope_theta=100.0, query_bias=True,
        key_bias=False, value_bias=True, use_gated_mlp=False, num_register_tokens=0,
    ),
}  # fmt: skip
PREPROCESSING = {
    "vit": INCEPTION,
    "beit": INCEPTION,
    "data2vec-vision": IMAGENET,
}


def settings(model_type: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a `config.json` with what it leaves out."""
    return {**DEFAULTS, **_OWN_DEFAULTS.get(model_type, {}), **document}


def from_document(raw: RawCheckpoint) -> tuple[ViTConfig | MaeConfig, str, str]:
    """Return the model of transformers' `config.json`, its `model_type` and the prefix of its names.

    Raises:
      CheckpointError: it is a model we do not have, or says something we do not know.
    """
    document = raw.documents["config.json"]
    model_type = document.get("model_type")
    if model_type not in PREFIXES:
        known = (*PREFIXES, *TOWERS)
        raise CheckpointError(
            f"{raw.origin}: config.json says model_type {model_type!r}, which is not one of {', '.join(known)}."
            f"{nearest(str(model_type), known)}"
        )
    about = settings(model_type, document)
    prefix = PREFIXES[model_type]
    if not any(name.startswith(prefix) for name in raw.tensors):
        prefix = ""
    try:
        config = _config(model_type, about, prefix, raw)
        if model_type == "vit_mae" and any(name.startswith("decoder.") for name in raw.tensors):
            return MaeConfig(config, _decoder(about, config)), model_type, prefix
    except ConfigError as error:
        raise CheckpointError(f"{raw.origin}: config.json describes no model: {error}") from None
    return config, model_type, prefix


def activation(name: Any, origin: str) -> str:
    """Return our word for transformers' `hidden_act`."""
    if name not in ACTIVATIONS:
        raise CheckpointError(
            f"{origin}: config.json says hidden_act {name!r}; it must be one of {', '.join(ACTIVATIONS)}."
        )
    return ACTIVATIONS[name]


def _config(model_type: str, about: dict[str, Any], prefix: str, raw: RawCheckpoint) -> ViTConfig:
    names, width = raw.tensors, about["hidden_size"]
    fields: dict[str, Any] = dict(
        image_size=_size(about["image_size"]),
        patch_size=_size(about["patch_size"]),
        in_channels=about["num_channels"],
        width=width,
        depth=about["num_hidden_layers"],
        heads=about["num_attention_heads"],
        mlp_dim=about["intermediate_size"],
        activation=activation(about["hidden_act"], raw.origin),
        norm_epsilon=about["layer_norm_eps"],
        qkv_bias=about["qkv_bias"],
        init="trunc_normal",
        class_token=model_type != "ijepa",
        mask_token=f"{prefix}embeddings.mask_token" in names,
        resample="bicubic",
        resample_antialias=model_type == "dinov2_with_registers",
        bias_resample="bilinear",
        preprocessing=_preprocessing(model_type, raw),
        **_output(names, prefix, about),
    )
    if model_type == "deit":
        fields.update(distillation_token=True)
    elif model_type in ("beit", "data2vec-vision"):
        shared, own = about.get("use_shared_relative_position_bias"), about.get("use_relative_position_bias")
        fields.update(
            k_bias=False,
            position="learned" if about.get("use_absolute_position_embeddings") else "none",
            position_bias="shared" if shared else "blocks" if own else "none",
            layer_scale=about.get("layer_scale_init_value", 0.1) or None,
        )
        if fields["pool"] != "patches" and about.get("use_mean_pooling", True):
            fields.update(pool="mean", pool_norm="after")
    elif model_type.startswith("dinov2"):
        gated = about["use_swiglu_ffn"]
        hidden = int(width * about["mlp_ratio"])
        fields.update(
            mlp="swiglu" if gated else "mlp",
            mlp_dim=(int(hidden * 2 / 3) + 7) // 8 * 8 if gated else hidden,
            layer_scale=about.get("layerscale_value", 1.0),
            mask_token=f"{prefix}embeddings.mask_token" in names,
            register_tokens=about.get("num_register_tokens", 0),
            class_position=True,
        )
        if fields["num_classes"]:
            fields.update(pool="cls_mean")
    elif model_type == "dinov3_vit":
        fields.update(
            mlp="swiglu" if about["use_gated_mlp"] else "mlp",
            layer_scale=about.get("layerscale_value", 1.0),
            register_tokens=about["num_register_tokens"],
            qkv_bias=about["query_bias"] and about["value_bias"],
            k_bias=about["key_bias"],
            position="none",
            rope="dinov3",
            rope_theta=float(about["rope_theta"]),
            dynamic_image_size=True,
        )
    elif model_type == "ijepa":
        fields.update(pool="mean")
    return ViTConfig(**fields)


def _output(names: Container[str], prefix: str, about: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of the head, which the arrays themselves say best."""
    classes = len(about.get("id2label") or {0: "LABEL_0", 1: "LABEL_1"})
    fields: dict[str, Any] = {"num_classes": 0, "pool": "cls"}
    if "classifier.weight" in names or "cls_classifier.weight" in names:
        fields.update(num_classes=classes)
    elif "lm_head.weight" in names:
        fields.update(num_classes=about.get("vocab_size", 8192), pool="patches")
    elif "decoder.0.weight" in names:
        patch = _size(about["patch_size"])
        fields.update(num_classes=patch[0] * patch[1] * about["num_channels"], pool="patches")
    elif f"{prefix}pooler.dense.weight" in names:
        fields.update(representation_size=about.get("pooler_output_size") or about["hidden_size"])
    return fields


def _decoder(about: Mapping[str, Any], encoder: ViTConfig) -> ViTConfig:
    p, q = encoder.patch_size
    return ViTConfig(
        image_size=encoder.image_size,
        patch_size=encoder.patch_size,
        in_channels=encoder.in_channels,
        width=about.get("decoder_hidden_size", 512),
        depth=about.get("decoder_num_hidden_layers", 8),
        heads=about.get("decoder_num_attention_heads", 16),
        mlp_dim=about.get("decoder_intermediate_size", 2048),
        num_classes=p * q * encoder.in_channels,
        pool="patches",
        activation=encoder.activation,
        norm_epsilon=encoder.norm_epsilon,
        qkv_bias=encoder.qkv_bias,
        init=encoder.init,
        preprocessing=encoder.preprocessing,
    )


def _preprocessing(model_type: str, raw: RawCheckpoint) -> Preprocessing:
    document = raw.documents.get("preprocessor_config.json")
    if document is None:
        return PREPROCESSING.get(model_type, IMAGENET)
    return from_hf(document, _size(raw.documents["config.json"].get("image_size", 224)))[0]


def input_size(raw: RawCheckpoint) -> tuple[int, int] | None:
    """Return the size of the images that the preprocessing beside a model makes, or None if there is none."""
    document = raw.documents.get("preprocessor_config.json")
    if document is None:
        return None
    return from_hf(document, _size(raw.documents["config.json"].get("image_size", 224)))[1]


def class_names(document: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the names of the classes in order, or none if `id2label` only counts them."""
    labels = document.get("id2label") or {}
    try:
        names = tuple(str(labels[key]) for key in sorted(labels, key=int))
    except (TypeError, ValueError):
        return ()
    return () if all(name == f"LABEL_{i}" for i, name in enumerate(names)) else names


def _size(value: Any) -> tuple[int, int]:
    height, width = value if isinstance(value, list | tuple) else (value, value)
    return int(height), int(width)
