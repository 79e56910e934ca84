"""What images a model takes, told before anything is computed."""

from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.errors import ConfigError


def check_size(config: Any, images: jax.Array) -> None:
    """Raise ConfigError unless images `(b, h, w, c)` have the model's own size, or it takes any."""
    size = (images.shape[1], images.shape[2])
    if size != config.image_size and not config.dynamic_image_size:
        raise ConfigError(
            f"images are {size[0]}x{size[1]} and the model was made for {config.image_size[0]}x"
            f"{config.image_size[1]}; resize them, or create the model with image_size={size} or "
            "dynamic_image_size=True."
        )


def check_channels(images: jax.Array, channels: int) -> None:
    """Raise ConfigError unless these are images `(b, h, w, channels)` of normalised numbers, of whatever size."""
    check_normalised(images)
    if images.ndim != 4 or images.shape[3] != channels:
        raise ConfigError(
            f"images have shape {images.shape}; the model takes (batch, height, width, {channels})."
        )


def check_normalised(pixels: jax.Array) -> None:
    """Raise ConfigError for whole numbers: those are pixels as files have them, which no model was trained on."""
    if not jnp.issubdtype(pixels.dtype, jnp.floating):
        raise ConfigError(
            f"images are {pixels.dtype}, raw pixels; a model takes normalised floating-point numbers: "
            "model(vit_jax.preprocessing(model)(images))."
        )
