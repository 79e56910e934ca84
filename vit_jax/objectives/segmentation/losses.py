"""Losses of label maps."""

import jax
import jax.numpy as jnp


def pixel_cross_entropy(
    logits: jax.Array, labels: jax.Array, class_weights: tuple[float, ...] = (), calibrated: bool = False
) -> tuple[jax.Array, jax.Array]:
    """Return the mean cross-entropy over pixels whose class is known, and what it was divided by.

    As in torch the mean is weighted: it is divided by the sum of the weights, without them by the number of pixels.
    Weights of w make a class w times as likely to be predicted. With `calibrated`, log w is added to its logit here,
    so that logits stay those of pixels as they are (logit adjustment, Menon et al. 2020, arXiv 2007.07314, the other
    way round).

    Args:
      logits: float32 `(b, h, w, c)`.
      labels: int32 `(b, h, w)`; pixels below 0 do not count.
      class_weights: of the pixels of each class, above 0 with `calibrated`; empty for the same.
      calibrated: whether the weights are taken out of the logits again.
    """
    if class_weights and calibrated:
        logits += jnp.log(jnp.asarray(class_weights, jnp.float32))
    losses = pixel_losses(logits, labels)
    weights = (labels >= 0).astype(jnp.float32)
    if class_weights:
        weights *= jnp.asarray(class_weights, jnp.float32)[jnp.maximum(labels, 0)]
    # Where a microbatch has none, 0 / 0 would spoil the whole batch.
    weight = jnp.maximum(weights.sum(), 1e-12)
    return (losses * weights).sum() / weight, weight


def pixel_losses(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the cross-entropy of each pixel, float32 `(b, h, w)`; what it is where labels are below 0 says nothing."""
    # Not taken by index: scattering gradients back is slow everywhere, and multiplying by what is 0 is not.
    chosen = labels[..., None] == jnp.arange(logits.shape[-1])
    return jax.nn.logsumexp(logits, axis=-1) - jnp.where(chosen, logits, 0).sum(axis=-1)
