"""Losses of values: right numbers, and means over what is known."""

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.objectives.known import known_mean, split_known
from vit_jax.objectives.regression.losses import absolute_error, huber, squared_error


def test_each_entry_has_its_loss():
    predicted, targets = jnp.asarray([[0.0, 1.0, -3.0]]), jnp.asarray([[0.5, 1.0, 1.0]])
    np.testing.assert_allclose(squared_error(predicted, targets), [[0.25, 0, 16]])
    np.testing.assert_allclose(absolute_error(predicted, targets), [[0.5, 0, 4]])
    np.testing.assert_allclose(huber(predicted, targets, 2.0), [[0.125, 0, 2 * (4 - 1)]])
    # Both pieces of Huber's meet, with their slopes.
    both = jax.vmap(jax.value_and_grad(lambda x: huber(x, jnp.zeros(()), 2.0)))(jnp.asarray([2.0, 2.00001]))
    np.testing.assert_allclose(both[0], [2, 2], atol=1e-4)
    np.testing.assert_allclose(both[1], [2, 2], atol=1e-4)


def test_means_are_over_the_known_entries():
    targets = jnp.asarray([[1.0, jnp.nan], [jnp.nan, jnp.nan], [3.0, 5.0]])

    def loss(x):
        filled, known = split_known(targets)
        return known_mean(squared_error(x, filled), known)

    (value, weight), gradient = jax.value_and_grad(loss, has_aux=True)(jnp.zeros((3, 2)))
    np.testing.assert_allclose((value, weight), ((1 + 9 + 25) / 3, 3), rtol=1e-6)
    np.testing.assert_allclose(gradient, [[-2 / 3, 0], [0, 0], [-2, -10 / 3]], rtol=1e-6)
    nothing, weight = known_mean(jnp.ones((2, 2)), jnp.zeros((2, 2), bool))
    assert float(nothing) == 0
    assert float(weight) < 1e-6
