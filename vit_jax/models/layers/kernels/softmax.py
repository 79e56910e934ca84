"""Averages of values with softmax weights, the second half of attention."""

import jax
import jax.numpy as jnp


@jax.custom_vjp
def softmax_matmul(scores: jax.Array, values: jax.Array) -> jax.Array:
    """Return `softmax(scores) @ values`, dividing the product by the sum of powers and not each of the powers.

    This and its own gradient make fewer passes over `(n, m)` than automatic differentiation, which divides there and
    keeps float32 weights. The division last is that of FlashAttention (Dao et al. 2022, arXiv 2205.14135, section 3.1);
    its sum over the output for the backward pass is not taken: where a row has one weight, the gradient of the scores
    is zero here, and not a difference of roundings. Forward-mode differentiation raises an error, as for any function
    with its own gradient.

    Args:
      scores: `(b, h, n, m)` float32.
      values: `(b, h, m, k)`, in whose dtype products are computed.

    Returns:
      `(b, h, n, k)` in the dtype of `values`.
    """
    return _forward(scores, values)[0]


_Saved = tuple[jax.Array, jax.Array, jax.Array]


def _forward(scores: jax.Array, values: jax.Array) -> tuple[jax.Array, _Saved]:
    powers = jnp.exp(scores - jax.lax.stop_gradient(scores.max(axis=-1, keepdims=True)))
    total = powers.sum(axis=-1, keepdims=True)
    powers = powers.astype(values.dtype)
    product = jnp.einsum("bhnm,bhmk->bhnk", powers, values).astype(jnp.float32)
    return (product / total).astype(values.dtype), (powers, total, values)


def _backward(saved: _Saved, gradient: jax.Array) -> tuple[jax.Array, jax.Array]:
    powers, total, values = saved
    gradient = (gradient.astype(jnp.float32) / total).astype(values.dtype)
    each = jnp.einsum("bhnk,bhmk->bhnm", gradient, values).astype(jnp.float32)
    wide = powers.astype(jnp.float32)
    common = (wide * each).sum(axis=-1, keepdims=True) / total
    return wide * (each - common), jnp.einsum("bhnm,bhnk->bhmk", powers, gradient)


softmax_matmul.defvjp(_forward, _backward)
