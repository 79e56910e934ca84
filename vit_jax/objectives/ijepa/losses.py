"""I-JEPA's targets and loss, as pure functions."""

import jax
import jax.numpy as jnp


def normalised(features: jax.Array) -> jax.Array:
    """Return features `(..., d)` without mean and deviation of each row, float32: a layer norm without parameters."""
    x = features.astype(jnp.float32)
    x = x - x.mean(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + 1e-5)


def smooth_l1(predicted: jax.Array, target: jax.Array) -> jax.Array:
    """Return of each pair of rows `(..., d)` the mean of half the squared error where it is below 1, else its size."""
    error = jnp.abs(predicted - target)
    return jnp.where(error < 1, 0.5 * jnp.square(error), error - 0.5).mean(axis=-1)


def spread_of(features: jax.Array) -> jax.Array:
    """Return the standard deviation over images of features `(b, n, d)`, pooled; 0 where all images look the same."""
    return jnp.sqrt(features.mean(axis=1).var(axis=0)).mean()
