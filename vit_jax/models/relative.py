"""Relative position bias of attention between patches and with the class token.

Source: BEiT (Bao et al. 2021, arXiv 2106.08254). A table has one row for each offset between two patches, rows and
columns from most negative to most positive, then three: class token to patch, patch to class token, and class
token to itself.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.models.resample import resample_grid

CLASS_ROWS = 3


def table_rows(grid: tuple[int, int]) -> int:
    """Return the rows of the table of a patch grid."""
    return (2 * grid[0] - 1) * (2 * grid[1] - 1) + CLASS_ROWS


def relative_bias(table: jax.Array, own: tuple[int, int], grid: tuple[int, int]) -> jax.Array:
    """Return what a table adds to the attention scores of a class token and the patches of a grid.

    Args:
      table: `(t, h)`.
      own: the patch grid the table was made for.
      grid: the patch grid at hand; if it is another, the table is resized bilinearly.

    Returns:
      `(h, 1 + n, 1 + n)`, queries before keys.
    """
    return jnp.moveaxis(resized_table(table, own, grid)[_rows(grid)], -1, 0)


def resized_table(
    table: jax.Array, own: tuple[int, int], grid: tuple[int, int], method: str = "bilinear"
) -> jax.Array:
    """Return a table for another patch grid; the class token's rows stay.

    Args:
      table: `(t, h)`.
      own, grid: rows and columns of patches before and after.
      method: see `models.resample.resize_matrix`.
    """
    if own == grid:
        return table
    shape, size = ([2 * rows - 1, 2 * columns - 1] for rows, columns in (own, grid))
    offsets = table[:-CLASS_ROWS].reshape(*shape, -1)
    offsets = resample_grid(offsets, (size[0], size[1]), method)
    return jnp.concatenate([offsets.reshape(size[0] * size[1], -1), table[-CLASS_ROWS:]])


def _rows(grid: tuple[int, int]) -> np.ndarray:
    """Return which row of the table each pair of tokens takes, `(1 + n, 1 + n)`."""
    height, width = grid
    y, x = np.indices(grid).reshape(2, -1)
    rows = (y[:, None] - y + height - 1) * (2 * width - 1) + (x[:, None] - x + width - 1)
    count = table_rows(grid)
    index = np.full((len(y) + 1, len(y) + 1), count - 1)
    index[0, 1:], index[1:, 0], index[1:, 1:] = count - 3, count - 2, rows
    return index
