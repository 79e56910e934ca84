"""Which patches I-JEPA's encoder sees, and which are predicted (Assran et al. 2023, arXiv 2301.08243).

As in the authors' collator, all images of a batch have blocks of one size, drawn anew for each batch, and places of
their own, and the context is what is left of a larger block without the targets. Shapes are fixed: blocks are padded
to the largest that may be drawn, and the context has the same number of patches in every batch. The collator cuts the
context to the smallest of a device's batch instead, the first of each image's patches row by row: with 128 images of
16x16 patches those are 69 of 256 on average. Here they are drawn among all that are left; an image that has fewer
is padded. A block may lie at the last row and column too, which the collator's never reach.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

_DRAWS = 256  # equally probable sizes, many of which are the same


class Masks(NamedTuple):
    """Patches of a batch, by their number in the grid, row by row.

    Attributes:
      context: `(b, k)` int32, what the encoder sees.
      seen: `(b, k)` bool, False for padding.
      targets: `(b, t, m)` int32, what is predicted, block by block.
      valid: `(b, m)` bool, False for padding; blocks of one image are of one size.
    """

    context: jax.Array
    seen: jax.Array
    targets: jax.Array
    valid: jax.Array


def block_sizes(grid: tuple[int, int], scale: tuple[float, float], aspect: tuple[float, float]) -> np.ndarray:
    """Return heights and widths of blocks to draw from, int32 `(draws, 2)`, as often as they are probable.

    Args:
      grid: rows and columns of patches.
      scale: share of the patches, from and to.
      aspect: height in widths, from and to; as published, the larger a block is, the higher.
    """
    rows, columns = grid
    sizes = []
    for share in (np.arange(_DRAWS) + 0.5) / _DRAWS:
        area = int(rows * columns * (scale[0] + share * (scale[1] - scale[0])))
        ratio = aspect[0] + share * (aspect[1] - aspect[0])
        height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
        sizes.append((min(max(height, 1), rows), min(max(width, 1), columns)))
    return np.asarray(sizes, np.int32)


def draw_masks(
    key: jax.Array,
    images: int,
    grid: tuple[int, int],
    target_sizes: np.ndarray,
    context_sizes: np.ndarray,
    targets: int,
    context: int,
) -> Masks:
    """Return blocks of a batch.

    Args:
      key: for all of them.
      images: `b`.
      grid: rows and columns of patches.
      target_sizes, context_sizes: from `block_sizes`.
      targets: `t`, blocks to predict of each image.
      context: `k`, patches that the encoder sees.
    """
    keys = jax.random.split(key, 5)
    size, around = (
        jnp.asarray(sizes)[jax.random.randint(own, (), 0, len(sizes))]
        for own, sizes in zip(keys[:2], (target_sizes, context_sizes))
    )
    corners = _corners(keys[2], (images, targets), size, grid)
    slot = jnp.arange(int(target_sizes.prod(axis=1).max()))
    valid = slot < size[0] * size[1]
    row, column = corners[..., :1] + slot // size[1], corners[..., 1:] + slot % size[1]
    wanted = jnp.where(valid, row * grid[1] + column, 0)

    free = _inside(_corners(keys[3], (images, 1), around, grid), around, grid)[:, 0]
    free &= ~_inside(corners, size, grid).any(axis=1)
    noise = jax.random.uniform(keys[4], free.shape)
    chosen = jnp.argsort(jnp.where(free, noise, 2.0), axis=1)[:, :context].astype(jnp.int32)
    seen = jnp.arange(context) < free.sum(axis=1, keepdims=True)
    return Masks(chosen, seen, wanted, jnp.broadcast_to(valid, (images, len(slot))))


def _corners(key: jax.Array, shape: tuple[int, int], size: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Return top rows and left columns of blocks, `(*shape, 2)` int32, all places equally probable."""
    most = jnp.asarray(grid, jnp.int32) - size + 1
    return jax.random.randint(key, (*shape, 2), 0, most)


def _inside(corners: jax.Array, size: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Return which patches are in blocks, bool `(b, t, n)`."""
    place = jnp.stack(jnp.meshgrid(jnp.arange(grid[0]), jnp.arange(grid[1]), indexing="ij"), -1).reshape(
        -1, 2
    )
    offset = place - corners[:, :, None]
    return ((offset >= 0) & (offset < size)).all(axis=-1)
