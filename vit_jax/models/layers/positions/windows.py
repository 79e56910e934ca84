"""Windows over maps with any number of axes: cut, shifted, masked and put back (Liu et al. 2021, arXiv 2103.14030).

A map is `(b, *sides, c)`: two sides of an image, three of a clip or a volume. Cut into windows it is `(b w, n, c)`, `w`
windows of an example one after the other, each of `n` places. The second of two blocks moves the windows by half of
their sides, wrapping around; a place must then not see those that were far from it before.
"""

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.models.layers.placement import platform

Sides = tuple[int, ...]
# Places of a map up to which TPUs choose them by a product with zeros and ones, exact where values are finite: moving
# rows, as what remains of reshapes, rolls and transpositions does, takes several times as long there.
_MULTIPLIED = 1024


@dataclass(frozen=True)
class Cut:
    """How one block cuts maps.

    Attributes:
      window: sides of a window.
      shift: places that the windows are moved by, along each axis.
      pad_first: whether zeros that fill the last windows are put behind the map before it is shifted (transformers,
        torchvision) or after (timm).
    """

    window: Sides
    shift: Sides
    pad_first: bool

    def padded(self, sides: Sides) -> Sides:
        """Return the sides of a map of whole windows."""
        return tuple(-(-side // size) * size for side, size in zip(sides, self.window))

    def split(self, x: jax.Array) -> jax.Array:
        """Return the windows `(b w, n, c)` of maps `(b, *sides, c)`."""
        x = self._fill(x) if self.pad_first else x
        x = self._roll(x, -1)
        return partition(self._fill(x), self.window)

    def join(self, windows: jax.Array, sides: Sides) -> jax.Array:
        """Return the maps `(b, *sides, c)` of windows `(b w, n, c)`."""
        kept = tuple(slice(side) for side in sides)
        x = unpartition(windows, self.window, self.padded(sides))
        if self.pad_first:
            return self._roll(x, 1)[:, *kept]
        return self._roll(x[:, *kept], 1)

    def neighbours(self, sides: Sides) -> np.ndarray | None:
        """Return `(w, n, n)` bool, True for places that the shift did not bring together; None where it brings none."""
        return _neighbours(self.padded(sides), self.window, self.shift) if any(self.shift) else None

    def fills(self, sides: Sides) -> bool:
        """Return whether windows divide a map, so that cutting it only changes the order of its places."""
        return self.padded(sides) == sides

    def count(self, sides: Sides) -> int:
        """Return how many windows a map is cut into."""
        return math.prod(side // size for side, size in zip(self.padded(sides), self.window))

    def order(self, sides: Sides) -> np.ndarray:
        """Return which place of a map that windows divide, row by row, stands where, window by window, `(n,)`."""
        places = np.arange(math.prod(sides)).reshape(sides)
        shifted = np.roll(places, [-shift for shift in self.shift], range(len(sides)))
        return partition(shifted[None, ..., None], self.window).reshape(-1)

    def _fill(self, x: jax.Array) -> jax.Array:
        sides = x.shape[1:-1]
        behind = [(0, after - before) for before, after in zip(sides, self.padded(sides))]
        return jnp.pad(x, ((0, 0), *behind, (0, 0))) if any(more for _, more in behind) else x

    def _roll(self, x: jax.Array, sign: int) -> jax.Array:
        moved = [(axis, sign * shift) for axis, shift in enumerate(self.shift, 1) if shift]
        return jnp.roll(x, [by for _, by in moved], [axis for axis, _ in moved]) if moved else x


def reorder(x: jax.Array, before: Cut, after: Cut, sides: Sides) -> jax.Array:
    """Return the places `(b, n, c)` of maps that windows divide, ordered by the windows of one cut, in another's order.

    Args:
      x: `(b, n, c)`.
      before, after: the cuts.
      sides: of the maps.
    """
    if before == after:
        return x
    if platform() == "tpu" and x.dtype == jnp.bfloat16 and x.shape[1] <= _MULTIPLIED:
        places = np.argsort(before.order(sides))[after.order(sides)]
        chosen = jnp.asarray(places[:, None] == np.arange(len(places)), x.dtype)
        return jnp.einsum("mn,bnc->bmc", chosen, x)
    shape = (-1, math.prod(before.window), x.shape[-1])
    return after.split(before.join(x.reshape(shape), sides)).reshape(x.shape)


def partition(x: Any, window: Sides) -> Any:
    """Return the windows `(b w, n, c)` of maps `(b, *sides, c)`; windows divide the sides."""
    b, *sides, c = x.shape
    counts = [(side // size, size) for side, size in zip(sides, window)]
    axes = range(1, 1 + 2 * len(sides))
    x = x.reshape(b, *(number for pair in counts for number in pair), c)
    return x.transpose(0, *axes[::2], *axes[1::2], axes.stop).reshape(-1, math.prod(window), c)


def unpartition(windows: jax.Array, window: Sides, sides: Sides) -> jax.Array:
    """Return the maps `(b, *sides, c)` of windows `(b w, n, c)`; the inverse of `partition`."""
    k = len(sides)
    counts = [side // size for side, size in zip(sides, window)]
    x = windows.reshape(-1, *counts, *window, windows.shape[-1])
    x = x.transpose(0, *(axis for i in range(1, k + 1) for axis in (i, i + k)), 2 * k + 1)
    return x.reshape(-1, *sides, windows.shape[-1])


def offset_rows(window: Sides, table: Sides) -> np.ndarray:
    """Return which row of a table of offsets each pair of places takes, `(n, n)`.

    Args:
      window: sides of a window.
      table: sides of the windows that the table was made for, at least as large; its rows go through the offsets from
        the most negative to the most positive, the last axis fastest.
    """
    places = np.indices(window).reshape(len(window), -1)
    offsets = places[:, :, None] - places[:, None, :]
    shifted = [offset + side - 1 for offset, side in zip(offsets, table)]
    return np.asarray(np.ravel_multi_index(tuple(shifted), [2 * side - 1 for side in table]))


def log_offsets(table: Sides, pretrained: Sides | None = None) -> np.ndarray:
    """Return the offsets of a table on a logarithmic scale, `(rows, axes)` float32 (Liu et al. 2021, arXiv 2111.09883).

    Args:
      table: sides of windows, see `offset_rows`.
      pretrained: sides of the windows that the scale was made for; None for these.
    """
    axes = [
        8 * np.arange(1 - side, side) / max(scale - 1, 1) for side, scale in zip(table, pretrained or table)
    ]
    offsets = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, len(table))
    return (np.sign(offsets) * np.log2(np.abs(offsets) + 1) / np.log2(8)).astype(np.float32)


@lru_cache(maxsize=256)
def _neighbours(sides: Sides, window: Sides, shift: Sides) -> np.ndarray:
    region = np.zeros(sides, np.int32)
    for axis, (side, size, moved) in enumerate(zip(sides, window, shift)):
        place = np.arange(side)
        own = np.where(moved, (place >= side - size) * 1 + (place >= side - moved), 0)
        region = 3 * region + own.reshape([side if i == axis else 1 for i in range(len(sides))])
    regions = np.asarray(partition(region[None, ..., None], window))[..., 0]
    return regions[:, :, None] == regions[:, None, :]
