"""The order of tokens in which mask units and squares of four are neighbours, so that windows and pooling are reshapes.

Squares of side `2 ** unrolled` come row by row. Within one, tokens are ordered by quarters: the four quarters row by
row, in each its four quarters, and so on down to single tokens (Morton 1966). Any four tokens that pool to one, and
all tokens of a mask unit, then stand side by side; and after pooling the order is the same, one level less deep. Ryali
et al. 2023 (arXiv 2306.00989) reorder tokens once to the same end, in another order, with windows innermost.
"""

import itertools

import jax
import jax.numpy as jnp


def unroll(x: jax.Array, levels: int) -> jax.Array:
    """Return a map `(b, h, w, d)` as tokens `(b, h w, d)` in the order of quarters.

    Args:
      x: the map; its sides are multiples of `2 ** levels`.
      levels: how deep squares are divided.
    """
    b, h, w, d = x.shape
    sides = (2,) * levels
    x = x.reshape(b, h // 2**levels, *sides, w // 2**levels, *sides, d)
    return x.transpose(0, *_interleaved(levels), 2 * levels + 3).reshape(b, h * w, d)


def reroll(x: jax.Array, levels: int, grid: tuple[int, int]) -> jax.Array:
    """Return tokens `(b, n, d)` in the order of quarters as a map `(b, h, w, d)`, the inverse of `unroll`."""
    (b, _, d), (h, w) = x.shape, grid
    places = _interleaved(levels)
    x = x.reshape(b, h // 2**levels, w // 2**levels, *(2,) * (2 * levels), d)
    axes = [places.index(axis) + 1 for axis in range(1, 2 * levels + 3)]
    return x.transpose(0, *axes, 2 * levels + 3).reshape(b, h, w, d)


def raster(levels: int, grid: tuple[int, int]) -> jax.Array:
    """Return, for each place of a grid row by row, which token stands there, `(h w,)` int32."""
    h, w = grid
    tokens = jnp.arange(h * w, dtype=jnp.int32).reshape(1, h * w, 1)
    return reroll(tokens, levels, grid).reshape(-1)


def misread(x: jax.Array, levels: int) -> jax.Array:
    """Return the map `(b, h, w, d)` that the tokens of a map, row by row, are in the order of Hiera's authors.

    That order has offsets within squares before the squares, the finest first. Who forgets to reorder tokens takes
    those of `x` for those of this map.
    """
    b, h, w, d = x.shape
    x = x.reshape(b, *(2,) * (2 * levels), h // 2**levels, w // 2**levels, d)
    last = 2 * levels + 1
    rows, columns = ([last + side, *range(last - 2 + side, 0, -2)] for side in (0, 1))
    return x.transpose(0, *rows, *columns, last + 2).reshape(b, h, w, d)


@jax.custom_vjp
def largest_of_four(x: jax.Array) -> jax.Array:
    """Return the largest of each four neighbouring tokens, `(b, n / 4, ...)`, of `x` `(b, n, ...)`.

    Of equal values the first has the gradient, as in PyTorch. It is written out: automatic differentiation asks which
    values equal the largest, and where the compiler computes them anew and rounds otherwise, none does, and it divides
    by their number.
    """
    first, second, third, fourth = _quarters(x)
    return jnp.maximum(jnp.maximum(first, second), jnp.maximum(third, fourth))


def _largest_forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return largest_of_four(x), x


def _largest_backward(x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    first, second, third, fourth = _quarters(x)
    early = jnp.maximum(first, second) >= jnp.maximum(third, fourth)
    chosen = jnp.where(early, jnp.where(first >= second, 0, 1), jnp.where(third >= fourth, 2, 3))
    # Not a stack of four: jax 0.12 gives wrong values of one on CPUs, where the block is checkpointed.
    places = jnp.arange(4).reshape(4, *[1] * (x.ndim - 2))
    dx = jnp.where(chosen[:, :, None] == places, dy[:, :, None], jnp.zeros((), dy.dtype))
    return (dx.reshape(x.shape),)


largest_of_four.defvjp(_largest_forward, _largest_backward)


def _quarters(x: jax.Array) -> list[jax.Array]:
    """Return the first, second, third and fourth of each four tokens."""
    return [fours(x)[:, :, i] for i in range(4)]


def fours(x: jax.Array) -> jax.Array:
    """Return tokens `(b, n, ...)` by fours, `(b, n / 4, 4, ...)`."""
    return x.reshape(x.shape[0], x.shape[1] // 4, 4, *x.shape[2:])


def _interleaved(levels: int) -> list[int]:
    """Return the axes of height and of width in turn, the coarsest first; axis 0 is the batch."""
    height, width = range(1, levels + 2), range(levels + 2, 2 * levels + 3)
    return list(itertools.chain.from_iterable(zip(height, width)))
