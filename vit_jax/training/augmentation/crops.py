"""Random parts of images, resized on a device as two matrix products."""

import math

import jax
import jax.numpy as jnp

from vit_jax.data.transforms.crops import RandomResizedCrop
from vit_jax.random import fold

METHODS = ("bilinear", "bicubic")


def draw_box(crop: RandomResizedCrop, height: int, width: int, key: jax.Array) -> jax.Array:
    """Return top, left, height and width of a random part, int32 `(4,)`, as `RandomResizedCrop.box` draws it.

    Args:
      crop: with the scales and ratios of parts.
      height, width: of the image.
      key: of this crop.
    """
    shares, ratios = jax.random.uniform(fold(key, "size"), (2, 10))
    low, high = map(math.log, crop.ratio)
    areas = height * width * (crop.scale[0] + (crop.scale[1] - crop.scale[0]) * shares)
    ratios = jnp.exp(low + (high - low) * ratios)
    sizes = jnp.rint(jnp.sqrt(jnp.stack([areas / ratios, areas * ratios]))).astype(jnp.int32)
    most = jnp.asarray([height, width])
    fits = ((sizes > 0) & (sizes <= most[:, None])).all(0)
    # If none fits, the largest centred part with an allowed ratio.
    ratio = min(max(width / height, crop.ratio[0]), crop.ratio[1])
    largest = max(1, min(height, round(width / ratio))), max(1, min(width, round(height * ratio)))
    size = jnp.where(fits.any(), sizes[:, fits.argmax()], jnp.asarray(largest))
    free = (most - size + 1).astype(jnp.float32) * jax.random.uniform(fold(key, "place"), (2,))
    places = jnp.floor(free).astype(jnp.int32)
    # A share just below 1 can round up to the next place.
    places = jnp.where(fits.any(), jnp.minimum(places, most - size), (most - size) // 2)
    return jnp.concatenate([places, size])


def resized_crop(image: jax.Array, box: jax.Array, size: tuple[int, int], method: str) -> jax.Array:
    """Return a part of an image at a size, antialiased as Pillow does it.

    Args:
      image: `(h, w, c)`, values from 0 to 255.
      box: top, left, height and width of the part, int32 `(4,)`; may be traced.
      size: height and width of the result.
      method: `bilinear` or `bicubic`.

    Returns:
      Whole values from 0 to 255, float32 `(*size, c)`.
    """
    top, left, height, width = box
    rows = _weights(size[0], image.shape[0], top, height, method)
    columns = _weights(size[1], image.shape[1], left, width, method)
    exact = jax.lax.Precision.HIGHEST
    # Columns first, and rounded between, as Pillow does.
    image = _whole(jnp.einsum("Ww,hwc->hWc", columns, image.astype(jnp.float32), precision=exact))
    return _whole(jnp.einsum("Hh,hWc->HWc", rows, image, precision=exact))


def _whole(values: jax.Array) -> jax.Array:
    return jnp.clip(jnp.floor(values + 0.5), 0, 255)


def _weights(count: int, whole: int, first: jax.Array, length: jax.Array, method: str) -> jax.Array:
    """Return weights `(count, whole)` of samples from `first` on, `length` of them, for `count` new ones."""
    scale = length.astype(jnp.float32) / count
    samples, first = jnp.arange(whole, dtype=jnp.float32), first.astype(jnp.float32)
    length = length.astype(jnp.float32)
    centres = first + (jnp.arange(count, dtype=jnp.float32) + 0.5) * scale - 0.5
    distance = jnp.abs(samples - centres[:, None]) / jnp.maximum(scale, 1)
    weights = jnp.maximum(1 - distance, 0) if method == "bilinear" else _cubic(distance)
    weights = jnp.where((samples >= first) & (samples < first + length), weights, 0)
    return weights / weights.sum(-1, keepdims=True)


def _cubic(x: jax.Array) -> jax.Array:
    """Return Keys' kernel with -0.5, Pillow's, of distances of at least 0."""
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return jnp.where(x < 1, near, jnp.where(x < 2, far, 0))
