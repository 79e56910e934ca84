"""The `config.json` of CLIP, MetaCLIP 2, SigLIP, SigLIP 2 and their towers in transformers' words."""

from typing import Any

from vit_jax.errors import ConfigError, argument
from vit_jax.models.layers.encoder_config import EncoderConfig
from vit_jax.models.text.config import ImageTextConfig, TextConfig
from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.layouts.transformers import towers as transformers_towers
from vit_jax.weights.layouts.transformers.config import HIDDEN_ACTS
from vit_jax.weights.rules import Rule


def document(config: ImageTextConfig | ViTConfig | TextConfig) -> tuple[dict[str, Any], list[Rule]]:
    """Return the `config.json` of both towers or of one, and the rules of the arrays.

    Raises:
      ConfigError: transformers has no such model.
    """
    kind = {ImageTextConfig: _pair, ViTConfig: _image_tower, TextConfig: _text_tower}[type(config)]
    image = getattr(config, "image", config)
    found = transformers_towers.rules(config, isinstance(image, ViTConfig) and _sequences(image))
    return {**kind(config), "dtype": "float32"}, found


def _pair(config: ImageTextConfig) -> dict[str, Any]:
    clip = config.image.pre_norm
    family, words = _text_family(config.text), _text(config.text)
    vision = _image(config.image)
    if clip == (family == "siglip"):
        raise ConfigError("transformers has no pair of one CLIP tower and one SigLIP tower; choose 'orbax'.")
    if clip:
        size = {"projection_dim": config.image.num_classes}
        about = {"vision_config": vision | size, "text_config": words | size, **size}
    else:
        family += "2" * _sequences(config.image)
        about = {"vision_config": vision, "text_config": words}
    name = {"clip": "CLIP", "metaclip_2": "MetaClip2", "siglip": "Siglip", "siglip2": "Siglip2"}[family]
    return {"model_type": family, "architectures": [f"{name}Model"], **about}


def _image_tower(config: ViTConfig) -> dict[str, Any]:
    vision = _image(config)
    if config.pre_norm:
        alone = {"model_type": "clip_vision_model", **vision}
        if config.pool == "cls" and not config.num_classes:
            return {"architectures": ["CLIPVisionModel"], **alone}
        if config.pool == "cls" and not config.head_bias:
            name = "CLIPVisionModelWithProjection"
            return {"architectures": [name], "projection_dim": config.num_classes, **alone}
        if config.pool == "mean" and config.pool_norm == "none":
            return {
                "model_type": "clip",
                "architectures": ["CLIPForImageClassification"],
                "vision_config": vision,
                **({} if config.num_classes else {"id2label": {}, "label2id": {}}),
            }
        raise ConfigError(
            f"transformers' CLIP classifies the mean of patches without a norm, not pool {config.pool!r} with "
            f"pool_norm {config.pool_norm!r}; save it without a head, "
            f"{argument('pool', 'cls')} and {argument('num_classes', 0)}, or as 'orbax'."
        )
    family, name = ("siglip2", "Siglip2") if _sequences(config) else ("siglip", "Siglip")
    if not config.num_classes:
        return {"model_type": f"{family}_vision_model", "architectures": [f"{name}VisionModel"], **vision}
    if config.pool == "mean" and config.pool_norm == "before":
        return {
            "model_type": family,
            "architectures": [f"{name}ForImageClassification"],
            "vision_config": vision,
        }
    raise ConfigError(
        f"transformers' SigLIP classifies the mean of patches, not pool {config.pool!r}; save it without its head, "
        f"{argument('num_classes', 0)}, or as 'orbax'."
    )


def _text_tower(config: TextConfig) -> dict[str, Any]:
    family = _text_family(config)
    name = {"clip": "CLIP", "metaclip_2": "MetaClip2", "siglip": "Siglip"}[family] + "TextModel"
    if config.causal and config.num_classes:
        name += "WithProjection"
    projection = {"projection_dim": config.num_classes} if config.causal and config.num_classes else {}
    return {"model_type": f"{family}_text_model", "architectures": [name], **_text(config), **projection}


def _text_family(config: TextConfig) -> str:
    if not config.causal:
        return "siglip"
    # transformers' CLIP takes the highest token where the end token is 2, and its MetaCLIP 2 does not.
    return "metaclip_2" if config.pool == "eos" and config.eos_token == 2 else "clip"


def _sequences(config: ViTConfig) -> bool:
    return not config.pre_norm and config.resample_antialias and config.resample == "bilinear"


def _image(config: ViTConfig) -> dict[str, Any]:
    size = {"image_size": config.image_size[0]}
    if _sequences(config):
        size = {"num_patches": config.num_patches}
    about = {**_tower(config), **size, "patch_size": config.patch_size[0], "num_channels": config.in_channels}
    return about if config.pre_norm else {**about, "vision_use_head": config.pool == "map"}


def _text(config: TextConfig) -> dict[str, Any]:
    about = {
        **_tower(config),
        "vocab_size": config.vocab_size,
        "max_position_embeddings": config.context_length,
    }
    if not config.causal:
        return {**about, "projection_size": config.num_classes}
    return {
        **about,
        "eos_token_id": {"argmax": 2, "first": config.vocab_size}.get(config.pool, config.eos_token),
    }


def _tower(config: EncoderConfig) -> dict[str, Any]:
    return {
        "hidden_size": config.width,
        "intermediate_size": config.mlp_dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.heads,
        "hidden_act": HIDDEN_ACTS[config.activation],
        "layer_norm_eps": config.norm_epsilon,
    }
