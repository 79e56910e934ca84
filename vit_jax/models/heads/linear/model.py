"""Semantic segmentation with a linear head on the maps of any backbone.

That is how DINOv2 (Oquab et al. 2023, arXiv 2304.07193) and DINOv3 (Simeoni et al. 2025, arXiv 2508.10104) are judged.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.heads.linear.config import LinearSegConfig
from vit_jax.models.heads.parts import drop_channels, head_norm, normed, resized
from vit_jax.models.layers.dense import Dense
from vit_jax.models.layers.module import Module
from vit_jax.models.maps import level_maps
from vit_jax.models.registry import builder
from vit_jax.random import fold


class LinearSegmenter(Module):
    """Images `(b, h, w, c)` to classes of pixels: norm, dropout of channels, one dense layer.

    Args:
      config: encoder and head.
      rngs: source of the keys that initialise the parameters.
    """

    def __init__(self, config: LinearSegConfig, *, rngs: nnx.Rngs):
        self.config = config
        channels = sum(level.channels for level in config.levels)
        self.encoder = builder(config.encoder)(rngs.params())
        self.norm = head_norm(config.norm, channels)
        shape = (config.cells, config.cells, config.num_classes)
        self.head = Dense((channels,), shape, scheme="trunc_normal", rngs=rngs)
        pixels = config.detail_level if config.detail else None
        self.detail = pixels and Dense(
            (pixels.channels,), (config.num_classes,), use_bias=False, scheme="trunc_normal", rngs=rngs
        )

    def __call__(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return logits of classes `(b, rows, columns, classes)` in float32, `cells` each way for each place; with
        `detail` for each pixel.

        Args:
          images: normalised images `(b, h, w, c)`.
          key: randomness of dropout and drop path; None for evaluation.
        """
        config = self.config
        detail = config.detail_level if config.detail else None
        levels = config.levels if detail is None else (*config.levels, detail)
        maps = level_maps(self.encoder, levels, images, key)
        pixels = None if detail is None else maps.pop()
        size = max((x.shape[1:3] for x in maps), key=lambda size: size[0])
        x = jnp.concatenate([resized(x, size) for x in maps], axis=-1)
        x = normed(self.norm, x, key is not None)
        x = drop_channels(x, config.dropout_rate, fold(key, "head"))
        logits = self.head(x.astype(jnp.float32))  # (b, h, w, cells, cells, classes)
        b, h, w, cells, _, classes = logits.shape
        logits = logits.transpose(0, 1, 3, 2, 4, 5).reshape(b, h * cells, w * cells, classes)
        if pixels is None or self.detail is None:
            return logits
        return resized(logits, pixels.shape[1:3]) + self.detail(pixels.astype(jnp.float32))

    def with_auxiliary(self, images: jax.Array, key: jax.Array | None = None) -> tuple[jax.Array, tuple[()]]:
        """Return the logits, and those of further heads, of which there are none."""
        return self(images, key), ()
