"""Activations by name.

GELU (Hendrycks & Gimpel 2016, arXiv 1606.08415) has its derivative written out. Automatic differentiation of its
formula keeps two or three arrays of an MLP's width for the backward pass and takes three times as long on CPUs; so
one array is kept, the derivative, made beside the value. Higher derivatives are those of the formulas here.
"""

import math
from collections.abc import Callable

import jax
import jax.numpy as jnp

Activation = Callable[[jax.Array], jax.Array]


def with_derivative(both: Callable[[jax.Array], tuple[jax.Array, jax.Array]]) -> Activation:
    """Return an activation whose derivative is written out.

    Args:
      both: value and derivative of float32 arrays; whatever comes is computed in float32 and returned in its own dtype.
    """

    @jax.custom_jvp
    def activation(x: jax.Array) -> jax.Array:
        return both(x.astype(jnp.float32))[0].astype(x.dtype)

    @activation.defjvp
    def _(primals: tuple[jax.Array], tangents: tuple[jax.Array]) -> tuple[jax.Array, jax.Array]:
        (x,), (dx,) = primals, tangents
        value, derivative = both(x.astype(jnp.float32))
        return value.astype(x.dtype), dx * derivative.astype(x.dtype)

    return activation


def _gelu(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    # The error function and not its complement: PyTorch's formula, and half of the work. Where the two differ, far
    # below zero, GELU is smaller than the rounding of its neighbours.
    share = 0.5 * (1 + jax.lax.erf(x * math.sqrt(0.5)))
    return x * share, share + x * jnp.exp(-0.5 * jnp.square(x)) / math.sqrt(2 * math.pi)


def _gelu_tanh(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    scale, cubic = math.sqrt(2 / math.pi), 0.044715
    squared = jnp.square(x)
    tanh = jnp.tanh(scale * x * (1 + cubic * squared))
    share = 0.5 * (1 + tanh)
    return x * share, share + 0.5 * x * (1 - jnp.square(tanh)) * scale * (1 + 3 * cubic * squared)


def quick_gelu(x: jax.Array) -> jax.Array:
    """Return `x * sigmoid(1.702 x)`, the activation of OpenAI's CLIP."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS: dict[str, Activation] = {
    "gelu": with_derivative(_gelu),
    "gelu_tanh": with_derivative(_gelu_tanh),
    "quick_gelu": quick_gelu,
    "relu": jax.nn.relu,
    "silu": jax.nn.silu,
}
