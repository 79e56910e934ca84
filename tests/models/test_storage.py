"""Parameters in fewer bytes: what they take, how far results move, and that layers see no difference."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import functions, randomised, tiny
from vit_jax.errors import ConfigError
from vit_jax.models.storage import Int8Kernel, stored
from vit_jax.trees import flatten

CONFIGS = {
    "plain": tiny(),
    "gated": tiny(mlp="swiglu", mlp_norm=True, qk_norm=True),
    "pooling head": tiny(pool="map", class_token=False),
}


def images(count=2, size=16):
    return jnp.asarray(np.random.default_rng(3).normal(size=(count, size, size, 3)), jnp.float32)


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize(("storage", "close"), [("float32", 0), ("bfloat16", 0.02), ("int8", 0.04)])
def test_results_move_by_the_rounding_alone(name, storage, close):
    model = functions(CONFIGS[name])
    params = randomised(model.abstract)
    expected = jax.jit(model.apply)(params, images())
    result = jax.jit(model.apply)(stored(params, storage), images())
    moved = np.abs(result - expected).max() / np.abs(expected).max()
    assert moved <= close
    assert (moved > 0) == (storage != "float32")


def test_int8_keeps_every_value_within_half_a_level():
    params = flatten(randomised(functions(CONFIGS["gated"]).abstract))
    for path, leaf in flatten(stored(params, "int8"), lambda x: isinstance(x, Int8Kernel)).items():
        if not isinstance(leaf, Int8Kernel):
            assert leaf is params[path]
            continue
        assert (leaf.values.dtype, leaf.shape) == (jnp.int8, params[path].shape)
        error = np.abs(leaf.astype(jnp.float32) - params[path])
        assert np.all(error <= np.broadcast_to(leaf.scales, leaf.shape) * 0.5001)
        # A scale of its own for every output: all levels are used by each.
        axes = tuple(axis for axis, size in enumerate(leaf.scales.shape) if size == 1)
        assert np.abs(leaf.values).max(axis=axes).min() == 127


def test_an_output_without_weights_stays_zero():
    kernel = jnp.zeros((1, 4, 3)).at[..., 0].set(2.0)
    leaf = stored({"blocks": {"mlp": {"fc1": {"kernel": kernel}}}}, "int8")["blocks"]["mlp"]["fc1"]["kernel"]
    np.testing.assert_array_equal(leaf.astype(jnp.float32), kernel)


def test_bytes():
    config = tiny(width=64, mlp_dim=256, depth=4)
    params = randomised(functions(config).abstract)
    whole, half, quarter = (
        sum(leaf.nbytes for leaf in jax.tree.leaves(stored(params, storage)))
        for storage in ("float32", "bfloat16", "int8")
    )
    assert half < 0.53 * whole
    assert quarter < 0.32 * whole  # of such narrow blocks the embedding is a larger part than of real ones


def test_there_are_three():
    with pytest.raises(
        ConfigError, match=r"^storage of parameters is 'int4'; it must be one of float32, bfloat16, int8"
    ):
        stored({}, "int4")
