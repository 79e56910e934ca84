"""Sequences so short that several fill the lanes of a TPU: they are attended to as one, each seeing itself alone.

Scores of 49 places, a window of Swin, would fill 49 of 128 lanes; those of two windows side by side fill 98 in the same
time. Between the sequences stands a bias that leaves no weight.
"""

import jax
import jax.numpy as jnp

from vit_jax.models.layers.kernels.short_attention import (
    LANES,
    MAX_TOKENS,
    MIN_QUERIES,
    heads_together,
    short_attention,
)

__all__ = ["MAX_TOKENS", "attend", "fits", "pays"]

_APART = -1e30  # what no score makes up for; twice it is still finite


def fits(heads: int, size: int, queries: int, keys: int, itemsize: int, biased: bool) -> bool:
    """Return whether the kernel has room for such attention.

    Args:
      heads: `h`.
      size: `k`.
      queries, keys: `n` and `m`.
      itemsize: bytes of an element.
      biased: whether every head has a bias.
    """
    most = max(1, LANES // max(queries, keys))
    biases = heads if biased else int(most > 1)
    return heads_together(heads, size, most * queries, most * keys, itemsize, biases) > 0


def pays(queries: int, keys: int) -> bool:
    """Return whether there are enough queries for the kernel to be faster than what XLA makes."""
    return max(1, LANES // max(queries, keys)) * queries >= MIN_QUERIES


def attend(
    heads: int,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    bias: jax.Array | None = None,
    *,
    interpret: bool = False,
) -> jax.Array:
    """Return `softmax(q k^T / sqrt(k) + bias) v`, short sequences put together; arguments as `short_attention`."""
    (b, n, _), m = q.shape, k.shape[1]
    windows = 1 if bias is None else bias.shape[0]
    count = _together(b if windows == 1 else windows, max(n, m))
    if count == 1:
        return short_attention(heads, q, k, v, bias, interpret=interpret)
    one = [x.reshape(b // count, count * x.shape[1], x.shape[2]) for x in (q, k, v)]
    if bias is None:
        beside, learned = _side_by_side(jnp.zeros((1, 1, n, m)), count), False
    else:
        beside, learned = _side_by_side(bias.astype(jnp.float32), count), True
    out = short_attention(heads, one[0], one[1], one[2], beside, learned=learned, interpret=interpret)
    return out.reshape(q.shape)


def _together(sequences: int, rows: int) -> int:
    """Return how many of so many sequences, each of so many rows, are put together, in equal numbers."""
    return max((count for count in range(1, LANES // rows + 1) if sequences % count == 0), default=1)


def _side_by_side(bias: jax.Array, count: int) -> jax.Array:
    """Return the bias `(w / count, h, count n, count m)` of sequences side by side; `w` of 1 is one for all."""
    w, h, n, m = bias.shape
    each = jnp.broadcast_to(bias, (count, h, n, m)) if w == 1 else bias
    each = each.reshape(-1, count, h, n, m).transpose(0, 2, 1, 3, 4)[:, :, :, :, None, :]
    own = jnp.eye(count, dtype=bool)[:, None, :, None]
    beside = jnp.where(own, each, jnp.float32(_APART))
    return beside.reshape(-1, h, count * n, count * m)
