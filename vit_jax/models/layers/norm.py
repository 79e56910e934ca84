"""Normalisation over the last axis, and the scale of a residual branch."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers.dense import spread
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.placement import platform


@jax.custom_vjp
def layer_norm(x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float | jax.Array) -> jax.Array:
    """Return layer normalisation over the last axis (Ba et al. 2016, arXiv 1607.06450).

    The statistics are float32, and two-pass for float32: in one pass, offset inputs lose three digits. The gradient
    is written out: it keeps the input and two numbers a row, automatic differentiation float32 arrays of the input's
    size. Forward-mode differentiation raises an error, as for `matmul`.

    Args:
      x: `(..., d)`.
      scale, bias: `(d,)`, float32.
      epsilon: added to the variance.
    """
    return _layer_norm_forward(x, scale, bias, epsilon)[0]


def _layer_norm_forward(
    x: jax.Array, scale: jax.Array, bias: jax.Array, epsilon: float | jax.Array
) -> tuple[jax.Array, tuple[jax.Array, ...]]:
    mean = x.astype(jnp.float32).mean(-1, keepdims=True)
    inverse = jax.lax.rsqrt(_variance(x, mean) + epsilon)
    normal = (x.astype(jnp.float32) - mean) * inverse
    return (normal * scale + bias).astype(x.dtype), (x, mean, inverse, scale)


def _variance(x: jax.Array, mean: jax.Array) -> jax.Array:
    """Return the float32 variance over the last axis of `x`, whose mean is given.

    In one pass, together with the mean, for bfloat16 on TPUs, where summing a row takes four times as long as reading
    it. Squares of bfloat16 numbers are exact in float32, and rounding the sum of them loses less of the variance than
    rounding `x` to bfloat16 did.
    """
    if platform() == "tpu" and x.dtype == jnp.bfloat16:
        squares = jnp.square(x.astype(jnp.float32)).mean(-1, keepdims=True)
        return jnp.maximum(squares - jnp.square(mean), 0)
    return jnp.square(x.astype(jnp.float32) - mean).mean(-1, keepdims=True)


def _layer_norm_backward(
    saved: tuple[jax.Array, ...], dy: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    x, mean, inverse, scale = saved
    normal = (x.astype(jnp.float32) - mean) * inverse
    wide = dy.astype(jnp.float32)
    dnormal = wide * scale
    along = (dnormal * normal).mean(-1, keepdims=True)
    depsilon = -0.5 * x.shape[-1] * (along * jnp.square(inverse)).sum()
    dx = inverse * (dnormal - dnormal.mean(-1, keepdims=True) - normal * along)
    rows = tuple(range(x.ndim - 1))
    return dx.astype(x.dtype), (wide * normal).sum(rows), wide.sum(rows), depsilon


layer_norm.defvjp(_layer_norm_forward, _layer_norm_backward)


class LayerNorm(Module):
    """Layer normalisation over the last axis of width `d`."""

    def __init__(self, width: int, epsilon: float):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones((width,)))
        self.bias = nnx.Param(jnp.zeros((width,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `x` `(..., d)` normalised."""
        return layer_norm(x, self.scale[...], self.bias[...], self.epsilon)


class RmsNorm(Module):
    """Division by the root of the mean square over the last axis of width `d`, in float32, then a scale.

    Source: Zhang & Sennrich 2019, arXiv 1910.07467.
    """

    def __init__(self, width: int, epsilon: float):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones((width,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `x` `(..., d)` normalised."""
        wide = x.astype(jnp.float32)
        inverse = jax.lax.rsqrt(jnp.square(wide).mean(-1, keepdims=True) + self.epsilon)
        return (wide * inverse * self.scale[...]).astype(x.dtype)


NORMS = {"layer": LayerNorm, "rms": RmsNorm}


def unit(x: jax.Array, axis: int = -1) -> jax.Array:
    """Return `x` divided by its length along an axis, or by 1e-12 where it is shorter; computed in float32."""
    wide = x.astype(jnp.float32)
    squares = jnp.square(wide).sum(axis, keepdims=True)
    return (wide * jax.lax.rsqrt(jnp.maximum(squares, 1e-24))).astype(x.dtype)


def norm_of(config: Any, width: int) -> Any:
    """Return the norm of an `EncoderConfig`'s kind over an axis of `width`."""
    return NORMS[config.norm](width, config.norm_epsilon)


class LayerScale(Module):
    """Per-channel scale of a residual branch (Touvron et al. 2021, arXiv 2103.17239)."""

    def __init__(self, width: int, initial: float):
        self.gamma = nnx.Param(jnp.full((width,), initial, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `x` `(..., d)` scaled."""
        return x * spread(self.gamma[...], x)
