"""Sequences so short that several fill the lanes of a TPU: they are attended to as one, each seeing itself alone.

Scores of 49 places, a window of Swin, would fill 49 of 128 lanes; those of two windows side by side fill 98 in the same
time. Between the sequences stands a bias that leaves no weight. Rows of an image that fill no whole tiles would have to
be laid out anew before they are cut into sequences; a program is therefore given so many of them that they do.
"""

import jax
import jax.numpy as jnp

from vit_jax.models.layers.kernels.room import LANES, MAX_TOKENS, MIN_QUERIES, heads_together
from vit_jax.models.layers.kernels.short_attention import short_attention

__all__ = ["MAX_TOKENS", "attend", "fits", "pays"]

_APART = -1e30  # what no score makes up for; twice it is still finite
_TILE = 8  # rows


def fits(heads: int, size: int, queries: int, keys: int, itemsize: int, windows: int, biased: bool) -> bool:
    """Return whether the kernel has room for such attention.

    Args:
      heads: `h`.
      size: `k`.
      queries, keys: `n` and `m`.
      itemsize: bytes of an element.
      windows: see `attend`.
      biased: whether every head has a bias.
    """
    count = _count(queries, keys, windows)
    biases = (1, heads if biased else int(count > 1))
    return heads_together(heads, size, count * queries, count * keys, itemsize, 1, biases) > 0


def pays(queries: int, keys: int, windows: int) -> bool:
    """Return whether there are enough queries for the kernel to be faster than what XLA makes."""
    return _count(queries, keys, windows) * queries >= MIN_QUERIES


def attend(
    heads: int,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array | None = None,
    *,
    windows: int = 1,
    interpret: bool = False,
) -> jax.Array:
    """Return `softmax(q k^T / sqrt(k) + bias) v`, short sequences put together.

    Args:
      heads: `h`.
      q: `(b, n, h k)`.
      k, v: `(b, m, h k)`.
      bias: `(w, h, n, m)` of each window of an image, or `(1, h, n, m)` of all; or None.
      windows: how many sequences one after the other are an image, `w`; 1 where each is one.
      interpret: run without a TPU, slowly.

    Returns:
      `(b, n, h k)`.
    """
    (b, n, d), m = q.shape, k.shape[1]
    count = _count(n, m, windows)
    learned = bias is not None
    if count > 1:
        bias = _side_by_side(jnp.zeros((1, 1, n, m)) if bias is None else bias, count)
    own = (0, 0) if bias is None else (len(bias), bias.shape[1])

    def suits(parts: int) -> bool:
        whole = parts * count in (1, windows) or not (parts * count * n % _TILE or parts * count * m % _TILE)
        biases = (min(parts, own[0]), own[1])
        return (
            whole
            and heads_together(heads, d // heads, count * n, count * m, q.dtype.itemsize, parts, biases) > 0
        )

    parts = min(filter(suits, _divisors(max(1, windows // count))), default=1)
    if bias is not None:
        bias = bias.reshape(-1, parts if len(bias) > 1 else 1, *bias.shape[1:]).astype(jnp.float32)
    rows = parts * count
    one = (x.reshape(b // rows, rows * x.shape[1], d) for x in (q, k, v))
    out = short_attention(heads, *one, bias=bias, parts=parts, learned=learned, interpret=interpret)
    return out.reshape(q.shape)


def _count(queries: int, keys: int, windows: int) -> int:
    """Return how many sequences of an image are put together; those of others lie on other tiles."""
    most = max(1, LANES // max(queries, keys))
    return max(count for count in _divisors(windows) if count <= most)


def _divisors(number: int) -> list[int]:
    return [each for each in range(1, number + 1) if number % each == 0]


def _side_by_side(bias: jax.Array, count: int) -> jax.Array:
    """Return the bias `(w / count, h, count n, count m)` of sequences side by side; `w` of 1 is one for all."""
    w, h, n, m = bias.shape
    each = jnp.broadcast_to(bias, (count, h, n, m)) if w == 1 else bias
    each = each.reshape(-1, count, h, n, m).transpose(0, 2, 1, 3, 4)[:, :, :, :, None, :]
    own = jnp.eye(count, dtype=bool)[:, None, :, None]
    return jnp.where(own, each, jnp.float32(_APART)).reshape(-1, h, count * n, count * m)
