"""What dense heads share: sizes of maps, convolutions with their norms, dropout of channels."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers.batch_norm import BatchNorm
from vit_jax.models.layers.dropout import dropout
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import LayerNorm
from vit_jax.models.layers.positions.resample import resample_grid

EPSILON = 1e-5


def resized(x: jax.Array, size: tuple[int, ...], antialias: bool = False) -> jax.Array:
    """Return maps `(b, h, w, c)` at another size, bilinear between the centres of pixels."""
    height, width = size
    return jax.vmap(lambda grid: resample_grid(grid, (height, width), "bilinear", antialias))(x)


def head_norm(kind: str, channels: int) -> Any:
    """Return the norm of a head: `batch`, or `layer` over the channels of each place."""
    return nnx.data(BatchNorm(channels, EPSILON) if kind == "batch" else LayerNorm(channels, EPSILON))


def normed(norm: Any, x: jax.Array, training: bool) -> jax.Array:
    """Return a map `(b, h, w, c)` normalised by what `head_norm` returned."""
    return norm(x, training) if isinstance(norm, BatchNorm) else norm(x)


def drop_channels(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Return maps `(b, h, w, c)` with whole channels dropped, of each image others.

    Source: Tompson et al. 2014, arXiv 1411.4280.
    """
    return x * dropout(jnp.ones((x.shape[0], 1, 1, x.shape[-1]), x.dtype), rate, key)


class Conv(Module):
    """Convolution without bias, norm and ReLU; the size stays."""

    def __init__(self, size: int, channels_in: int, channels_out: int, norm: str, *, rngs: nnx.Rngs):
        shape = (size, size, channels_in, channels_out)
        self.kernel = nnx.Param(jax.nn.initializers.lecun_normal()(rngs.params(), shape, jnp.float32))
        self.norm = head_norm(norm, channels_out)

    def __call__(self, x: jax.Array, training: bool = False) -> jax.Array:
        """Return `(b, h, w, o)` for `x` `(b, h, w, i)`."""
        kernel = self.kernel[...].astype(x.dtype)
        x = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return jax.nn.relu(normed(self.norm, x, training))
