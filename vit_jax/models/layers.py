"""Building blocks: dense, norms, MLPs, dropout. Pure functions, and modules that only hold parameters.

Parameters are float32; every layer computes in the dtype of its input. Letters: `b` batch, `n` tokens,
`d` width, `m` MLP hidden width.
"""

import math

import jax
import jax.numpy as jnp
from flax import nnx

from vit_jax.models.activations import ACTIVATIONS
from vit_jax.models.encoder_config import EncoderConfig
from vit_jax.models.placement import platform


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


def dropout(x: jax.Array, rate: float, key: jax.Array | None) -> jax.Array:
    """Return `x` with elements zeroed at `rate` and the rest scaled up; `x` itself when `key` is None."""
    if key is None or rate == 0:
        return x
    keep = jax.random.bernoulli(key, 1 - rate, x.shape)
    return jnp.where(keep, x / (1 - rate), jnp.zeros_like(x))


def drop_path(x: jax.Array, rate: jax.Array | float, key: jax.Array | None) -> jax.Array:
    """Return a residual branch dropped for whole examples (Huang et al. 2016, arXiv 1603.09382).

    Args:
      x: `(b, ...)` output of the branch.
      rate: probability of dropping; may be traced.
      key: None for evaluation.
    """
    if key is None:
        return x
    keep_rate = jnp.float32(1) - rate
    keep = jax.random.bernoulli(key, keep_rate, (x.shape[0],) + (1,) * (x.ndim - 1))
    return x * (keep.astype(jnp.float32) / keep_rate).astype(x.dtype)


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


class Dense(nnx.Module):
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


class LayerNorm(nnx.Module):
    """Layer normalisation over the last axis of width `d`."""

    def __init__(self, width: int, epsilon: float):
        self.epsilon = epsilon
        self.scale = nnx.Param(jnp.ones((width,)))
        self.bias = nnx.Param(jnp.zeros((width,)))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `x` `(..., d)` normalised."""
        return layer_norm(x, self.scale[...], self.bias[...], self.epsilon)


class LayerScale(nnx.Module):
    """Per-channel scale of a residual branch (Touvron et al. 2021, arXiv 2103.17239)."""

    def __init__(self, width: int, initial: float):
        self.gamma = nnx.Param(jnp.full((width,), initial, jnp.float32))

    def __call__(self, x: jax.Array) -> jax.Array:
        """Return `x` `(..., d)` scaled."""
        return x * spread(self.gamma[...], x)


class Mlp(nnx.Module):
    """Two dense layers with an activation between them."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        # vision_transformer and big_vision start the biases at N(0, 1e-6); others at zero.
        bias_std = 1e-6 if config.init == "jax" else 0.0
        width, hidden = (config.width,), (config.mlp_dim,)
        self.fc1 = Dense(width, hidden, scheme=config.init, bias_std=bias_std, rngs=rngs)
        self.norm = LayerNorm(config.mlp_dim, config.norm_epsilon) if config.mlp_norm else None
        self.fc2 = Dense(hidden, width, scheme=config.init, bias_std=bias_std, rngs=rngs)

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """Return the MLP of `x` `(b, n, d)`; `key` is for dropout between the layers."""
        x = dropout(ACTIVATIONS[self.config.activation](self.fc1(x)), self.config.dropout_rate, key)
        return self.fc2(x if self.norm is None else self.norm(x))


class SwiGlu(nnx.Module):
    """Gated MLP: `down(silu(gate(x)) * up(x))` (Shazeer 2020, arXiv 2002.05202)."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        d, m = config.width, config.mlp_dim
        self.gate_up = Dense((d,), (2, m), scheme=config.init, fan_out=m, rngs=rngs)
        self.norm = LayerNorm(m, config.norm_epsilon) if config.mlp_norm else None
        self.down = Dense((m,), (d,), scheme=config.init, rngs=rngs)

    def __call__(self, x: jax.Array, key: jax.Array | None) -> jax.Array:
        """Return the MLP of `x` `(b, n, d)`; `key` is for dropout before the last layer."""
        gate_up = self.gate_up(x)
        x = jax.nn.silu(gate_up[..., 0, :]) * gate_up[..., 1, :]
        x = dropout(x, self.config.dropout_rate, key)
        return self.down(x if self.norm is None else self.norm(x))


MLPS = {"mlp": Mlp, "swiglu": SwiGlu}
