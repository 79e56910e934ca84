"""What every image encoder can do beside its call: give its maps of features."""

from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.errors import ConfigError
from vit_jax.models.family import Level
from vit_jax.models.layers.module import Module
from vit_jax.models.maps import Chosen, level_maps, named_levels


class Backbone(Module):
    """An image encoder of some family, which says what its levels are."""

    @property
    def levels(self) -> tuple[Level, ...]:
        """The maps of features, the finest first: name, stride, channels, and grid at the model's own image size."""
        return named_levels(self.config)

    def features(
        self,
        images: Any,
        levels: Chosen | None = None,
        *,
        key: jax.Array | None = None,
        resample: bool = False,
    ) -> tuple[jax.Array, ...]:
        """Return maps of features, float32 `(b, h, w, c)` each, in the order of `levels`; see `named_levels`.

        A pure function of model and images; a jitted forward pass computes nothing that comes after the last of them.

        Args:
          images: normalised images `(b, height, width, channels)`.
          levels: strides in pixels, names such as `stages/1` or `blocks/-1`, or both; None for `self.levels`.
          key: randomness of dropout and drop path; None for evaluation.
          resample: take of a stride that no map has the map of the nearest, bilinear.

        Raises:
          ConfigError: there is no such level, or the model does not take such images.
        """
        chosen = named_levels(self.config, levels, resample)
        if not hasattr(images, "shape"):
            raise ConfigError(
                "sequences of patches of variable-size images have no maps; give images (batch, height, width, "
                "channels)."
            )
        return tuple(x.astype(jnp.float32) for x in level_maps(self, chosen, images, key))
