"""What model transformers' `config.json` describes."""

from collections.abc import Mapping
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError, nearest
from vit_jax.models.layers.pixels.sizes import pair
from vit_jax.models.mae.config import MaeConfig
from vit_jax.models.preprocessing import IMAGENET, INCEPTION, Preprocessing, covered
from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.formats.tensors import LARGEST, RawCheckpoint, Tensor
from vit_jax.weights.layouts.problem_type import read_problem
from vit_jax.weights.layouts.table import READINGS
from vit_jax.weights.layouts.transformers.vit import PREFIXES
from vit_jax.weights.preprocessing_formats import Size, from_hf

TOWERS = tuple(
    family + part
    for family in ("clip", "siglip", "siglip2", "metaclip_2", "chinese_clip")
    for part in ("", "_vision_model", "_text_model")
)
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
# Its own word for each.
HIDDEN_ACTS = {ours: theirs for theirs, ours in reversed(ACTIVATIONS.items())}
# What transformers assumes when a `config.json` does not say: files omit values that are the default.
DEFAULTS = dict(
    hidden_size=768, num_hidden_layers=12, num_attention_heads=12, intermediate_size=3072, hidden_act="gelu",
    layer_norm_eps=1e-12, image_size=224, patch_size=16, num_channels=3, qkv_bias=True, pooler_act="tanh",
)  # fmt: skip
_BEIT = dict(
    use_shared_relative_position_bias=False, use_relative_position_bias=False, use_absolute_position_embeddings=False,
    use_mean_pooling=True, layer_scale_init_value=0.1,
)  # fmt: skip
_DINOV2 = dict(
    layer_norm_eps=1e-6, mlp_ratio=4.0, use_swiglu_ffn=False, layerscale_value=1.0, num_register_tokens=0
)
_OWN_DEFAULTS: dict[str, dict[str, Any]] = {
    "beit": _BEIT,
    "data2vec-vision": _BEIT,
    "vit_msn": dict(layer_norm_eps=1e-6),
    "vit_mae": dict(
        decoder_hidden_size=512, decoder_num_hidden_layers=8, decoder_num_attention_heads=16,
        decoder_intermediate_size=2048,
    ),
    "dinov2": {**_DINOV2, "patch_size": 14},
    "dinov2_with_registers": {**_DINOV2, "num_register_tokens": 4},
    "dinov3_vit": dict(
        hidden_size=384, num_attention_heads=6, intermediate_size=1536, layer_norm_eps=1e-5, rope_theta=100.0,
        query_bias=True, key_bias=False, value_bias=True, use_gated_mlp=False, num_register_tokens=0,
        layerscale_value=1.0,
    ),
}  # fmt: skip
PREPROCESSING = {
    "vit": INCEPTION,
    "beit": INCEPTION,
    "data2vec-vision": IMAGENET,
}


def settings(defaults: Mapping[str, Any], document: Any, where: str) -> dict[str, Any]:
    """Return the values of a description, or a part of one, with what it leaves out.

    Args:
      defaults: what the library assumes; a value must be of the same kind.
      document: the values by name.
      where: checkpoint and file, for messages.

    Raises:
      CheckpointError: a value is of another kind.
      ConfigError: a size is none.
    """
    if not isinstance(document, Mapping):
        raise CheckpointError(f"{where} is {document!r:.60}; it must be an object of names and values.")
    given = {name: value for name, value in document.items() if value is not None}
    for name, default in defaults.items():
        value = given.get(name, default)
        kinds: Any = type(default)
        if name in ("image_size", "patch_size"):
            if max(pair(value, name)) > LARGEST:
                raise ConfigError(f"{name} is {value}, more than {LARGEST} pixels.")
            continue
        if isinstance(default, int | float) and not isinstance(default, bool):
            kinds = int | float if isinstance(default, float) else int
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not isinstance(value, kinds) or (
            kinds not in (bool, str, dict) and not (number and abs(value) < LARGEST)
        ):
            expected = {
                bool: "true or false",
                int: "a whole number",
                str: "text",
                dict: "values by name",
            }.get(kinds, "a number")
            raise CheckpointError(f"{where} says {name} {value!r:.60}; it must be {expected}.")
    return {**defaults, **given}


def from_document(raw: RawCheckpoint) -> tuple[ViTConfig | MaeConfig, str, Size | None]:
    """Return the model of transformers' `config.json`, the prefix of its names and the size of its inputs if known.

    Raises:
      CheckpointError: it is a model we do not have, or says something we do not know.
    """
    model_type = str(raw.documents["config.json"]["model_type"])
    if model_type not in PREFIXES:
        own = (name.partition("/")[2] for name in READINGS if name.startswith("transformers/"))
        known = (*PREFIXES, *TOWERS, *own)
        raise CheckpointError(
            f"{raw.origin}: config.json says model_type {model_type!r:.60}, which is not one of {', '.join(known)}."
            f"{nearest(model_type, known)}"
        )
    prefix = PREFIXES[model_type]
    if not any(name.startswith(prefix) for name in raw.tensors):
        prefix = ""
    try:
        defaults = {**DEFAULTS, **_OWN_DEFAULTS.get(model_type, {})}
        about = settings(defaults, raw.documents["config.json"], f"{raw.origin}: config.json")
        config, size = _config(model_type, about, prefix, raw)
        if model_type == "vit_mae" and any(name.startswith("decoder.") for name in raw.tensors):
            return MaeConfig(config, _decoder(about, config)), prefix, size
    except ConfigError as error:
        raise CheckpointError(f"{raw.origin}: config.json describes no model: {error}") from None
    return config, prefix, size


def activation(name: Any, origin: str) -> str:
    """Return our word for transformers' `hidden_act`."""
    if name not in ACTIVATIONS:
        raise CheckpointError(
            f"{origin}: config.json says hidden_act {name!r:.60}; it must be one of {', '.join(ACTIVATIONS)}."
        )
    return ACTIVATIONS[name]


def _config(
    model_type: str, about: dict[str, Any], prefix: str, raw: RawCheckpoint
) -> tuple[ViTConfig, Size | None]:
    names, width = raw.tensors, about["hidden_size"]
    if f"{prefix}pooler.dense.weight" in names and about["pooler_act"] != "tanh":
        raise CheckpointError(
            f"{raw.origin}: config.json says pooler_act {about['pooler_act']!r:.60}; this library knows 'tanh'."
        )
    patch_size = pair(about["patch_size"], "patch_size")
    preprocessing, image_size, input_size = processed(raw, about, PREPROCESSING.get(model_type, IMAGENET))
    fields: dict[str, Any] = dict(
        image_size=image_size,
        patch_size=patch_size,
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
        preprocessing=preprocessing,
        problem=read_problem(about, raw.origin),
        **_output(raw.tensors, prefix),
    )
    if model_type == "deit":
        # Without heads of both, transformers reads the class token alone.
        both = "cls_classifier.weight" in names or fields["pool"] == "patches"
        fields.update(distillation_token=True, distillation_head=both)
    elif model_type in ("beit", "data2vec-vision"):
        shared, own = about["use_shared_relative_position_bias"], about["use_relative_position_bias"]
        fields.update(
            k_bias=False,
            position="learned" if about["use_absolute_position_embeddings"] else "none",
            position_bias="shared" if shared else "blocks" if own else "none",
            layer_scale=about["layer_scale_init_value"] or None,
        )
        if fields["pool"] == "patches" and prefix and f"{prefix}layernorm.weight" in names:
            raise CheckpointError(
                f"{raw.origin} normalises twice before its lm_head, which this library does not; save its BeitModel "
                "with transformers, and load that."
            )
        if fields["pool"] != "patches" and about["use_mean_pooling"]:
            # The norm belongs to the pooling, which is left out of some files.
            pooled = f"{prefix}pooler.layernorm.weight" in names
            fields.update(pool="mean", pool_norm="after" if pooled else "none")
    elif model_type.startswith("dinov2"):
        gated = about["use_swiglu_ffn"]
        hidden = int(width * about["mlp_ratio"])
        fields.update(
            mlp="swiglu" if gated else "mlp",
            mlp_dim=(int(hidden * 2 / 3) + 7) // 8 * 8 if gated else hidden,
            layer_scale=about["layerscale_value"],
            register_tokens=about["num_register_tokens"],
            class_position=True,
        )
        if fields["num_classes"]:
            fields.update(pool="cls_mean")
    elif model_type == "dinov3_vit":
        if about["use_gated_mlp"] and fields["activation"] != "silu":
            raise CheckpointError(
                f"{raw.origin}: config.json says use_gated_mlp with hidden_act {about['hidden_act']!r:.60}; this "
                "library gates with 'silu', as the published models do."
            )
        fields.update(
            mlp="swiglu" if about["use_gated_mlp"] else "mlp",
            layer_scale=about["layerscale_value"],
            register_tokens=about["num_register_tokens"],
            qkv_bias=about["query_bias"] and about["value_bias"],
            k_bias=about["key_bias"],
            position="none",
            rope="dinov3",
            rope_theta=float(about["rope_theta"]),
            dynamic_image_size=True,
        )
    elif model_type == "ijepa":
        # Its pooler, if there is one, reads the first patch.
        fields.update(pool="mean", representation_size=0)
    return ViTConfig(**fields), input_size


def _output(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Any]:
    """Return the fields of the head, which the arrays themselves say best."""

    def rows(*names: str) -> int:
        return next((tensors[name].shape[0] for name in names if name in tensors and tensors[name].shape), 0)

    if classes := rows("classifier.weight", "cls_classifier.weight"):
        return {"num_classes": classes, "pool": "cls"}
    if codes := rows("lm_head.weight"):
        return {"num_classes": codes, "pool": "patches"}
    if pixels := rows("decoder.0.weight"):
        return {"num_classes": pixels, "pool": "patches"}
    return {"num_classes": 0, "pool": "cls", "representation_size": rows(f"{prefix}pooler.dense.weight")}


def _decoder(about: Mapping[str, Any], encoder: ViTConfig) -> ViTConfig:
    p, q = encoder.patch_size
    return ViTConfig(
        image_size=encoder.image_size,
        patch_size=encoder.patch_size,
        in_channels=encoder.in_channels,
        width=about["decoder_hidden_size"],
        depth=about["decoder_num_hidden_layers"],
        heads=about["decoder_num_attention_heads"],
        mlp_dim=about["decoder_intermediate_size"],
        num_classes=p * q * encoder.in_channels,
        pool="patches",
        activation=encoder.activation,
        norm_epsilon=encoder.norm_epsilon,
        qkv_bias=encoder.qkv_bias,
        init=encoder.init,
        preprocessing=encoder.preprocessing,
    )


def processed(
    raw: RawCheckpoint, about: Mapping[str, Any], otherwise: Preprocessing
) -> tuple[Preprocessing, Size, Size | None]:
    """Return how images become inputs, the size of the positions, and that of the inputs if a file says it.

    Args:
      raw: the checkpoint.
      about: values of `config.json`: `image_size` and `patch_size`.
      otherwise: the preprocessing where no `preprocessor_config.json` says it; it is for images of the positions' size.
    """
    own, patch = pair(about["image_size"], "image_size"), pair(about["patch_size"], "patch_size")
    document = raw.documents.get("preprocessor_config.json")
    preprocessing, size = (otherwise, own) if document is None else from_hf(document, own)
    # Patches leave out what does not fill one, at the right and the bottom.
    preprocessing, size = covered(preprocessing, size, patch)
    side = covered(preprocessing, own, patch)[1]
    return preprocessing, side, None if document is None else size


def class_names(document: Mapping[str, Any], origin: str) -> tuple[str, ...]:
    """Return the names of the classes by their numbers, or none if `id2label` only counts them.

    Raises:
      CheckpointError: what it numbers are no outputs of a model.
    """
    labels = document.get("id2label")
    if not isinstance(labels, Mapping):
        return ()
    try:
        names = {int(number): str(name) for number, name in labels.items()}
    except (TypeError, ValueError):
        names = {-1: ""}
    if names and not 0 <= min(names) <= max(names) < LARGEST:
        raise CheckpointError(
            f"{origin}: config.json has an id2label whose keys are not all numbers of outputs; repair or remove it."
        )
    # A number that has no name stays without one, so that the others keep their places.
    found = tuple(names.get(i, f"LABEL_{i}") for i in range(max(names, default=-1) + 1))
    return () if all(name == f"LABEL_{i}" for i, name in enumerate(found)) else found
