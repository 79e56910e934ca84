"""The `config.json` of a model in transformers' words; what it cannot say is found by reading it again."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.errors import ConfigError, argument
from vit_jax.models.heads.upernet.config import UperNetConfig
from vit_jax.models.mae.config import MaeConfig
from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.layouts.problem_type import problem_type
from vit_jax.weights.layouts.transformers import towers_document as transformers_towers_document
from vit_jax.weights.layouts.transformers import upernet as transformers_upernet
from vit_jax.weights.layouts.transformers import vit as transformers
from vit_jax.weights.layouts.transformers.config import HIDDEN_ACTS, PREFIXES
from vit_jax.weights.rules import Rule, batch_counts

PROCESSORS = {
    "vit": "ViTImageProcessor",
    "vit_msn": "ViTImageProcessor",
    "vit_mae": "ViTImageProcessor",
    "ijepa": "ViTImageProcessor",
    "deit": "DeiTImageProcessor",
    "beit": "BeitImageProcessor",
    "data2vec-vision": "BeitImageProcessor",
    "dinov2": "BitImageProcessor",
    "dinov2_with_registers": "BitImageProcessor",
    "dinov3_vit": "DINOv3ViTImageProcessorFast",
    "cvt": "BitImageProcessor",
    "resnet": "BitImageProcessor",
    "clip": "CLIPImageProcessor",
    "clip_vision_model": "CLIPImageProcessor",
    "metaclip_2": "CLIPImageProcessor",
    "siglip": "SiglipImageProcessor",
    "siglip_vision_model": "SiglipImageProcessor",
}
# Words of the classes, by what stands on the backbone: a classifier, pixels or codes of patches, or nothing.
_CLASSES = {
    "vit": ("ViTForImageClassification", "ViTForMaskedImageModeling", "ViTModel"),
    "vit_msn": ("", "", "ViTMSNModel"),
    "deit": ("DeiTForImageClassification", "DeiTForMaskedImageModeling", "DeiTModel"),
    "beit": ("BeitForImageClassification", "BeitForMaskedImageModeling", "BeitModel"),
    "data2vec-vision": ("", "", "Data2VecVisionModel"),
    "ijepa": ("IJepaForImageClassification", "", "IJepaModel"),
    "dinov2": ("Dinov2ForImageClassification", "", "Dinov2Model"),
    "dinov2_with_registers": (
        "Dinov2WithRegistersForImageClassification",
        "",
        "Dinov2WithRegistersModel",
    ),
    "dinov3_vit": ("", "", "DINOv3ViTModel"),
}


def mae(config: MaeConfig) -> tuple[dict[str, Any], list[Rule]]:
    """Return the `config.json` of a masked autoencoder and the rules of its arrays."""
    decoder = config.decoder
    about = {
        **_common(config.encoder),
        "model_type": "vit_mae",
        "architectures": ["ViTMAEForPreTraining"],
        "decoder_hidden_size": decoder.width,
        "decoder_num_hidden_layers": decoder.depth,
        "decoder_num_attention_heads": decoder.heads,
        "decoder_intermediate_size": decoder.mlp_dim,
    }
    return about, transformers.mae_rules(config)


def upernet(config: UperNetConfig, class_names: Sequence[str] = ()) -> tuple[dict[str, Any], list[Rule]]:
    """Return the `config.json` of a segmentation model and the rules of its arrays."""
    about = {**_common(config.encoder), **_own(config.encoder, "beit"), "model_type": "beit"}
    labels = label_names(config.num_classes, class_names)
    about = {**about, **transformers_upernet.document(config), **labels}
    return about, transformers_upernet.rules(config)


def vit(config: ViTConfig, class_names: Sequence[str] = ()) -> tuple[dict[str, Any], list[Rule]]:
    """Return the `config.json` of a Vision Transformer and the rules of its arrays.

    Args:
      config: the model.
      class_names: in order of logits.

    Raises:
      ConfigError: transformers has no such model.
    """
    model_type = _model_type(config)
    if model_type in ("clip", "siglip"):
        about, rules = transformers_towers_document.document(config)
        return {**about, **_labels(config, class_names)}, rules
    classifier, patches, plain = _CLASSES[model_type]
    name = plain if not config.num_classes else patches if config.pool == "patches" else classifier
    name += "WithTeacher" * (name == classifier and config.two_heads)
    if not name:
        raise ConfigError(
            f"transformers has no {model_type} with such a head; save it without: {argument('num_classes', 0)}."
        )
    prefix = PREFIXES[model_type] if config.num_classes else ""
    about = {**_common(config), **_own(config, model_type), "model_type": model_type, "architectures": [name]}
    if config.pool != "patches":
        about |= _labels(config, class_names)
    return about, transformers.rules(config, model_type, prefix)


def constants(
    about: Mapping[str, Any], rules: Sequence[Rule], params: Mapping[str, Any]
) -> dict[str, np.ndarray]:
    """Return arrays that a class of transformers has and does not predict with, by name.

    Args:
      about: the `config.json`.
      rules: of the other arrays.
      params: what they are about, by path.
    """
    if about["model_type"] == "dinov3_vit" and not about["num_register_tokens"]:
        return {"embeddings.register_tokens": np.zeros((1, 0, about["hidden_size"]), np.float32)}
    if about["architectures"] == ["CLIPForImageClassification"]:
        width, last = about["vision_config"]["hidden_size"], "vision_model.post_layernorm"
        return {f"{last}.weight": np.ones(width, np.float32), f"{last}.bias": np.zeros(width, np.float32)}
    return batch_counts(rules, params)


def _labels(config: ViTConfig, class_names: Sequence[str]) -> dict[str, Any]:
    if not config.num_classes or not config.head_bias:
        return {}
    return {**label_names(config.num_classes, class_names), **problem_type(config)}


def label_names(num_classes: int, class_names: Sequence[str]) -> dict[str, Any]:
    """Return what a `config.json` says of classes: their names, or numbers where there are none."""
    labels = class_names or [f"LABEL_{i}" for i in range(num_classes)]
    return {
        "id2label": {str(i): label for i, label in enumerate(labels)},
        "label2id": {label: i for i, label in enumerate(labels)},
    }


def _model_type(config: ViTConfig) -> str:
    if config.rope == "dinov3":
        return "dinov3_vit"
    if config.distillation_token:
        return "deit"
    if config.position_bias != "none" or not config.k_bias:
        return "data2vec-vision" if config.pool_norm == "none" else "beit"
    if config.layer_scale is not None:
        return "dinov2_with_registers" if config.register_tokens else "dinov2"
    if config.pre_norm:
        return "clip"
    if not config.class_token:
        # SigLIP's classifier computes what I-JEPA's does; each has its own GELU.
        return "siglip" if config.pool == "map" or config.activation == "gelu_tanh" else "ijepa"
    bare = not (config.num_classes or config.representation_size or config.mask_token)
    return "vit_msn" if bare else "vit"  # ViTModel would have a pooler, which would start anew


def _common(config: ViTConfig) -> dict[str, Any]:
    square = {"image_size": config.image_size, "patch_size": config.patch_size}
    sizes = {name: size[0] if size[0] == size[1] else list(size) for name, size in square.items()}
    return {
        **sizes,
        "num_channels": config.in_channels,
        "hidden_size": config.width,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_dim,
        "hidden_act": HIDDEN_ACTS[config.activation],
        "layer_norm_eps": config.norm_epsilon,
        "qkv_bias": config.qkv_bias,
        "dtype": "float32",
    }


def _own(config: ViTConfig, model_type: str) -> dict[str, Any]:
    if model_type in ("vit", "vit_msn", "deit", "ijepa"):
        pooler = {"pooler_output_size": config.representation_size} if config.representation_size else {}
        stride = transformers.encoder_stride(config) if config.pool == "patches" else config.patch_size
        return {"encoder_stride": stride[0], **pooler}
    if model_type in ("beit", "data2vec-vision"):
        return {
            "use_shared_relative_position_bias": config.position_bias == "shared",
            "use_relative_position_bias": config.position_bias == "blocks",
            "use_absolute_position_embeddings": config.position == "learned",
            "use_mask_token": config.mask_token,
            "use_mean_pooling": config.pool != "cls",
            "layer_scale_init_value": config.layer_scale or 0.0,
            **({"vocab_size": config.num_classes} if config.pool == "patches" else {}),
        }
    if model_type == "dinov3_vit":
        return {
            "num_register_tokens": config.register_tokens,
            "query_bias": config.qkv_bias,
            "value_bias": config.qkv_bias,
            "key_bias": config.qkv_bias and config.k_bias,
            "use_gated_mlp": config.mlp == "swiglu",
            "hidden_act": "silu" if config.mlp == "swiglu" else HIDDEN_ACTS[config.activation],
            "layerscale_value": config.layer_scale,
            "rope_theta": config.rope_theta,
        }
    gated = config.mlp == "swiglu"
    registers = {"num_register_tokens": config.register_tokens} if config.register_tokens else {}
    # The hidden width is computed from a ratio; the smallest that gives it back is found by trying.
    ratio = config.mlp_dim / config.width
    if gated:
        ratio = next(
            (
                r
                for r in (4, 3, 2, 6, 8)
                if (int(int(config.width * r) * 2 / 3) + 7) // 8 * 8 == config.mlp_dim
            ),
            4,
        )
    return {
        "mlp_ratio": int(ratio) if ratio == int(ratio) else ratio,
        "use_swiglu_ffn": gated,
        "layerscale_value": config.layer_scale,
        "use_mask_token": config.mask_token,
        **registers,
    }
