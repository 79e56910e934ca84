"""Images of any shapes as sequences of patches."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp


class Patches(NamedTuple):
    """Images of any shapes as sequences of patches (NaViT, Dehghani et al. 2023, arXiv 2307.06304).

    Attributes:
      values: `(b, n, p*q*c)` normalised patches in the order of `patchify`, each image's padded to the longest.
      sizes: `(b, 2)` integers, rows and columns of each image's patches; at least one of each counts.
    """

    values: Any
    sizes: Any

    @property
    def grids(self) -> tuple[jax.Array, jax.Array]:
        """Rows and columns of each image, `(b, 1)` each; rows of a batch that hold no image count as one patch."""
        sizes = jnp.maximum(self.sizes, 1)
        return sizes[:, :1], sizes[:, 1:]

    @property
    def valid(self) -> jax.Array:
        """Which patches are of an image and not padding, `(b, n)` bool."""
        rows, columns = self.grids
        return jnp.arange(self.values.shape[1]) < rows * columns

    @property
    def places(self) -> tuple[jax.Array, jax.Array]:
        """Row and column of each patch, `(b, n)` each; padding has that of the first patch."""
        index = jnp.where(self.valid, jnp.arange(self.values.shape[1]), 0)
        _, columns = self.grids
        return index // columns, index % columns
