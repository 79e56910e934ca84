"""Semantic segmentation with UPerNet's decoder (Xiao et al. 2018, arXiv 1807.10221) on the maps of any backbone.

A Vision Transformer has maps of one size only; the first two are enlarged and the last is shrunk to make a pyramid
(Bao et al. 2021, arXiv 2106.08254). Maps are `(b, h, w, c)`.
"""

from functools import partial
from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax.models.heads.parts import Conv, Larger, drop_channels, head_norm, normed, resized
from vit_jax.models.heads.upernet.config import UperNetConfig
from vit_jax.models.layers.activations import ACTIVATIONS
from vit_jax.models.layers.dense import Dense
from vit_jax.models.layers.module import Module
from vit_jax.models.maps import level_maps
from vit_jax.models.registry import builder
from vit_jax.random import fold


def pooling_matrix(n_in: int, n_out: int) -> np.ndarray:
    """Return the means `(n_out, n_in)` of bins that cover all inputs and overlap where they do not divide."""
    matrix = np.zeros((n_out, n_in), np.float32)
    for row in range(n_out):
        first, end = row * n_in // n_out, -(-(row + 1) * n_in // n_out)
        matrix[row, first:end] = 1 / (end - first)
    return matrix


class Neck(Module):
    """Four maps of one size to a pyramid: four times, twice, once and half that size."""

    def __init__(self, channels: int, norm: str, *, rngs: nnx.Rngs):
        self.first, self.norm = Larger(channels, 2, rngs=rngs), head_norm(norm, channels)
        self.second, self.twice = Larger(channels, 2, rngs=rngs), Larger(channels, 2, rngs=rngs)

    def __call__(self, maps: list[jax.Array], training: bool = False) -> list[jax.Array]:
        """Return the pyramid of four maps `(b, h, w, c)`, the largest first."""
        doubled = normed(self.norm, self.first(maps[0]), training)
        largest = self.second(ACTIVATIONS["gelu"](doubled))
        lowest = np.asarray(-np.inf, maps[3].dtype)  # not traced: it tells jax that this is max pooling
        window = (1, 2, 2, 1)
        half = jax.lax.reduce_window(maps[3], lowest, jax.lax.max, window, window, "VALID")
        return [largest, self.twice(maps[1]), maps[2], half]


class Decoder(Module):
    """A pyramid of maps to logits of every pixel of the largest: pyramid pooling, then a feature pyramid."""

    def __init__(self, config: UperNetConfig, *, rngs: nnx.Rngs):
        d, self.config = config.width, config
        conv = partial(Conv, norm=config.norm, rngs=rngs)
        *lower, top = (level.channels for level in config.levels)
        self.pyramid = nnx.List([conv(1, top, d) for _ in config.pool_scales])
        self.bottleneck = conv(3, top + len(config.pool_scales) * d, d)
        self.laterals = nnx.List([conv(1, channels, d) for channels in lower])
        self.outputs = nnx.List([conv(3, d, d) for _ in lower])
        self.fusion = conv(3, len(config.levels) * d, d)
        self.head = Dense((d,), (config.num_classes,), scheme="trunc_normal", rngs=rngs)

    def __call__(self, maps: list[jax.Array], key: jax.Array | None = None) -> jax.Array:
        """Return logits `(b, h, w, classes)` in float32 of maps `(b, ., ., c)`, the largest `(b, h, w, c)` first."""
        training = key is not None
        levels = [lateral(x, training) for lateral, x in zip(self.laterals, maps)]
        levels.append(self._pooled(maps[-1], training))
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + resized(levels[i], levels[i - 1].shape[1:3])
        levels = [output(x, training) for output, x in zip(self.outputs, levels)] + levels[-1:]
        size = levels[0].shape[1:3]
        fused = self.fusion(jnp.concatenate([resized(x, size) for x in levels], -1), training)
        return self.head(drop_channels(fused, self.config.dropout_rate, key).astype(jnp.float32))

    def _pooled(self, x: jax.Array, training: bool) -> jax.Array:
        """Return a map `(b, h, w, d)` that knows of the whole image."""
        found, (_, h, w, _) = [x], x.shape
        for scale, conv in zip(self.config.pool_scales, self.pyramid):
            down, across = (jnp.asarray(pooling_matrix(side, scale), x.dtype) for side in (h, w))
            means = jnp.einsum("sh,bhwc,tw->bstc", down, x, across, precision=jax.lax.Precision.HIGHEST)
            found.append(resized(conv(means, training), (h, w)))
        return self.bottleneck(jnp.concatenate(found, -1), training)


class PlainDecoder(Module):
    """One map to logits by convolutions (Long et al. 2014, arXiv 1411.4038): a second loss in training."""

    def __init__(self, config: UperNetConfig, *, rngs: nnx.Rngs):
        self.dropout_rate, channels = config.dropout_rate, config.auxiliary_channels
        conv, d = partial(Conv, norm=config.norm, rngs=rngs), config.levels[-2].channels
        sizes = [d] + [channels] * config.auxiliary_convs
        self.convs = nnx.List([conv(3, i, o) for i, o in pairwise(sizes)])
        self.join = conv(3, d + channels, channels) if config.auxiliary_concat else None
        self.head = Dense((channels,), (config.num_classes,), scheme="trunc_normal", rngs=rngs)

    def __call__(self, x: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return logits `(b, h, w, classes)` in float32 of a map `(b, h, w, d)`."""
        y, training = x, key is not None
        for conv in self.convs:
            y = conv(y, training)
        y = y if self.join is None else self.join(jnp.concatenate([x, y], -1), training)
        return self.head(drop_channels(y, self.dropout_rate, key).astype(jnp.float32))


class UperNet(Module):
    """Images `(b, h, w, c)` to classes of pixels.

    Args:
      config: encoder and decoder.
      rngs: source of the keys that initialise the parameters.
    """

    def __init__(self, config: UperNetConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = builder(config.encoder)(rngs.params())
        channels = config.levels[0].channels
        self.neck = Neck(channels, config.norm, rngs=rngs) if config.has_neck else None
        self.decoder = Decoder(config, rngs=rngs)
        self.auxiliary = PlainDecoder(config, rngs=rngs) if config.auxiliary_channels else None

    def features(self, images: jax.Array, key: jax.Array | None = None) -> list[jax.Array]:
        """Return the pyramid of normalised images `(b, h, w, c)`; `key` is None for evaluation."""
        maps = level_maps(self.encoder, self.config.levels, images, key)
        return maps if self.neck is None else self.neck(maps, key is not None)

    def __call__(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return logits of classes `(b, rows, columns, classes)` in float32: for each place of the largest map, of ViT
        4x4 for each patch.

        Args:
          images: normalised images `(b, h, w, c)`.
          key: randomness of dropout and drop path; None for evaluation.
        """
        return self.decoder(self.features(images, key), fold(key, "decoder"))

    def with_auxiliary(
        self, images: jax.Array, key: jax.Array | None = None
    ) -> tuple[jax.Array, tuple[jax.Array, ...]]:
        """Return the logits, and those `(b, rows, columns, classes)` of the auxiliary head, if there is one."""
        maps = self.features(images, key)
        logits = self.decoder(maps, fold(key, "decoder"))
        return logits, () if self.auxiliary is None else (self.auxiliary(maps[-2], fold(key, "auxiliary")),)
