"""Counting pixels on the device, so that sums over a whole set stay exact."""

import jax
import jax.numpy as jnp

from vit_jax.evaluation.metrics.segmentation import UNIT


def confusion(labels: jax.Array, predictions: jax.Array, num_classes: int) -> jax.Array:
    """Return how many pixels of each class are predicted as which, in a form that can be added up exactly.

    Args:
      labels: int32 `(..., h, w)`; pixels below 0 are not counted.
      predictions: int32 `(..., h, w)`, classes.
      num_classes: `c`.

    Returns:
      int32 `(2, c, c)`, rows are labels; see `evaluation.metrics.segmentation.counts`.
    """
    known = labels >= 0
    pairs = jnp.where(known, labels, 0) * num_classes + predictions
    found = (
        jnp.zeros(num_classes**2, jnp.int32).at[pairs.reshape(-1)].add(known.reshape(-1).astype(jnp.int32))
    )
    found = found.reshape(num_classes, num_classes)
    return jnp.stack([found % UNIT, found // UNIT])
