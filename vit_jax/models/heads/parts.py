"""What dense heads share: sizes of maps, convolutions with their norms, dropout of channels."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from vit_jax.models.layers.batch_norm import BatchNorm
from vit_jax.models.layers.dense import dense, spread
from vit_jax.models.layers.dropout import dropout
from vit_jax.models.layers.module import Module
from vit_jax.models.layers.norm import LayerNorm
from vit_jax.models.layers.positions.resample import resample_grid

EPSILON = 1e-5


def resized(x: jax.Array, size: tuple[int, ...], antialias: bool = False) -> jax.Array:
    """Return maps `(b, h, w, c)` at another size, bilinear between the centres of pixels."""
    height, width = size
    return jax.vmap(lambda grid: resample_grid(grid, (height, width), "bilinear", antialias))(x)


def stretched(x: jax.Array, size: tuple[int, ...]) -> jax.Array:
    """Return maps `(b, h, w, c)` at another size, bilinear between the outermost pixels, which stay outermost."""
    down, across = (
        jnp.asarray(_between_corners(n_in, n_out), x.dtype) for n_in, n_out in zip(x.shape[1:3], size)
    )
    return jnp.einsum("Hh,bhwc,Ww->bHWc", down, x, across, precision=jax.lax.Precision.HIGHEST)


def _between_corners(n_in: int, n_out: int) -> np.ndarray:
    """Return weights `(n_out, n_in)` of values at even distances from the first to the last of the given ones."""
    places = np.linspace(0, n_in - 1, n_out) if n_out > 1 else np.zeros(1)
    first = np.minimum(places.astype(int), max(n_in - 2, 0))
    weights = np.zeros((n_out, n_in), np.float32)
    rows, share = np.arange(n_out), places - first
    weights[rows, first] = 1 - share
    if n_in > 1:
        weights[rows, first + 1] = share
    return weights


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


class Larger(Module):
    """Each place becomes several: a transposed convolution whose stride is its size."""

    def __init__(self, channels: int, times: int, *, rngs: nnx.Rngs):
        shape = (channels, times, times, channels)
        initial = jax.nn.initializers.lecun_normal(in_axis=0, out_axis=3)
        self.kernel = nnx.Param(initial(rngs.params(), shape, jnp.float32))
        self.bias = nnx.Param(jnp.zeros((channels,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `(b, times h, times w, c)` of `x` `(b, h, w, c)`."""
        (b, h, w, c), times = x.shape, self.kernel.shape[1]
        places = dense(x, self.kernel[...]).transpose(0, 1, 3, 2, 4, 5).reshape(b, times * h, times * w, c)
        return places + spread(self.bias[...], places)
