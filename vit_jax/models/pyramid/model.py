"""An image encoder of any family whose output are maps of features: what `vit_jax.load(..., levels=)` returns."""

from typing import Any

import jax
from flax import nnx

from vit_jax.models.family import Level
from vit_jax.models.layers.module import Module
from vit_jax.models.pyramid.config import PyramidConfig
from vit_jax.models.registry import builder


class Pyramid(Module):
    """Images `(b, h, w, c)` to maps `(b, h, w, c)`.

    Args:
      config: encoder and levels.
      rngs: source of the keys that initialise the parameters.
    """

    def __init__(self, config: PyramidConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder: Any = builder(config.encoder)(rngs.params())

    @property
    def levels(self) -> tuple[Level, ...]:
        """Name, stride and channels of each map, and its grid for images of the model's own size."""
        return self.config.maps

    def __call__(self, images: jax.Array, key: jax.Array | None = None) -> tuple[jax.Array, ...]:
        """Return the maps, float32 `(b, h, w, c)` each, in the order of `levels`; see `Backbone.features`.

        Args:
          images: normalised images `(b, height, width, channels)`.
          key: randomness of dropout and drop path; None for evaluation.
        """
        return self.encoder.features(images, self.config.levels, key=key)
