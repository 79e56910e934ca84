"""Dropout of elements and of residual branches: pure functions of values, rate and key."""

import jax
import jax.numpy as jnp


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Return `x` with elements zeroed at `rate` and the rest scaled up; `x` itself when `key` is None."""
    if key is None or rate == 0:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), jnp.zeros_like(x))


def drop_path(x: jax.Array, rate: jax.Array | float, key: jax.Array | None) -> jax.Array:
    """Return a residual branch dropped for whole examples (Huang et al. 2016, arXiv 1603.09382).

    Args:
      x: `(b, ...)` output of the branch.
      rate: probability of dropping; may be traced.
      key: None for evaluation.
    """
    if key is None:
        return x
    keep_rate = jnp.float32(1) - rate
    keep = jax.random.bernoulli(key, keep_rate, (x.shape[0],) + (1,) * (x.ndim - 1))
    return x * (keep.astype(jnp.float32) / keep_rate).astype(x.dtype)
