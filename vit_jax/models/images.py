"""Which images a model takes."""

import jax
import jax.numpy as jnp

from vit_jax.errors import ConfigError


def check_normalised(pixels: jax.Array) -> None:
    """Raise ConfigError for whole numbers: those are pixels as files have them, which no model was trained on."""
    if not jnp.issubdtype(pixels.dtype, jnp.floating):
        raise ConfigError(
            f"images are {pixels.dtype}, raw pixels; a model takes normalised floating-point numbers: "
            "model(vit_jax.preprocessing(model)(images))."
        )


def check_channels(images: jax.Array, channels: int) -> None:
    """Raise ConfigError unless these are images `(b, h, w, channels)` of normalised numbers, of whatever size."""
    check_normalised(images)
    if images.ndim != 4 or images.shape[3] != channels:
        raise ConfigError(
            f"images have shape {images.shape}; the model takes (batch, height, width, {channels})."
        )
