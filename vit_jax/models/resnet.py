"""The convolutional front of hybrids: a ResNet with standardised weights and group norms.

Source: BiT (Kolesnikov et al. 2019, arXiv 1912.11370), as used by Dosovitskiy et al. 2020 (arXiv 2010.11929).
Padding is TensorFlow's SAME everywhere: where it is odd, the bottom and the right get more.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax.models.layers import matmul
from vit_jax.models.placement import platform
from vit_jax.models.resnet_config import ResNetConfig

GROUPS = 32
NORM_EPSILON = {"google": 1e-6, "timm": 1e-5}


def standardise(kernel: jax.Array, numerics: str) -> jax.Array:
    """Return a kernel `(p, q, i, o)` with mean 0 and deviation 1 over all but its outputs.

    Source: Qiao et al. 2019 (arXiv 1903.10520). Google adds 1e-5 to the deviation, timm 1e-8 to the variance.
    """
    centred = kernel - kernel.mean((0, 1, 2), keepdims=True)
    variance = jnp.square(centred).mean((0, 1, 2), keepdims=True)
    if numerics == "timm":
        return centred * jax.lax.rsqrt(variance + 1e-8)
    return centred / (jnp.sqrt(variance) + 1e-5)


class StandardisedConv(nnx.Module):
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
        if kernel.shape[:2] == (1, 1):
            return matmul(x[:, :: self.stride, :: self.stride], kernel[0, 0])
        if self.stride == 1 and platform() == "cpu":
            return _convolve_in_place(x, kernel)
        return _convolve(x, kernel, self.stride)


def _convolve(x: jax.Array, kernel: jax.Array, stride: int = 1) -> jax.Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=dimensions)


@jax.custom_vjp
def _convolve_in_place(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve with a kernel of odd size, one position for each of `x`.

    The gradient of `x` is again such a convolution, with the kernel turned round. Written by automatic
    differentiation, XLA sees through the turning, no longer takes it for one, and computes it in float32 (jax 0.12).
    """
    return _convolve(x, kernel)


def _convolve_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _convolve(x, kernel), (x, kernel)


def _convolve_backward(saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    turned = jax.lax.optimization_barrier(kernel[::-1, ::-1].swapaxes(2, 3))
    (dkernel,) = jax.linear_transpose(lambda kernel: _convolve(x, kernel), kernel)(dy)
    return _convolve(dy, turned), dkernel


_convolve_in_place.defvjp(_convolve_forward, _convolve_backward)


class GroupNorm(nnx.Module):
    """Normalisation over places and groups of channels (Wu & He 2018, arXiv 1803.08494)."""

    def __init__(self, channels: int, numerics: str, initial: float = 1.0):
        self.epsilon = NORM_EPSILON[numerics]
        self.scale = nnx.Param(jnp.full((channels,), initial, jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `x` `(b, h, w, c)` normalised; statistics are float32."""
        return group_norm(x, self.scale[...], self.bias[...], self.epsilon)


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def group_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """Return normalisation over places and groups of channels (Wu & He 2018, arXiv 1803.08494).

    Its gradient is written out, of sums over places alone; forward-mode differentiation raises an error, as for
    `layers.matmul`.

    Args:
      x: `(b, h, w, c)`.
      scale, bias: `(c,)`, float32.
      epsilon: added to the variance.
    """
    return _group_norm_forward(x, scale, bias, epsilon)[0]


def _group_norm_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    wide = x.astype(jnp.float32)
    mean = _group_means(wide.mean((1, 2), keepdims=True))
    variance = _group_means(jnp.square(wide - mean).mean((1, 2), keepdims=True))
    inverse = jax.lax.rsqrt(variance + epsilon)
    normal = (wide - mean) * inverse
    return (normal * scale + bias).astype(x.dtype), (x, mean, inverse, scale)


def _group_norm_backward(
    epsilon: float, saved: tuple[jax.Array, ...], dy: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    x, mean, inverse, scale = saved
    normal, wide = (x.astype(jnp.float32) - mean) * inverse, dy.astype(jnp.float32)
    sums, along = (values.sum((1, 2), keepdims=True) for values in (wide, wide * normal))
    places = x.shape[1] * x.shape[2]
    dmean, dscale = (_group_means(values * scale) / places for values in (sums, along))
    dx = inverse * (wide * scale - dmean - normal * dscale)
    return dx.astype(x.dtype), along.sum((0, 1, 2)), sums.sum((0, 1, 2))


group_norm.defvjp(_group_norm_forward, _group_norm_backward)


def _group_means(x: jax.Array) -> jax.Array:
    """Return the mean over each group of channels of `x` `(b, 1, 1, c)`, once for each of its channels.

    Sums over places come before: they run along whole rows of channels, while a group has as few as two.
    """
    b, _, _, c = x.shape
    return jnp.repeat(x.reshape(b, 1, 1, GROUPS, -1).mean(-1), c // GROUPS, axis=-1)


def max_pool(x: jax.Array) -> jax.Array:
    """Return the largest values of `x` `(b, h, w, c)` in windows of 3x3, two apart, padded as SAME.

    Of equal values the first, row by row, has the gradient, as in PyTorch.
    """
    if platform() == "cpu":
        return _max_of_three(_max_of_three(x, 2), 1)
    lowest = np.asarray(-np.inf, x.dtype)  # not traced: it tells jax that this is max pooling
    return jax.lax.reduce_window(x, lowest, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")


@partial(jax.custom_vjp, nondiff_argnums=(1,))
def _max_of_three(x: jax.Array, axis: int) -> jax.Array:
    """Pool along one axis; the gradient of XLA's own pooling takes ten times as long on CPUs."""
    first, second, third = _thirds(x, axis)
    return jnp.maximum(jnp.maximum(first, second), third)


def _max_forward(x: jax.Array, axis: int) -> tuple[jax.Array, jax.Array]:
    return _max_of_three(x, axis), x


def _max_backward(axis: int, x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    # In float32, in which gradients are added, and which jax 0.10 computes much faster.
    first, second, third = _thirds(x.astype(jnp.float32), axis)
    is_first = (first >= second) & (first >= third)
    is_second = ~is_first & (second >= third)
    wide, zero = dy.astype(jnp.float32), jnp.float32(0)
    one_more = [(0, 0)] * axis + [(0, 1)] + [(0, 0)] * (3 - axis)
    to_first = jnp.pad(jnp.where(is_first, wide, zero), one_more)
    to_second = jnp.pad(jnp.where(is_second, wide, zero), one_more)
    to_third = jnp.pad(jnp.where(is_first | is_second, zero, wide), [pad[::-1] for pad in one_more])
    # Positions of a window are 2i, 2i + 1 and 2i + 2, which is the first of the next.
    dx = jnp.stack([to_first + to_third, to_second], axis=axis + 1)
    dx = dx.reshape(*x.shape[:axis], -1, *x.shape[axis + 1 :])
    before = _padding(x.shape[axis])[0]
    return (jax.lax.slice_in_dim(dx, before, before + x.shape[axis], axis=axis).astype(x.dtype),)


_max_of_three.defvjp(_max_forward, _max_backward)


def _thirds(x: jax.Array, axis: int) -> list[jax.Array]:
    """Return the first, second and third values of all windows along an axis."""
    padding = [(0, 0)] * 4
    padding[axis] = _padding(x.shape[axis])
    x = jnp.pad(x, padding, constant_values=-jnp.inf)
    return [jax.lax.slice_in_dim(x, i, x.shape[axis] - 2 + i, 2, axis) for i in range(3)]


def _padding(size: int) -> tuple[int, int]:
    """Return what SAME puts before and after so many values: all but one of a pair goes behind."""
    total = 1 + size % 2
    return total // 2, total - total // 2


class Bottleneck(nnx.Module):
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


class ResNet(nnx.Module):
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
