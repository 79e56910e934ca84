"""Which patches of global crops are masked: always as many crops and at most as many patches, drawn on the device."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from vit_jax.random import fold

ATTEMPTS = 30  # rectangles that are tried for a mask
MIN_AREA = 4  # patches of a rectangle, about
RATIO = (0.3, 1 / 0.3)  # of its height to its width


class Masks(NamedTuple):
    """Masks of the global crops of images, of which `m` crops of each have one.

    Attributes:
      masks: `(b, g, n)` bool, True where a patch is masked.
      places: `(b, m*p)` int32: masked patches among the `g*n` of an image, up to `p` for each mask.
      weights: `(b, m*p)` float32: of each 1 / the number of masked patches of its crop; 0 for what only fills up.
    """

    masks: jax.Array
    places: jax.Array
    weights: jax.Array


def block_order(key: jax.Array, counts: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Return patches in an order of which the first `counts` are masked: `(i, h*w)` int32.

    They are rectangles, drawn as BEiT does (Bao et al. 2021, arXiv 2106.08254), and, where no further one fits, single
    patches up to the exact number, as DINOv3 has it.

    Args:
      key: randomness.
      counts: `(i,)` how many patches of each mask.
      grid: rows and columns of patches.
    """
    (rows, columns), images = grid, len(counts)
    down, across = jnp.arange(rows)[:, None], jnp.arange(columns)

    def attempt(number: jax.Array, mask: jax.Array) -> jax.Array:
        draws = jax.random.uniform(fold(key, number), (4, images))
        left = counts - mask.sum((1, 2))
        area = MIN_AREA + (left - MIN_AREA).astype(jnp.float32) * draws[0]
        ratio = jnp.exp(math.log(RATIO[0]) + math.log(RATIO[1] / RATIO[0]) * draws[1])
        h, w = (jnp.round(jnp.sqrt(side)).astype(jnp.int32) for side in (area * ratio, area / ratio))
        top, first = (
            jnp.floor(draw * (room + 1).astype(jnp.float32)).astype(jnp.int32)[:, None, None]
            for draw, room in ((draws[2], rows - h), (draws[3], columns - w))
        )
        inside = (down >= top) & (down < top + h[:, None, None])
        inside &= (across >= first) & (across < first + w[:, None, None])
        added = (inside & ~mask).sum((1, 2))
        fits = (h > 0) & (h < rows) & (w > 0) & (w < columns) & (added > 0) & (added <= left)
        return mask | (inside & fits[:, None, None])

    mask = jax.lax.fori_loop(0, ATTEMPTS, attempt, jnp.zeros((images, rows, columns), bool))
    noise = jax.random.uniform(fold(key, "rest"), (images, rows * columns))
    return jnp.argsort(jnp.where(mask.reshape(images, -1), -1.0, noise), axis=1).astype(jnp.int32)


def draw_masks(
    key: jax.Array, images: int, crops: int, masked: int, grid: tuple[int, int], ratio: tuple[float, float]
) -> Masks:
    """Return masks for some global crops of every image.

    Args:
      key: randomness.
      images: `b`.
      crops: `g`, global crops of each.
      masked: `m`, how many of these have a mask; which is drawn.
      grid: rows and columns of patches.
      ratio: bounds of the share that is masked. It is drawn in as many equal parts of what lies between as there are
        masks, once in each, as DINOv2 does.
    """
    patches, total = math.prod(grid), images * masked
    most = most_masked(grid, ratio)
    share = (jnp.arange(total, dtype=jnp.float32) + jax.random.uniform(fold(key, "share"), (total,))) / total
    share = jax.random.permutation(fold(key, "which"), ratio[0] + (ratio[1] - ratio[0]) * share)
    counts = jnp.clip((patches * share).astype(jnp.int32), 1, most)
    order = block_order(fold(key, "blocks"), counts, grid).reshape(images, masked, patches)
    counts = counts.reshape(images, masked, 1)
    chosen = jnp.argsort(jax.random.uniform(fold(key, "crops"), (images, crops)), axis=1)[:, :masked]
    places = (chosen[..., None] * patches + order[..., :most]).astype(jnp.int32)
    valid = jnp.arange(most) < counts
    weights = jnp.where(valid, 1 / counts.astype(jnp.float32), 0.0)
    places, weights = places.reshape(images, -1), weights.reshape(images, -1)
    hidden = jnp.zeros((images, crops * patches), bool)
    hidden = jax.vmap(lambda row, place, true: row.at[place].set(true))(hidden, places, weights > 0)
    return Masks(hidden.reshape(images, crops, patches), places, weights)


def most_masked(grid: tuple[int, int], ratio: tuple[float, float]) -> int:
    """Return how many patches of a crop are masked at most."""
    return int(math.prod(grid) * ratio[1])
