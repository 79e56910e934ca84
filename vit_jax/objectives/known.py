"""Targets of which some are unknown (NaN): what is learned and counted of the known ones alone."""

import jax
import jax.numpy as jnp


def split_known(targets: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return targets with 0 for NaN, and which were known, bool; a NaN that is masked after a loss spoils gradients."""
    known = ~jnp.isnan(targets)
    return jnp.where(known, targets, 0), known


def known_mean(losses: jax.Array, known: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the mean of losses `(b, c)` over the known entries, and how many there are, for `LossOutput.weight`.

    The mean of a batch without any is 0.
    """
    count = known.sum().astype(losses.dtype)
    # Where a microbatch has none, 0 / 0 would spoil the whole batch.
    weight = jnp.maximum(count, 1e-12)
    return jnp.where(known, losses, 0).sum() / weight, weight
