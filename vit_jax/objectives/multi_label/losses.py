"""Losses of several labels an image: pure functions of logits and targets, one value for each entry."""

import jax
import jax.numpy as jnp


def smooth(targets: jax.Array, smoothing: float) -> jax.Array:
    """Return targets in [0, 1] moved towards 1/2: each class is a choice between two."""
    return targets * (1 - smoothing) + smoothing / 2


def binary_cross_entropy(
    logits: jax.Array, targets: jax.Array, positive_weights: jax.Array | float = 1.0
) -> jax.Array:
    """Return binary cross-entropies, `(b, c)`.

    Args:
      logits: `(b, c)`.
      targets: `(b, c)` in [0, 1].
      positive_weights: factor of the positive part, one or `(c,)`, as PyTorch's `pos_weight`.
    """
    positive, negative = jax.nn.log_sigmoid(logits), jax.nn.log_sigmoid(-logits)
    return -(positive_weights * targets * positive + (1 - targets) * negative)


def asymmetric_loss(
    logits: jax.Array,
    targets: jax.Array,
    *,
    gamma_negative: float = 4.0,
    gamma_positive: float = 0.0,
    clip: float = 0.05,
    positive_weights: jax.Array | float = 1.0,
) -> jax.Array:
    """Return the asymmetric loss, `(b, c)` (Ben-Baruch et al. 2020, arXiv 2009.14119, equations 4 to 7).

    Easy negatives, most entries where labels are rare, are damped by `p^gamma_negative`, and those below `clip` do not
    count at all. Gradients go through the damping, as in the paper's analysis and in timm's default.

    Args:
      logits: `(b, c)`.
      targets: `(b, c)` in [0, 1].
      gamma_negative, gamma_positive: how much easy negatives and positives are damped; 0, or at least 1.
      clip: probability margin that is taken from negatives.
      positive_weights: factor of the positive part, one or `(c,)`.
    """
    positive = jax.nn.log_sigmoid(logits)
    if gamma_positive:
        positive *= jax.nn.sigmoid(-logits) ** gamma_positive
    shifted = jnp.maximum(jax.nn.sigmoid(logits) - clip, 0)
    # Without a margin the probability of "no" may round to 0, whose logarithm only the logit knows.
    negative = jnp.log1p(-shifted) if clip else jax.nn.log_sigmoid(-logits)
    if gamma_negative:
        negative *= shifted**gamma_negative
    return -(positive_weights * targets * positive + (1 - targets) * negative)
