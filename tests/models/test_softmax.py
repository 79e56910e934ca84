"""Softmax times values: the formula, its gradients of first and second order, in both dtypes."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.models.layers.kernels.softmax import softmax_matmul


def formula(scores, values):
    return jax.nn.softmax(scores, axis=-1).astype(values.dtype) @ values


def inputs(dtype=jnp.float32, scale=1.0):
    scores, values = (
        jax.random.normal(jax.random.key(0), (2, 3, 7, 9)),
        jax.random.normal(jax.random.key(1), (2, 3, 9, 8)),
    )
    return scale * scores, values.astype(dtype)


def loss(function):
    return lambda scores, values: jnp.sin(function(scores, values).astype(jnp.float32)).sum()


def close(ours, theirs, tolerance):
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        assert (one.shape, one.dtype) == (other.shape, other.dtype)
        one, other = np.asarray(one, np.float64), np.asarray(other, np.float64)
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance * np.abs(other).max())


@pytest.mark.parametrize(
    ("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.bfloat16, 2**-7)], ids=["float32", "bfloat16"]
)
def test_it_is_the_formula_with_its_gradients(dtype, tolerance):
    given = inputs(dtype)
    close(softmax_matmul(*given), formula(*given), tolerance)
    both = (jax.grad(loss(function), argnums=(0, 1)) for function in (softmax_matmul, formula))
    close(*(gradient(*given) for gradient in both), tolerance)


def test_gradients_of_second_order():
    def turned(function):  # the gradient of a number that the gradient makes
        first = jax.grad(loss(function), argnums=(0, 1))
        return jax.grad(lambda *given: sum(jnp.cos(x).sum() for x in first(*given)), argnums=(0, 1))

    close(turned(softmax_matmul)(*inputs()), turned(formula)(*inputs()), 2e-6)


def test_where_one_weight_is_all_the_gradient_of_scores_is_zero():
    scores, values = inputs(scale=1e4)
    gradient = jax.grad(loss(softmax_matmul))(scores, values)
    np.testing.assert_array_equal(gradient, 0)


def test_a_row_without_any_key_is_the_mean():
    scores, values = inputs()
    scores = jnp.full_like(scores, jnp.finfo(jnp.float32).min)
    close(softmax_matmul(scores, values), jnp.broadcast_to(values.mean(2, keepdims=True), (2, 3, 7, 8)), 1e-6)


def test_forward_mode_is_an_error():
    with pytest.raises(TypeError, match="custom_vjp"):
        jax.jvp(softmax_matmul, inputs(), inputs())
