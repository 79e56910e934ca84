"""Which patches, or groups of them, a masked autoencoder hides."""

import jax
import jax.numpy as jnp


def random_masking(noise: jax.Array, keep: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Choose the visible patches of each image: those with the smallest noise.

    Args:
      noise: `(b, n)` uniform numbers.
      keep: number of visible patches.

    Returns:
      `kept` `(b, keep)`, indices of visible patches in order of noise; `restore` `(b, n)`, where each patch
      stands among the shuffled ones; `mask` `(b, n)` float32, 1 where hidden.
    """
    shuffle = jnp.argsort(noise, axis=1)
    restore = jnp.argsort(shuffle, axis=1)
    return shuffle[:, :keep], restore, (restore >= keep).astype(jnp.float32)


def visible_patches(patches: int, mask_ratio: float) -> int:
    """Return how many of `patches` the encoder sees, at least one."""
    return max(1, int(patches * (1 - mask_ratio)))
