"""Semantic segmentation with UPerNet's decoder (Xiao et al. 2018, arXiv 1807.10221), as BEiT uses it.

A Vision Transformer has maps of one size only; the first two are enlarged and the last is shrunk to make a pyramid
(Bao et al. 2021, arXiv 2106.08254). Maps are `(b, h, w, c)`.
"""

from itertools import pairwise

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax.models.activations import ACTIVATIONS
from vit_jax.models.layers import Dense, dense, spread
from vit_jax.models.resample import resample_grid
from vit_jax.models.upernet_config import UperNetConfig
from vit_jax.models.vit import VisionTransformer
from vit_jax.random import fold

NORM_EPSILON = 1e-5


def pooling_matrix(n_in: int, n_out: int) -> np.ndarray:
    """Return the means `(n_out, n_in)` of bins that cover all inputs and overlap where they do not divide."""
    matrix = np.zeros((n_out, n_in), np.float32)
    for row in range(n_out):
        first, end = row * n_in // n_out, -(-(row + 1) * n_in // n_out)
        matrix[row, first:end] = 1 / (end - first)
    return matrix


def resized(x: jax.Array, like: jax.Array) -> jax.Array:
    """Return maps `(b, h, w, c)` at the size of others, bilinear between the centres of pixels."""
    _, height, width, _ = like.shape
    return jax.vmap(lambda grid: resample_grid(grid, (height, width), "bilinear"))(x)


class FrozenBatchNorm(nnx.Module):
    """Batch normalisation with the statistics of its checkpoint (Ioffe & Szegedy 2015, arXiv 1502.03167).

    The statistics are stored beside the parameters, and no gradient changes them.
    """

    def __init__(self, channels: int):
        self.scale, self.bias = nnx.Param(jnp.ones((channels,))), nnx.Param(jnp.zeros((channels,)))
        self.mean, self.variance = nnx.Param(jnp.zeros((channels,))), nnx.Param(jnp.ones((channels,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `x` `(..., c)` normalised, computed in float32."""
        mean, variance = (jax.lax.stop_gradient(value[...]) for value in (self.mean, self.variance))
        centred = x.astype(jnp.float32) - mean
        scale = jax.lax.rsqrt(variance + NORM_EPSILON) * self.scale[...]
        return (centred * scale + self.bias[...]).astype(x.dtype)


class Conv(nnx.Module):
    """Convolution without bias, batch norm and ReLU; the size stays."""

    def __init__(self, size: int, channels_in: int, channels_out: int, *, rngs: nnx.Rngs):
        shape = (size, size, channels_in, channels_out)
        self.kernel = nnx.Param(jax.nn.initializers.lecun_normal()(rngs.params(), shape, jnp.float32))
        self.norm = FrozenBatchNorm(channels_out)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `(b, h, w, o)` for `x` `(b, h, w, i)`."""
        kernel = self.kernel[...].astype(x.dtype)
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jax.nn.relu(self.norm(x))


class Double(nnx.Module):
    """Each pixel becomes 2x2: a transposed convolution with stride 2."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        shape = (channels, 2, 2, channels)
        initial = jax.nn.initializers.lecun_normal(in_axis=0, out_axis=3)
        self.kernel = nnx.Param(initial(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `(b, 2 h, 2 w, c)` for `x` `(b, h, w, c)`."""
        b, h, w, c = x.shape
        pixels = dense(x, self.kernel[...]).transpose(0, 1, 3, 2, 4, 5).reshape(b, 2 * h, 2 * w, c)
        return pixels + spread(self.bias[...], pixels)


class Neck(nnx.Module):
    """Four maps of one size to a pyramid: four times, twice, once and half that size."""

    def __init__(self, channels: int, *, rngs: nnx.Rngs):
        self.first, self.norm = Double(channels, rngs=rngs), FrozenBatchNorm(channels)
        self.second, self.twice = Double(channels, rngs=rngs), Double(channels, rngs=rngs)

    def __call__(self, maps: list[jax.Array]) -> list[jax.Array]:
        """Return the pyramid of four maps `(b, h, w, c)`, the largest first."""
        largest = self.second(ACTIVATIONS["gelu"](self.norm(self.first(maps[0]))))
        lowest = np.asarray(-np.inf, maps[3].dtype)  # not traced: it tells jax that this is max pooling
        window = (1, 2, 2, 1)
        half = jax.lax.reduce_window(maps[3], lowest, jax.lax.max, window, window, "VALID")
        return [largest, self.twice(maps[1]), maps[2], half]


class Decoder(nnx.Module):
    """A pyramid of maps to logits of every pixel of the largest: pyramid pooling, then a feature pyramid."""

    def __init__(self, config: UperNetConfig, *, rngs: nnx.Rngs):
        d, self.config = config.encoder.width, config
        self.pyramid = nnx.List([Conv(1, d, d, rngs=rngs) for _ in config.pool_scales])
        self.bottleneck = Conv(3, (1 + len(config.pool_scales)) * d, d, rngs=rngs)
        self.laterals = nnx.List([Conv(1, d, d, rngs=rngs) for _ in config.taps[:-1]])
        self.outputs = nnx.List([Conv(3, d, d, rngs=rngs) for _ in config.taps[:-1]])
        self.fusion = Conv(3, len(config.taps) * d, d, rngs=rngs)
        self.head = Dense((d,), (config.num_classes,), scheme="trunc_normal", rngs=rngs)

    def __call__(self, maps: list[jax.Array]) -> jax.Array:
        """Return logits `(b, h, w, classes)` in float32 of maps `(b, ., ., d)`, the largest `(b, h, w, d)` first."""
        levels = [lateral(x) for lateral, x in zip(self.laterals, maps)] + [self._pooled(maps[-1])]
        for i in range(len(levels) - 1, 0, -1):
            levels[i - 1] = levels[i - 1] + resized(levels[i], levels[i - 1])
        levels = [output(x) for output, x in zip(self.outputs, levels)] + levels[-1:]
        fused = self.fusion(jnp.concatenate([resized(x, levels[0]) for x in levels], -1))
        return self.head(fused.astype(jnp.float32))

    def _pooled(self, x: jax.Array) -> jax.Array:
        """Return a map `(b, h, w, d)` that knows of the whole image."""
        found, (_, h, w, _) = [x], x.shape
        for scale, conv in zip(self.config.pool_scales, self.pyramid):
            down, across = (jnp.asarray(pooling_matrix(side, scale), x.dtype) for side in (h, w))
            means = jnp.einsum("sh,bhwc,tw->bstc", down, x, across, precision=jax.lax.Precision.HIGHEST)
            found.append(resized(conv(means), x))
        return self.bottleneck(jnp.concatenate(found, -1))


class PlainDecoder(nnx.Module):
    """One map to logits by convolutions (Long et al. 2014, arXiv 1411.4038): a second loss in training."""

    def __init__(self, config: UperNetConfig, *, rngs: nnx.Rngs):
        d, channels = config.encoder.width, config.auxiliary_channels
        sizes = [d] + [channels] * config.auxiliary_convs
        self.convs = nnx.List([Conv(3, i, o, rngs=rngs) for i, o in pairwise(sizes)])
        self.join = Conv(3, d + channels, channels, rngs=rngs) if config.auxiliary_concat else None
        self.head = Dense((channels,), (config.num_classes,), scheme="trunc_normal", rngs=rngs)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return logits `(b, h, w, classes)` in float32 of a map `(b, h, w, d)`."""
        y = x
        for conv in self.convs:
            y = conv(y)
        y = y if self.join is None else self.join(jnp.concatenate([x, y], -1))
        return self.head(y.astype(jnp.float32))


class UperNet(nnx.Module):
    """Images `(b, h, w, c)` to classes of pixels.

    Args:
      config: encoder and decoder.
      rngs: source of the keys that initialise the parameters.
    """

    def __init__(self, config: UperNetConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.encoder = VisionTransformer(config.encoder, rngs=rngs)
        self.neck = Neck(config.encoder.width, rngs=rngs)
        self.decoder = Decoder(config, rngs=rngs)
        self.auxiliary = PlainDecoder(config, rngs=rngs) if config.auxiliary_channels else None

    def features(self, images: jax.Array, key: jax.Array | None = None) -> list[jax.Array]:
        """Return the pyramid of normalised images `(b, h, w, c)`; `key` is None for evaluation."""
        encoder = self.encoder
        x = encoder.embed(images, fold(key, "embed"))
        _, captured = encoder.encode(x, key, encoder.surroundings(images), outputs=True)
        tapped = [captured["blocks"][tap - 1] if tap else x for tap in self.config.taps]
        grid, prefix = encoder.grid_of(images), self.config.encoder.prefix_tokens
        return self.neck([y[:, prefix:].reshape(len(y), *grid, y.shape[-1]) for y in tapped])

    def __call__(self, images: jax.Array, key: jax.Array | None = None) -> jax.Array:
        """Return logits of classes `(b, 4 rows, 4 columns, classes)` in float32, 4x4 for each patch.

        Args:
          images: normalised images `(b, h, w, c)`.
          key: randomness of dropout and drop path; None for evaluation.
        """
        return self.decoder(self.features(images, key))

    def with_auxiliary(
        self, images: jax.Array, key: jax.Array | None = None
    ) -> tuple[jax.Array, jax.Array | None]:
        """Return the logits and those of the auxiliary head `(b, rows, columns, classes)`, None if there is none."""
        maps = self.features(images, key)
        return self.decoder(maps), None if self.auxiliary is None else self.auxiliary(maps[2])
