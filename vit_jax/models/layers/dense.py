"""Affine maps: the function every dense layer goes through, and the module that holds its parameters.

Parameters are float32; every layer computes in the dtype of its input. Letters: `b` batch, `n` tokens, `d` width.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.layers.module import Module
from vit_jax.models.layers.placement import platform


@jax.custom_vjp
def matmul(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Return `x @ kernel` with its weight gradient written as `dot(x, dy)`.

    Automatic differentiation writes it as `transpose(dot(dy, x))`, which XLA's CPU backend runs more slowly, most
    of all in bfloat16 under jax 0.12 (`benchmarks/train_step.py --plain-gradient` measures it). The value is the
    same; forward-mode differentiation through this function raises an error, as for any function with its own
    gradient.

    Args:
      x: `(..., i)`.
      kernel: `(i, o)`, same dtype.
    """
    return x @ kernel


def _matmul_forward(x: jax.Array, kernel: jax.Array) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return x @ kernel, (x, kernel)


def _matmul_backward(saved: tuple[jax.Array, jax.Array], dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    return dy @ kernel.T, _weight_gradient(x, dy)


def _weight_gradient(x: jax.Array, dy: jax.Array) -> jax.Array:
    """Return the sum over rows of `x` `(..., i)` times `dy` `(..., o)`, written as is fastest on the platform."""
    if platform() == "cpu":
        # Over several axes of rows, the sum becomes one over a transposed copy, which takes longer than the sum.
        x, dy = (rows.reshape(-1, rows.shape[-1]) for rows in (x, dy))
    rows = tuple(range(x.ndim - 1))
    if platform() != "tpu":
        return jax.lax.dot_general(x, dy, ((rows, rows), ((), ())))
    # The longer side first: it is the one that is divided, and along columns the compiler divides some sums late. The
    # barrier is against fusion with the reshape to heads, which is written in tiles of few values, more slowly.
    turned = dy.shape[-1] > x.shape[-1]
    first, second = (dy, x) if turned else (x, dy)
    product = jax.lax.optimization_barrier(jax.lax.dot_general(first, second, ((rows, rows), ((), ()))))
    return product.T if turned else product


matmul.defvjp(_matmul_forward, _matmul_backward)


def spread(parameter: jax.Array, x: jax.Array) -> jax.Array:
    """Return a float32 parameter in the shape and dtype of `x`, to be added or multiplied.

    Its gradient is a sum over all rows. In this order, broadcast then cast, that sum is made in float32; made in
    bfloat16, it stops growing after some hundred rows.

    Args:
      parameter: shape of the last axes of `x`.
      x: `(..., *shape)`.
    """
    return jnp.broadcast_to(parameter, x.shape).astype(x.dtype)


def sum_of_rows(x: jax.Array) -> jax.Array:
    """Return the float32 sum of `x` `(..., d)` over all axes but the last: what biases' gradients are.

    On TPUs a product with ones: adding up rows takes six times as long there as multiplying them (docs/plans.md).
    """
    rows = tuple(range(x.ndim - 1))
    if platform() != "tpu" or x.dtype != jnp.bfloat16:
        return x.sum(rows, dtype=jnp.float32)
    # Eight rows of ones, all alike, and hidden: a product with one known row would be made a sum again.
    ones = jax.lax.optimization_barrier(jnp.ones((8, *x.shape[:-1]), x.dtype))
    both = (tuple(range(1, x.ndim)), rows)
    sums = jax.lax.dot_general(ones, x, (both, ((), ())), preferred_element_type=jnp.float32)
    # Taking a row and dividing it over devices at once is more than the compiler can do.
    return jax.lax.optimization_barrier(sums)[0]


@jax.custom_vjp
def add_bias(x: jax.Array, bias: jax.Array) -> jax.Array:
    """Return `x + bias` in the dtype of `x`; the gradient of `bias` is summed in float32.

    Args:
      x: `(..., d)`.
      bias: `(d,)`, float32.
    """
    return x + bias.astype(x.dtype)


def _add_bias_forward(x: jax.Array, bias: jax.Array) -> tuple[jax.Array, None]:
    return x + bias.astype(x.dtype), None


def _add_bias_backward(_: None, dy: jax.Array) -> tuple[jax.Array, jax.Array]:
    return dy, sum_of_rows(dy)


add_bias.defvjp(_add_bias_forward, _add_bias_backward)


def dense(x: jax.Array, kernel: jax.Array, bias: jax.Array | None = None, inputs: int = 1) -> jax.Array:
    """Return an affine map of the last axes of `x`; every dense layer of the library goes through here.

    Args:
      x: `(..., *in)`; its dtype is the compute dtype.
      kernel: `(*in, *out)`, float32.
      bias: `(*out)`, float32, or None.
      inputs: how many leading axes of `kernel` are summed over.

    Returns:
      `(..., *out)`.
    """
    in_shape, out_shape = kernel.shape[:inputs], kernel.shape[inputs:]
    rows = x.shape[: x.ndim - inputs]
    flat = matmul(
        x.reshape(*rows, math.prod(in_shape)),
        kernel.astype(x.dtype).reshape(math.prod(in_shape), math.prod(out_shape)),
    )
    if bias is not None:
        flat = add_bias(flat, bias.reshape(-1))
    return flat.reshape(*rows, *out_shape)


def initial_kernel(
    scheme: str, key: jax.Array, shape: tuple[int, ...], fan_in: int, fan_out: int
) -> jax.Array:
    """Return a float32 kernel: `jax` (Xavier uniform, Glorot & Bengio 2010), `trunc_normal` (0.02) or `zeros`."""
    if scheme == "zeros":
        return jnp.zeros(shape, jnp.float32)
    if scheme == "trunc_normal":
        # torch truncates at +-2 absolute, a hundred deviations: effectively not at all.
        return 0.02 * jax.random.normal(key, shape, jnp.float32)
    limit = math.sqrt(6 / (fan_in + fan_out))
    return jax.random.uniform(key, shape, jnp.float32, -limit, limit)


def value_of(param: nnx.Param | None) -> jax.Array | None:
    """Return the array of a parameter, or None where a model does without it."""
    return None if param is None else param[...]


class Dense(Module):
    """Affine map with a kernel of shape `(*in_shape, *out_shape)`.

    Args:
      in_shape, out_shape: axes summed over, and axes made.
      use_bias: whether there is a bias.
      scheme: initialisation, see `initial_kernel`.
      fan_out: outputs counted as one matrix, when several are stored together (query, key, value).
      bias_std: deviation of the initial bias.
      rngs: source of the keys.
    """

    def __init__(
        self,
        in_shape: tuple[int, ...],
        out_shape: tuple[int, ...],
        *,
        use_bias: bool = True,
        scheme: str = "jax",
        fan_out: int | None = None,
        bias_std: float = 0.0,
        rngs: nnx.Rngs,
    ):
        fan_in, shape = math.prod(in_shape), (*in_shape, *out_shape)
        self.inputs = len(in_shape)
        self.kernel = nnx.Param(
            initial_kernel(scheme, rngs.params(), shape, fan_in, fan_out or math.prod(out_shape))
        )
        noise = bias_std * jax.random.normal(rngs.params(), out_shape, jnp.float32) if bias_std else None
        self.bias = nnx.Param(jnp.zeros(out_shape) if noise is None else noise) if use_bias else None

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return the map of `x` `(..., *in_shape)`: `(..., *out_shape)`."""
        return dense(x, self.kernel[...], self.full_bias(), self.inputs)

    def full_bias(self) -> jax.Array | None:
        """Return the bias `(*out_shape)` or None."""
        return value_of(self.bias)
