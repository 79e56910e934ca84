"""What SimMIM hides, and its loss, as pure functions."""

import jax
import jax.numpy as jnp


def hidden_squares(noise: jax.Array, count: int) -> jax.Array:
    """Return which squares are hidden, bool `(b, n)`: the `count` with the least noise `(b, n)` of each image."""
    return jnp.argsort(jnp.argsort(noise, axis=1), axis=1) < count


def enlarged(mask: jax.Array, times: tuple[int, int]) -> jax.Array:
    """Return a mask `(b, rows, columns)` with each entry repeated, in height and in width."""
    return jnp.repeat(jnp.repeat(mask, times[0], axis=1), times[1], axis=2)


def hidden_errors(images: jax.Array, predicted: jax.Array, hidden: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return of each image the sum of absolute errors of its hidden pixels, and how many these are, both `(b,)`.

    Args:
      images, predicted: `(b, h, w, c)` float32.
      hidden: `(b, h, w)` bool.

    Returns:
      The sum is a mean over channels; so the loss of a batch is the sum of the ones over that of the others.
    """
    errors = jnp.abs(images - predicted).mean(axis=-1)
    weights = hidden.astype(errors.dtype)
    return (errors * weights).sum(axis=(1, 2)), weights.sum(axis=(1, 2))


def l1_loss(errors: jax.Array, count: jax.Array) -> jax.Array:
    """Return the mean absolute error over hidden pixels; as published, 1e-5 is added to their number.

    Args:
      errors, count: sums over images of what `hidden_errors` returns.
    """
    return errors / (count + 1e-5)
