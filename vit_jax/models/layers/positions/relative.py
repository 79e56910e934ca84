"""Relative position bias of attention between patches and with the class token.

Source: BEiT (Bao et al. 2021, arXiv 2106.08254). A table has one row for each offset between two patches, rows and
columns from most negative to most positive, then three: class token to patch, patch to class token, and class
token to itself.
"""

from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.models.layers.positions.resample import resize_matrix

CLASS_ROWS = 3


@dataclass(frozen=True)
class RelativePositions:
    """What a table of relative position biases was made for.

    Attributes:
      grid: rows and columns of patches.
      resample: how the table goes to another grid, `geometric` (BEiT's own code and timm: near offsets keep their
        rows, far ones are drawn together) or `bilinear` (transformers).
    """

    grid: tuple[int, int]
    resample: str

    @property
    def rows(self) -> int:
        """Rows `t` of the table."""
        return _rows(self.grid)

    def bias(self, table: jax.Array, grid: tuple[int, int] | None) -> jax.Array:
        """Return what a table `(t, h)` adds to attention scores on a grid, `(h, 1 + n, 1 + n)`, queries first."""
        grid = grid or self.grid
        return jnp.moveaxis(self.resized(table, grid)[_index(grid)], -1, 0)

    def resized(self, table: jax.Array, grid: tuple[int, int]) -> jax.Array:
        """Return a table `(t, h)` for another grid; the class token's rows stay."""
        if grid == self.grid:
            return table
        before, after = ([2 * side - 1 for side in sides] for sides in (self.grid, grid))
        vertical, horizontal = (
            jnp.asarray(self._matrix(n_in, n_out), table.dtype) for n_in, n_out in zip(before, after)
        )
        offsets = table[:-CLASS_ROWS].reshape(*before, -1)
        highest = jax.lax.Precision.HIGHEST
        offsets = jnp.einsum("Hh,hwd,Ww->HWd", vertical, offsets, horizontal, precision=highest)
        return jnp.concatenate([offsets.reshape(after[0] * after[1], -1), table[-CLASS_ROWS:]])

    def _matrix(self, n_in: int, n_out: int) -> np.ndarray:
        if self.resample == "bilinear":
            return resize_matrix(n_in, n_out, "bilinear")
        return geometric_matrix(n_in, n_out)


def geometric_matrix(n_in: int, n_out: int) -> np.ndarray:
    """Return the weights (n_out, n_in) that interpolate offsets placed in geometric progression.

    The distances between the old offsets grow by a factor that makes the outermost meet the new outermost (Bao et
    al. 2021, arXiv 2106.08254, in their code). Between them timm interpolates linearly, and so do we; BEiT's code
    takes a cubic spline that scipy has since dropped.
    """
    if n_in == 1:
        return np.ones((n_out, 1))
    low, factor, high, target = 1.01, 1.01, 1.5, n_out // 2
    while high - low > 1e-6:
        factor = (low + high) / 2
        reached = (1 - factor ** (n_in // 2)) / (1 - factor)
        low, high = (low, factor) if reached > target else (factor, high)
    steps = np.cumsum(np.power(factor, np.arange(n_in // 2)))
    places = np.concatenate([-steps[::-1], [0], steps])
    wanted = np.clip(np.arange(-target, target + 1.0), places[0], places[-1])
    right = np.clip(np.searchsorted(places, wanted), 1, n_in - 1)
    share = (wanted - places[right - 1]) / (places[right] - places[right - 1])
    matrix, rows = np.zeros((n_out, n_in)), np.arange(n_out)
    matrix[rows, right - 1], matrix[rows, right] = 1 - share, share
    return matrix


def _rows(grid: tuple[int, int]) -> int:
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + CLASS_ROWS


def _index(grid: tuple[int, int]) -> np.ndarray:
    """Return which row of the table each pair of tokens takes, `(1 + n, 1 + n)`."""
    height, width = grid
    y, x = np.indices(grid).reshape(2, -1)
    rows = (y[:, None] - y + height - 1) * (2 * width - 1) + (x[:, None] - x + width - 1)
    count = _rows(grid)
    index = np.full((len(y) + 1, len(y) + 1), count - 1)
    index[0, 1:], index[1:, 0], index[1:, 1:] = count - 3, count - 2, rows
    return index
