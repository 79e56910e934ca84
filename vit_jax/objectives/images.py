"""Images as the data pipeline ships them (uint8) to what models take, inside the jitted step.

Those of a model whose images keep their shape (`models.family.Budget`) are patches, `image` `(b, n, p*q*c)`, and have a
`grid` `(b, 2)`, which says how many rows and columns of each image's patches there are.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils

from vit_jax.data.transforms.naflex import joined
from vit_jax.models.families import family_of
from vit_jax.models.patches import Patches
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.objectives.protocol import Field


def image_fields(model: Any) -> dict[str, Field]:
    """Return the fields that are a model's images: of its size, or patches and their `grid`."""
    grid = {} if family_of(model).budget(model) is None else {"grid": Field((2,), "int32")}
    return {"image": Field(model.input_shape), **grid}


def raw_images(batch: Mapping[str, Any]) -> Any:
    """Return the images of a batch, uint8 `(b, h, w, c)`, or `Patches` of those that keep their shape."""
    image = batch["image"]
    return Patches(image, batch["grid"]) if "grid" in batch else image


def inputs(batch: Mapping[str, Any], model: Any) -> Any:
    """Return what a model takes of a batch of raw images: normalised images `(b, h, w, c)`, or `Patches`."""
    images = raw_images(batch)
    if not isinstance(images, Patches):
        return normalise(images, model.preprocessing)
    shape = images.values.shape
    pixels = images.values.reshape(*shape[:2], shape[2] // model.in_channels, model.in_channels)
    return Patches(normalise(pixels, model.preprocessing).reshape(shape), images.sizes)


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


def pictures_of(batch: Mapping[str, np.ndarray], model: Any) -> list[np.ndarray]:
    """Return the images of a batch as people see them, uint8 `(h, w, c)`: `picture` where models see others."""
    shown = batch.get("picture", batch["image"])
    if "grid" not in batch:
        return [*shown]
    budget = family_of(model).budget(model)
    assert budget is not None  # which alone makes a grid of an image
    return [joined(image, grid, budget.size) for image, grid in zip(shown, batch["grid"])]


def on_host(tree: Any) -> Any:
    """Return global arrays as NumPy arrays, whole on every host; to be called by all hosts."""
    return multihost_utils.process_allgather(tree, tiled=True)
