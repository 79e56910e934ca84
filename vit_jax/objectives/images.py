"""Images as the data pipeline ships them (uint8) to what models take, inside the jitted step."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from vit_jax.models.preprocessing import Preprocessing


def normalise(images: jax.Array, preprocessing: Preprocessing) -> jax.Array:
    """Return `(images / 255 - mean) / std` as float32.

    Args:
      images: `(b, h, w, c)`, uint8 or float in [0, 255].
      preprocessing: the model's mean and std.
    """
    mean, std = channel_values(preprocessing, images.shape[-1])
    return (images.astype(jnp.float32) / 255 - mean) / std


def denormalise(images: jax.Array | np.ndarray, preprocessing: Preprocessing) -> np.ndarray:
    """Return normalised images as uint8, clipped; the inverse of `normalise` up to rounding."""
    mean, std = channel_values(preprocessing, images.shape[-1])
    values = (np.asarray(images, np.float32) * std + mean) * 255
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)


def channel_values(preprocessing: Preprocessing, channels: int) -> tuple[np.ndarray, np.ndarray]:
    """Return mean and std, `(c,)` float32; with another number of channels, the average of the known ones."""
    values = []
    for known in (preprocessing.mean, preprocessing.std):
        exact = len(known) == channels
        values.append(np.asarray(known if exact else [np.mean(known)] * channels, np.float32))
    return values[0], values[1]


def pictures_of(batch: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the images of a batch as people see them, uint8 `(b, h, w, c)`: `picture` where models see others."""
    return batch.get("picture", batch["image"])


def on_host(tree: Any) -> Any:
    """Return global arrays as NumPy arrays, whole on every host; to be called by all hosts."""
    return multihost_utils.process_allgather(tree, tiled=True)
