"""Losses of several objectives: pure functions, one value per example."""

import jax
import jax.numpy as jnp


def smooth_one_hot(labels: jax.Array, num_classes: int, smoothing: float) -> jax.Array:
    """Return soft targets: `smoothing` spread evenly over all classes (Szegedy et al. 2015, arXiv 1512.00567).

    Args:
      labels: `(b,)` integers.
      num_classes: `c`.
      smoothing: share taken from the true class, 0 to 1.

    Returns:
      `(b, c)` float32, rows summing to 1.
    """
    return jax.nn.one_hot(labels, num_classes, dtype=jnp.float32) * (1 - smoothing) + smoothing / num_classes


def softmax_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Return the cross-entropy of `softmax(logits)` `(b, c)` against soft targets `(b, c)`, `(b,)`."""
    return -jnp.sum(targets * jax.nn.log_softmax(logits), axis=-1)


def sigmoid_cross_entropy(logits: jax.Array, targets: jax.Array) -> jax.Array:
    """Return binary cross-entropies of each class, summed over classes (Beyer et al. 2020, arXiv 2006.07159).

    Args:
      logits: `(b, c)`.
      targets: `(b, c)` in [0, 1].

    Returns:
      `(b,)`.
    """
    return jnp.sum(_binary(logits, targets), axis=-1)


def thresholded_bce(logits: jax.Array, targets: jax.Array, threshold: float | None) -> jax.Array:
    """Return binary cross-entropies averaged over classes, targets above `threshold` counting as 1.

    With mixup the two classes of an image then both count fully (Wightman et al. 2021, arXiv 2110.00476;
    used by DeiT-III with threshold 0, which label smoothing would defeat).

    Args:
      logits: `(b, c)`.
      targets: `(b, c)` in [0, 1].
      threshold: None leaves targets as they are.

    Returns:
      `(b,)`.
    """
    if threshold is not None:
        targets = (targets > threshold).astype(logits.dtype)
    return jnp.mean(_binary(logits, targets), axis=-1)


def _binary(logits: jax.Array, targets: jax.Array) -> jax.Array:
    return -(targets * jax.nn.log_sigmoid(logits) + (1 - targets) * jax.nn.log_sigmoid(-logits))


def normalised(features: jax.Array) -> jax.Array:
    """Return features `(..., d)` without mean and deviation of each row, float32: a layer norm without parameters."""
    x = features.astype(jnp.float32)
    x = x - x.mean(axis=-1, keepdims=True)
    return x * jax.lax.rsqrt(jnp.square(x).mean(axis=-1, keepdims=True) + 1e-5)


def smooth_l1(predicted: jax.Array, target: jax.Array) -> jax.Array:
    """Return of each pair of rows `(..., d)` the mean of half the squared error where it is below 1, else its size."""
    error = jnp.abs(predicted - target)
    return jnp.where(error < 1, 0.5 * jnp.square(error), error - 0.5).mean(axis=-1)
