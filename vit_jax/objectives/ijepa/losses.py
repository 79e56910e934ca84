"""How different I-JEPA's features are, as a pure function."""

import jax
import jax.numpy as jnp


def spread_of(features: jax.Array) -> jax.Array:
    """Return the standard deviation over images of features `(b, n, d)`, pooled; 0 where all images look the same."""
    return jnp.sqrt(features.mean(axis=1).var(axis=0)).mean()
