"""The convolutional front of hybrids: a ResNet with standardised weights and group norms.

Source: BiT (Kolesnikov et al. 2019, arXiv 1912.11370), as used by Dosovitskiy et al. 2020 (arXiv 2010.11929).
Padding is TensorFlow's SAME everywhere: where it is odd, the bottom and the right get more.
"""

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers.convolutional import convolve, group_norm, max_pool
from vit_jax.models.layers.module import Module
from vit_jax.models.vit.resnet_config import ResNetConfig

NORM_EPSILON = {"google": 1e-6, "timm": 1e-5}


def standardise(kernel: jax.Array, numerics: str) -> jax.Array:
    """Return a kernel `(p, q, i, o)` with mean 0 and deviation 1 over all but its outputs.

    Source: Qiao et al. 2019 (arXiv 1903.10520). Google adds 1e-5 to the deviation, timm 1e-8 to the variance.
    """
    # As a matrix: of 1x1 kernels, sums over three axes take XLA's CPU backend five times as long in the gradient.
    matrix = kernel.reshape(-1, kernel.shape[-1])
    centred = matrix - matrix.mean(0)
    variance = jnp.square(centred).mean(0)
    if numerics == "timm":
        return (centred * jax.lax.rsqrt(variance + 1e-8)).reshape(kernel.shape)
    return (centred / (jnp.sqrt(variance) + 1e-5)).reshape(kernel.shape)


class StandardisedConv(Module):
    """Convolution with a standardised kernel and no bias."""

    def __init__(
        self, size: int, channels_in: int, channels_out: int, stride: int, numerics: str, *, rngs: nnx.Rngs
    ):
        self.stride, self.numerics = stride, numerics
        shape = (size, size, channels_in, channels_out)
        self.kernel = nnx.Param(jax.nn.initializers.lecun_normal()(rngs.params(), shape, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `(b, h / stride, w / stride, o)` for `x` `(b, h, w, i)`."""
        kernel = standardise(self.kernel[...], self.numerics).astype(x.dtype)
        return convolve(x, kernel, self.stride)


class GroupNorm(Module):
    """Normalisation over places and groups of channels (Wu & He 2018, arXiv 1803.08494)."""

    def __init__(self, channels: int, numerics: str, initial: float = 1.0):
        self.epsilon = NORM_EPSILON[numerics]
        self.scale = nnx.Param(jnp.full((channels,), initial, jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `x` `(b, h, w, c)` normalised; statistics are float32."""
        return group_norm(x, self.scale[...], self.bias[...], self.epsilon)


class Bottleneck(Module):
    """Three convolutions beside a shortcut, which is projected where shapes differ."""

    def __init__(self, channels_in: int, channels_out: int, stride: int, numerics: str, *, rngs: nnx.Rngs):
        inner = channels_out // 4
        projected = stride != 1 or channels_in != channels_out

        def conv(size: int, i: int, o: int, stride: int = 1) -> StandardisedConv:
            return StandardisedConv(size, i, o, stride, numerics, rngs=rngs)

        self.conv_proj = conv(1, channels_in, channels_out, stride) if projected else None
        self.norm_proj = GroupNorm(channels_out, numerics) if projected else None
        self.conv1, self.norm1 = conv(1, channels_in, inner), GroupNorm(inner, numerics)
        self.conv2, self.norm2 = conv(3, inner, inner, stride), GroupNorm(inner, numerics)
        # A unit starts as its shortcut.
        self.conv3, self.norm3 = conv(1, inner, channels_out), GroupNorm(channels_out, numerics, 0.0)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `(b, h / stride, w / stride, o)` for `x` `(b, h, w, i)`."""
        shortcut = x
        if self.conv_proj is not None and self.norm_proj is not None:
            shortcut = self.norm_proj(self.conv_proj(x))
        x = jax.nn.relu(self.norm1(self.conv1(x)))
        x = jax.nn.relu(self.norm2(self.conv2(x)))
        return jax.nn.relu(shortcut + self.norm3(self.conv3(x)))


class ResNet(Module):
    """Images `(b, h, w, c)` to a map of features, one position for `config.stride` pixels each way."""

    def __init__(self, config: ResNetConfig, in_channels: int, *, rngs: nnx.Rngs):
        stem, numerics = config.stem_channels, config.numerics
        self.conv_root = StandardisedConv(7, in_channels, stem, 2, numerics, rngs=rngs)
        self.norm_root = GroupNorm(stem, numerics)
        stages, channels = [], stem
        for stage, (depth, channels_out) in enumerate(zip(config.depths, config.channels)):
            units = []
            for unit in range(depth):
                stride = 2 if stage and not unit else 1
                units.append(Bottleneck(channels, channels_out, stride, numerics, rngs=rngs))
                channels = channels_out
            stages.append(nnx.List(units))
        self.stages = nnx.List(stages)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `(b, h / stride, w / stride, channels)` for `x` `(b, h, w, c)`."""
        x = jax.nn.relu(self.norm_root(self.conv_root(x)))
        x = max_pool(x)
        for stage in self.stages:
            for unit in stage:
                x = unit(x)
        return x
