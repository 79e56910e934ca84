"""Rotation of queries and keys by their place (Su et al. 2021, arXiv 2104.09864).

How far each is turned is the model's: `vit.rotary`, and `layers.attentions.mixed` where blocks have learned it.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp


class Rotation(NamedTuple):
    """What rotary positions do to the last tokens of a sequence.

    Attributes:
      sin, cos: `(n, k)` of each patch token and channel; `(b, n, k)` where images have places of their own.
        With an axis `h` before the last where heads turn by themselves.
      interleaved: whether a pair is `(2i, 2i+1)` or `(i, i + k/2)`.
      by_head: whether heads turn by themselves.
    """

    sin: jax.Array
    cos: jax.Array
    interleaved: bool
    by_head: bool = False


def rotate(x: jax.Array, turn: Rotation) -> jax.Array:
    """Return queries or keys `(b, m, h, k)` with their last `n` tokens rotated, in the dtype of `x`."""
    n, k = turn.sin.shape[-3 if turn.by_head else -2], turn.sin.shape[-1]
    first, patches = x[:, :-n], x[:, -n:].astype(jnp.float32)
    if turn.interleaved:
        pairs = patches.reshape(*patches.shape[:-1], k // 2, 2)
        turned = jnp.stack([-pairs[..., 1], pairs[..., 0]], axis=-1).reshape(patches.shape)
    else:
        turned = jnp.concatenate([-patches[..., k // 2 :], patches[..., : k // 2]], axis=-1)
    cos, sin = turn.cos, turn.sin
    patches = patches * (cos if turn.by_head else cos[..., None, :])
    patches = patches + turned * (sin if turn.by_head else sin[..., None, :])
    return jnp.concatenate([first, patches.astype(x.dtype)], axis=1)
