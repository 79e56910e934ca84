"""Dense predictions of large images from windows of the size that a model was trained on."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np


def window_starts(size: int, crop: int, stride: int) -> list[int]:
    """Return where windows begin along one axis: every `stride`, the last one shifted inwards to end at the border.

    Args:
      size: of the image.
      crop: of a window, at most `size`.
      stride: from one to the next, at most `crop`.
    """
    last = size - crop
    return [*range(0, last, stride), last]


def sliding_logits(
    apply: Callable[[jax.Array], jax.Array],
    images: jax.Array,
    crop: tuple[int, int],
    stride: tuple[int, int],
    windows: int = 4,
) -> jax.Array:
    """Return logits of every pixel, each the mean over the windows that see it.

    Args:
      apply: logits `(b, *crop, c)` float32 of images `(b, *crop, channels)`.
      images: `(b, h, w, channels)`, at least as large as a window.
      crop: height and width of a window.
      stride: from one window to the next, down and across.
      windows: of each image that are computed at a time; memory grows with it.

    Returns:
      float32 `(b, h, w, c)`.
    """
    b, *size, channels = images.shape
    rows, columns = (window_starts(*axis) for axis in zip(size, crop, stride))
    starts = np.asarray([(row, column) for row in rows for column in columns], np.int32)
    seen = np.zeros(size, np.float32)
    for row, column in starts:
        seen[row : row + crop[0], column : column + crop[1]] += 1
    windows = min(windows, len(starts))
    # The last group is filled with the first window, which then counts nothing.
    weights = np.arange(-(-len(starts) // windows) * windows) < len(starts)
    groups = np.resize(starts, (len(weights), 2)) * weights[:, None]
    classes = jax.eval_shape(apply, jax.ShapeDtypeStruct((b, *crop, channels), images.dtype)).shape[-1]

    def add(total: jax.Array, group: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, None]:
        places, counted = group
        cut = [
            jax.lax.dynamic_slice(images, (0, *places[i], 0), (b, *crop, channels)) for i in range(windows)
        ]
        # Beside each image its own windows, so that what is divided over devices stays where it is.
        found = apply(jnp.stack(cut, axis=1).reshape(b * windows, *crop, channels))
        found = found.reshape(b, windows, *crop, classes)
        for i in range(windows):
            start = (0, *places[i], 0)
            part = jax.lax.dynamic_slice(total, start, (b, *crop, classes))
            total = jax.lax.dynamic_update_slice(total, part + found[:, i] * counted[i], start)
        return total, None

    total = jnp.zeros((b, *size, classes), jnp.float32)
    places = jnp.asarray(groups).reshape(-1, windows, 2)
    counted = jnp.asarray(weights, jnp.float32).reshape(-1, windows)
    total, _ = jax.lax.scan(add, total, (places, counted))
    return total / seen[..., None]
