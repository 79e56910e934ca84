"""Models as Google's npz holds them; it says nothing beside the arrays."""

from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.models.text.config import ImageTextConfig
from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.layouts.google import vit as google
from vit_jax.weights.layouts.layout import Written


def write_vit(config: ViTConfig, params: Mapping[str, Any], class_names: Sequence[str]) -> Written:
    """Return an image encoder in vision_transformer's words, or in big_vision's where only they will do."""
    modern = config.pool != "cls" or not config.class_position or config.position != "learned"
    return Written(config, params, google.rules(config, prefix="params/" if modern else ""))


def write_pair(config: ImageTextConfig, params: Mapping[str, Any], class_names: Sequence[str]) -> Written:
    """Return a pair of towers in big_vision's words."""
    return Written(config, params, google.image_text_rules(config))
