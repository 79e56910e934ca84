import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from vit_jax.models.functional import functions
from vit_jax.models.layers.batch_norm import BatchNorm, put_statistics, take_statistics
from vit_jax.models.layers.module import Module

KEY = jax.random.key(0)
X = np.random.default_rng(0).normal(3, 2, (8, 4, 4, 3)).astype(np.float32)


class Normalised(Module):
    """A batch norm and two stacked ones."""

    def __init__(self, *, rngs):
        self.first = BatchNorm(3)
        self.blocks = jax.vmap(lambda key: BatchNorm(3, momentum=0.5))(jax.random.split(rngs.params(), 2))

    def __call__(self, x, key=None):
        x = self.first(x, key is not None)

        @jax.checkpoint
        def body(x, block):
            return block(x, key is not None) + jnp.square(x), take_statistics(block)

        x, statistics = jax.lax.scan(body, x, self.blocks)
        put_statistics(self.blocks, statistics)
        return x


FUNCTIONS = functions(Normalised)
STATE = FUNCTIONS.init_state(KEY)


def test_a_batch_is_normalised_and_moves_the_running_statistics_as_in_torch():
    norm = BatchNorm(3)
    out = norm(X, True)
    mean, variance = X.mean((0, 1, 2)), X.var((0, 1, 2))
    np.testing.assert_allclose(out, (X - mean) / np.sqrt(variance + 1e-5), atol=2e-6)
    rows = X.size / 3
    np.testing.assert_allclose(norm.mean[...], 0.1 * mean, rtol=1e-6)
    np.testing.assert_allclose(norm.variance[...], 0.9 + 0.1 * variance * rows / (rows - 1), rtol=1e-6)


@pytest.mark.parametrize(("frozen", "training"), [(False, False), (True, True)])
def test_evaluation_and_frozen_statistics_are_the_running_ones_and_stay(frozen, training):
    norm = BatchNorm(3, frozen=frozen)
    norm.mean[...], norm.variance[...] = jnp.full(3, 2.0), jnp.full(3, 4.0)
    np.testing.assert_allclose(norm(X, training), (X - 2) / np.sqrt(4 + 1e-5), rtol=1e-6)
    assert (norm.mean[...] == 2).all()
    assert (norm.variance[...] == 4).all()


def test_statistics_are_buffers_and_not_parameters():
    params, buffers = STATE
    assert {name: sorted(part) for name, part in params.items()} == {
        name: ["bias", "scale"] for name in buffers
    }
    assert {name: part["mean"].shape for name, part in buffers.items()} == {"first": (3,), "blocks": (2, 3)}
    assert jax.tree.map(jnp.shape, buffers) == jax.tree.map(jnp.shape, FUNCTIONS.abstract_buffers)


def test_under_grad_scan_and_remat_buffers_change_in_training_alone():
    params, buffers = STATE

    def loss(params, key):
        out, new = FUNCTIONS.apply_state(params, buffers, X, key)
        return (out**2).mean(), new

    _, new = jax.jit(jax.grad(loss, has_aux=True))(params, KEY)
    assert jax.tree.structure(new) == jax.tree.structure(buffers)
    assert all((a != b).all() for a, b in zip(jax.tree.leaves(new), jax.tree.leaves(buffers)))
    second = np.asarray(FUNCTIONS.bind(params, new)(X))
    assert np.isfinite(second).all()
    _, same = jax.grad(loss, has_aux=True)(params, None)
    assert all((a == b).all() for a, b in zip(jax.tree.leaves(same), jax.tree.leaves(buffers)))


def test_statistics_are_those_of_the_batch_over_all_devices():
    params, buffers = STATE
    run = jax.jit(FUNCTIONS.apply_state)
    out, new = run(params, buffers, X, KEY)
    mesh = jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    divided = jax.device_put(X, NamedSharding(mesh, PartitionSpec("data")))
    sharded, other = run(params, buffers, divided, KEY)
    np.testing.assert_allclose(sharded, out, rtol=1e-4, atol=1e-5)
    for one, two in zip(jax.tree.leaves(new), jax.tree.leaves(other)):
        np.testing.assert_allclose(two, one, rtol=1e-5, atol=1e-6)  # a mean of what is normalised is 0
