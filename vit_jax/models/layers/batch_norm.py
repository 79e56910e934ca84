"""Batch normalisation, whose statistics change in training without a gradient."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers.module import Module


class BatchNorm(Module):
    """Batch normalisation over all axes but the last (Ioffe & Szegedy 2015, arXiv 1502.03167).

    In training the batch's own mean and variance are used: under jit, those of the batch over all devices. Running
    ones, of which the old keep `momentum`, are for evaluation, the variance unbiased as in torch; they are the model's
    buffers, see `models.functional`.

    Args:
      channels: `c`.
      epsilon: added to the variance.
      momentum: share of the running statistics that stays in a step; torch counts the other share.
      frozen: use the running statistics in training too, and leave them as they are.
      affine: whether a scale and a shift are learned.
    """

    def __init__(
        self,
        channels: int,
        epsilon: float = 1e-5,
        momentum: float = 0.9,
        *,
        frozen: bool = False,
        affine: bool = True,
    ):
        self.epsilon, self.momentum, self.frozen = epsilon, momentum, frozen
        self.scale = nnx.Param(jnp.ones((channels,))) if affine else None
        self.bias = nnx.Param(jnp.zeros((channels,))) if affine else None
        self.mean, self.variance = nnx.BatchStat(jnp.zeros((channels,))), nnx.BatchStat(jnp.ones((channels,)))

    def __call__(self, x: jax.Array, training: bool = False) -> jax.Array:
        """Return `x` `(..., c)` normalised, computed in float32; with `training`, assign new running statistics."""
        centred = x.astype(jnp.float32)
        if training and not self.frozen:
            axes, count = tuple(range(x.ndim - 1)), x.size // x.shape[-1]
            mean = centred.mean(axis=axes)
            centred = centred - mean
            variance = jnp.square(centred).mean(axis=axes)
            self._keep(self.mean, mean)
            self._keep(self.variance, variance * (count / max(count - 1, 1)))
        else:
            mean, variance = (jax.lax.stop_gradient(value[...]) for value in (self.mean, self.variance))
            centred = centred - mean
        scale = jax.lax.rsqrt(variance + self.epsilon)
        if self.scale is None or self.bias is None:
            return (centred * scale).astype(x.dtype)
        return (centred * (scale * self.scale[...]) + self.bias[...]).astype(x.dtype)

    def _keep(self, running: nnx.BatchStat, now: jax.Array) -> None:
        running[...] = self.momentum * running[...] + (1 - self.momentum) * jax.lax.stop_gradient(now)


def take_statistics(block: Any) -> Any:
    """Return the running statistics of a block inside a scan, for its body to return; see `put_statistics`."""
    return nnx.state(block, nnx.BatchStat)


def put_statistics(blocks: Any, statistics: Any) -> None:
    """Give stacked blocks the statistics that a scan over them returned, in place."""
    nnx.update(blocks, statistics)
