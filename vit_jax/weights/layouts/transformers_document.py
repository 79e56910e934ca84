"""The `config.json` of a model in transformers' words; what it cannot say is found by reading it again."""

from collections.abc import Sequence
from typing import Any

from vit_jax.errors import ConfigError
from vit_jax.models.dino_head_config import DinoHeadConfig
from vit_jax.models.encoder_config import EncoderConfig
from vit_jax.models.text_config import ImageTextConfig
from vit_jax.models.upernet_config import UperNetConfig
from vit_jax.models.vit_config import MaeConfig, ViTConfig
from vit_jax.weights.layouts import transformers, transformers_towers, transformers_upernet
from vit_jax.weights.layouts.transformers_config import PREFIXES
from vit_jax.weights.rules import Rule

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
}
PROCESSORS = {
    "vit": "ViTImageProcessor",
    "vit_msn": "ViTImageProcessor",
    "vit_mae": "ViTImageProcessor",
    "ijepa": "ViTImageProcessor",
    "deit": "DeiTImageProcessor",
    "beit": "BeitImageProcessor",
    "dinov2": "BitImageProcessor",
    "dinov2_with_registers": "BitImageProcessor",
    "dinov3_vit": "DINOv3ViTImageProcessorFast",
    "clip": "CLIPImageProcessor",
    "siglip": "SiglipImageProcessor",
}
# Words of the classes, by what stands on the backbone: a classifier, pixels or codes of patches, or nothing.
_CLASSES = {
    "vit": ("ViTForImageClassification", "ViTForMaskedImageModeling", "ViTModel"),
    "deit": ("DeiTForImageClassificationWithTeacher", "DeiTForMaskedImageModeling", "DeiTModel"),
    "beit": ("BeitForImageClassification", "BeitForMaskedImageModeling", "BeitModel"),
    "ijepa": ("IJepaForImageClassification", "", "IJepaModel"),
    "dinov2": ("Dinov2ForImageClassification", "", "Dinov2Model"),
    "dinov2_with_registers": (
        "Dinov2WithRegistersForImageClassification",
        "",
        "Dinov2WithRegistersModel",
    ),
    "dinov3_vit": ("", "", "DINOv3ViTModel"),
}


def document(config: Any, class_names: Sequence[str] = ()) -> tuple[dict[str, Any], list[Rule]]:
    """Return the `config.json` of a model and the rules of its arrays.

    Args:
      config: the model.
      class_names: in order of logits.

    Raises:
      ConfigError: transformers has no such model.
    """
    if isinstance(config, ImageTextConfig):
        return _towers(config)
    if isinstance(config, MaeConfig):
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
    if isinstance(config, UperNetConfig):
        about = {**_common(config.encoder), **_own(config.encoder, "beit"), "model_type": "beit"}
        labels = _labels(config.num_classes, class_names)
        return {**about, **transformers_upernet.document(config), **labels}, transformers_upernet.rules(
            config
        )
    if isinstance(config, DinoHeadConfig):
        raise ConfigError("transformers has no projection head alone; save it as 'orbax'.")
    if not isinstance(config, ViTConfig):
        raise ConfigError(
            "transformers has no model of a text tower alone that this library writes; save both towers."
        )
    model_type = _model_type(config)
    classifier, patches, plain = _CLASSES[model_type]
    name = plain if not config.num_classes else patches if config.pool == "patches" else classifier
    if not name:
        raise ConfigError(
            f"transformers has no {model_type} with such a head; save it without: num_classes=0."
        )
    prefix = PREFIXES[model_type] if config.num_classes else ""
    about = {**_common(config), **_own(config, model_type), "model_type": model_type, "architectures": [name]}
    if config.num_classes and config.pool != "patches":
        about |= _labels(config.num_classes, class_names)
    return about, transformers.rules(config, model_type, prefix)


def _labels(num_classes: int, class_names: Sequence[str]) -> dict[str, Any]:
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
        return "beit"
    if config.layer_scale is not None:
        return "dinov2_with_registers" if config.register_tokens else "dinov2"
    return "vit" if config.class_token else "ijepa"


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
        "hidden_act": ACTIVATIONS[config.activation],
        "layer_norm_eps": config.norm_epsilon,
        "qkv_bias": config.qkv_bias,
        "dtype": "float32",
    }


def _own(config: ViTConfig, model_type: str) -> dict[str, Any]:
    if model_type in ("vit", "deit", "ijepa"):
        pooler = {"pooler_output_size": config.representation_size} if config.representation_size else {}
        return {"encoder_stride": config.patch_size[0], **pooler}
    if model_type == "beit":
        return {
            "use_shared_relative_position_bias": config.position_bias == "shared",
            "use_relative_position_bias": config.position_bias == "blocks",
            "use_absolute_position_embeddings": config.position == "learned",
            "use_mask_token": config.mask_token,
            "use_mean_pooling": config.pool_norm == "after" or config.pool == "patches",
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
            "hidden_act": "silu" if config.mlp == "swiglu" else ACTIVATIONS[config.activation],
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


def _towers(config: ImageTextConfig) -> tuple[dict[str, Any], list[Rule]]:
    image, text = config.image, config.text
    vision = {**_tower(image), "patch_size": image.patch_size[0], "num_channels": image.in_channels}
    words = {**_tower(text), "vocab_size": text.vocab_size, "max_position_embeddings": text.context_length}
    if image.pool == "cls":
        projection = image.num_classes
        about = {
            "model_type": "clip",
            "architectures": ["CLIPModel"],
            "projection_dim": projection,
            "vision_config": {**vision, "image_size": image.image_size[0], "projection_dim": projection},
            "text_config": {
                **words,
                "projection_dim": projection,
                "eos_token_id": 2 if text.pool == "argmax" else text.eos_token,
            },
        }
        return {**about, "dtype": "float32"}, transformers_towers.clip_rules(config)
    sequences = image.resample_antialias and image.resample == "bilinear"
    model_type = "siglip2" if sequences else "siglip"
    vision |= {"num_patches": image.num_patches} if sequences else {"image_size": image.image_size[0]}
    about = {
        "model_type": model_type,
        "architectures": ["Siglip2Model" if sequences else "SiglipModel"],
        "vision_config": {**vision, "vision_use_head": True},
        "text_config": {**words, "projection_size": text.num_classes},
        "dtype": "float32",
    }
    return about, transformers_towers.siglip_rules(config, sequences)


def _tower(config: EncoderConfig) -> dict[str, Any]:
    return {
        "hidden_size": config.width,
        "intermediate_size": config.mlp_dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "hidden_act": ACTIVATIONS[config.activation],
        "layer_norm_eps": config.norm_epsilon,
    }
