"""Sizes of images and patches. Needs no jax."""

from typing import Any

from vit_jax.errors import ConfigError
from vit_jax.models.layers.encoder_config import LARGEST


def pair(value: Any, name: str) -> tuple[int, int]:
    """Return `(value, value)` for an integer and a tuple for a sequence of two; else raise ConfigError."""
    values = (
        (value, value) if isinstance(value, int) else tuple(value) if isinstance(value, tuple | list) else ()
    )
    if len(values) != 2 or not all(isinstance(v, int) and 0 < v < LARGEST for v in values):
        raise ConfigError(
            f"{name} is {value!r}; it must be a positive integer or two of them, height and width."
        )
    return values[0], values[1]


def check_divides(image_size: tuple[int, int], patch_size: tuple[int, int], what: str = "patch size") -> None:
    """Raise ConfigError, naming the two nearest sizes, unless patches, or whatever it is, tile the image."""
    for axis, size, patch in zip(("height", "width"), image_size, patch_size):
        if size % patch:
            below, above = size // patch * patch, (size // patch + 1) * patch
            near = f"{below} or {above}" if below else f"{above}"
            raise ConfigError(
                f"image_size has {axis} {size}, not divisible by {what} {patch}; the nearest sizes are {near}."
            )
