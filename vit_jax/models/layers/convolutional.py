"""What convolutional networks are made of: convolution, group norm, max pooling, with gradients of their own.

Automatic differentiation of XLA's own forms takes up to ten times as long on CPUs (docs/performance.md). Forward-mode
differentiation through these functions raises an error, as for `dense.matmul`.
"""

import itertools
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.models.layers.dense import matmul
from vit_jax.models.layers.placement import platform

GROUPS = 32


def convolve(
    x: jax.Array, kernel: jax.Array, stride: int, pad: int | None = None, groups: int = 1
) -> jax.Array:
    """Return the convolution of images with a kernel of odd size.

    Args:
      x: `(b, h, w, i)`.
      kernel: `(p, q, i, o)`, same dtype; of groups `(p, q, i / groups, o)`.
      stride: places from one window to the next, both ways.
      pad: zeros on each side, as torch counts them; None pads as SAME.
      groups: of channels that do not see each other.

    Returns:
      `(b, h', w', o)`; of SAME, `(b, h / stride, w / stride, o)`, rounded up.
    """
    if kernel.shape[:2] == (1, 1) and not pad and groups == 1:
        return matmul(x[:, ::stride, ::stride], kernel[0, 0])
    padding = "SAME" if pad is None else [(pad, pad), (pad, pad)]
    if platform() != "cpu" or groups > 1:
        return _convolve(x, kernel, stride, padding, groups)
    same_size = stride == 1 and (pad is None or kernel.shape[:2] == (2 * pad + 1, 2 * pad + 1))
    y = _convolve_same_size(x, kernel) if same_size else _convolve(x, kernel, stride, padding)
    # A map that is added, such as positions, XLA hands to oneDNN too, which then takes 200 to 500 times as long (0.12).
    return jax.lax.optimization_barrier(y)


def _convolve(
    x: jax.Array, kernel: jax.Array, stride: int = 1, padding: Any = "SAME", groups: int = 1
) -> jax.Array:
    dimensions = ("NHWC", "HWIO", "NHWC")
    return jax.lax.conv_general_dilated(
        x, kernel, (stride, stride), padding, dimension_numbers=dimensions, feature_group_count=groups
    )


@jax.custom_vjp
def _convolve_same_size(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Convolve with a kernel of odd size, to as many places as `x` has.

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


_convolve_same_size.defvjp(_convolve_forward, _convolve_backward)


def depthwise(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...]) -> jax.Array:
    """Return the convolution of each channel by itself, of maps of any number of axes.

    On CPUs the sum of as many shifted maps as the kernel has places, which XLA fuses into one pass; its own form
    there takes many times as long, and so does the gradient of the sum, one padded map for each place, in bfloat16.

    Args:
      x: `(b, *sides, c)`.
      kernel: `(*sizes, k)`, of odd sizes, same dtype; `c` is a multiple of `k`, and every `k` channels have the same.
      strides: places from one window to the next, by axis.

    Returns:
      `(b, *sides / strides, c)`, rounded up: half a kernel of zeros is put on each side, as torch is told to.
    """
    sizes, repeats = kernel.shape[:-1], x.shape[-1] // kernel.shape[-1]
    pads = [(size // 2, size // 2) for size in sizes]
    if platform() != "cpu":
        letters = "DHW"[-len(sizes) :]
        numbers = (f"N{letters}C", f"{letters}IO", f"N{letters}C")
        grouped = jnp.expand_dims(jnp.tile(kernel, repeats), -2)
        return jax.lax.conv_general_dilated(
            x, grouped, strides, pads, dimension_numbers=numbers, feature_group_count=x.shape[-1]
        )
    # Not tiled: the sum would look up the channel of the kernel for each value.
    apart = x.reshape(*x.shape[:-1], repeats, kernel.shape[-1])
    y: Any = _depthwise(apart, kernel, strides)
    return y.reshape(*y.shape[:-2], -1)


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def _depthwise(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...]) -> jax.Array:
    """Compute `depthwise` of `x` `(b, *sides, r, k)` by shifted maps; its gradient is written in the same way."""
    return _sum_of_windows(x, kernel, strides)


def _depthwise_forward(
    x: jax.Array, kernel: jax.Array, strides: tuple[int, ...]
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return _sum_of_windows(x, kernel, strides), (x, kernel)


def _depthwise_backward(
    strides: tuple[int, ...], saved: tuple[jax.Array, jax.Array], dy: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    places = tuple(range(x.ndim - 1))
    wide = dy.astype(jnp.float32)
    windows = (window.astype(jnp.float32) for window in _windows(x, kernel.shape[:-1], strides))
    sums = [(window * wide).sum(places) for window in windows]
    # Of maps with zeros where no window stood, it is the convolution with the kernel turned round.
    apart = [
        (0, side - 1 - (count - 1) * stride, stride - 1)
        for side, count, stride in zip(x.shape[1:], dy.shape[1:], strides)
    ]
    spread = jax.lax.pad(dy, jnp.zeros((), dy.dtype), [(0, 0, 0), *apart, (0, 0, 0), (0, 0, 0)])
    dx = _sum_of_windows(spread, jnp.flip(kernel, tuple(range(kernel.ndim - 1))), (1,) * len(strides))
    return dx, jnp.stack(sums).reshape(kernel.shape).astype(kernel.dtype)


_depthwise.defvjp(_depthwise_forward, _depthwise_backward)


def _sum_of_windows(x: jax.Array, kernel: jax.Array, strides: tuple[int, ...]) -> jax.Array:
    weights = kernel.astype(jnp.float32).reshape(-1, kernel.shape[-1])
    total = jnp.zeros((), jnp.float32)
    for window, weight in zip(_windows(x, kernel.shape[:-1], strides), weights):
        total = total + window.astype(jnp.float32) * weight
    return total.astype(x.dtype)


def _windows(x: jax.Array, sizes: Sequence[int], strides: Sequence[int]) -> Iterator[jax.Array]:
    """Return what each place of a kernel sees of `x` `(b, *sides, r, k)`: `(b, *sides / strides, r, k)`, rounded up."""
    b, *sides, r, k = x.shape
    padded = jnp.pad(x, [(0, 0), *((size // 2, size // 2) for size in sizes), (0, 0), (0, 0)])
    for place in itertools.product(*map(range, sizes)):
        ends = [
            first + (side - 1) // stride * stride + 1 for first, side, stride in zip(place, sides, strides)
        ]
        yield jax.lax.slice(padded, (0, *place, 0, 0), (b, *ends, r, k), (1, *strides, 1, 1))


@partial(jax.custom_vjp, nondiff_argnums=(3,))
def group_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float) -> jax.Array:
    """Return normalisation over places and groups of channels (Wu & He 2018, arXiv 1803.08494).

    Its gradient is written out, of sums over places alone.

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


def max_pool(x: jax.Array, before: int | None = None) -> jax.Array:
    """Return the largest values of `x` `(b, h, w, c)` in windows of 3x3, two apart.

    Of equal values the first, row by row, has the gradient, as in PyTorch.

    Args:
      x: the maps.
      before: places that the first windows reach beyond the top and the left, 0 or 1; None pads as SAME.

    Returns:
      `(b, h / 2, w / 2, c)`, rounded up.
    """
    if platform() == "cpu":
        return _max_of_three(_max_of_three(x, 2, before), 1, before)
    lowest = np.asarray(-np.inf, x.dtype)  # not traced: it tells jax that this is max pooling
    padding = [(0, 0), *(_padding(side, before) for side in x.shape[1:3]), (0, 0)]
    return jax.lax.reduce_window(x, lowest, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), padding)


@partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _max_of_three(x: jax.Array, axis: int, before: int | None) -> jax.Array:
    """Pool along one axis; the gradient of XLA's own pooling takes ten times as long on CPUs."""
    first, second, third = _thirds(x, axis, before)
    return jnp.maximum(jnp.maximum(first, second), third)


def _max_forward(x: jax.Array, axis: int, before: int | None) -> tuple[jax.Array, jax.Array]:
    return _max_of_three(x, axis, before), x


def _max_backward(axis: int, before: int | None, x: jax.Array, dy: jax.Array) -> tuple[jax.Array]:
    # In float32, in which gradients are added, and which jax 0.10 computes much faster.
    first, second, third = _thirds(x.astype(jnp.float32), axis, before)
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
    left = _padding(x.shape[axis], before)[0]
    return (jax.lax.slice_in_dim(dx, left, left + x.shape[axis], axis=axis).astype(x.dtype),)


_max_of_three.defvjp(_max_forward, _max_backward)


def _thirds(x: jax.Array, axis: int, before: int | None) -> list[jax.Array]:
    """Return the first, second and third values of all windows along an axis."""
    padding = [(0, 0)] * 4
    padding[axis] = _padding(x.shape[axis], before)
    x = jnp.pad(x, padding, constant_values=-jnp.inf)
    return [jax.lax.slice_in_dim(x, i, x.shape[axis] - 2 + i, 2, axis) for i in range(3)]


def _padding(size: int, before: int | None) -> tuple[int, int]:
    """Return what is put before and after so many values; SAME puts all but one of a pair behind."""
    total = 1 + size % 2
    first = total // 2 if before is None else before
    return first, total - first
