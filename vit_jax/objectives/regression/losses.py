"""Losses of values: pure functions of predictions and targets, one value for each entry."""

import jax
import jax.numpy as jnp


def squared_error(predicted: jax.Array, targets: jax.Array) -> jax.Array:
    """Return squared differences, `(b, k)`."""
    return jnp.square(predicted - targets)


def absolute_error(predicted: jax.Array, targets: jax.Array) -> jax.Array:
    """Return absolute differences, `(b, k)`."""
    return jnp.abs(predicted - targets)


def huber(predicted: jax.Array, targets: jax.Array, delta: float) -> jax.Array:
    """Return half the squared difference up to `delta`, and a straight line beyond, `(b, k)` (Huber 1964).

    It is PyTorch's `HuberLoss`; outliers pull no harder than `delta`.
    """
    size = jnp.abs(predicted - targets)
    return jnp.where(size <= delta, 0.5 * jnp.square(size), delta * (size - 0.5 * delta))
