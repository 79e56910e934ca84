"""The projection head of DINO scores directions: lengths of weights and of hidden vectors do not count."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import functions, parameters
from vit_jax.errors import ConfigError
from vit_jax.models.heads.dino.config import DinoHeadConfig
from vit_jax.models.layers.norm import unit

HEAD = DinoHeadConfig(input_dim=8, hidden_dim=12, bottleneck_dim=6, output_dim=10)
FEATURES = jnp.asarray(np.random.default_rng(0).standard_normal((5, 8)), jnp.float32)


def test_scores_are_cosines_times_the_prototypes_lengths():
    params = parameters(HEAD)
    kernel, scale = (params["prototypes"][name] for name in ("kernel", "scale"))
    one = params | {"prototypes": {"kernel": kernel, "scale": jnp.ones_like(scale)}}
    longer = params | {"prototypes": {"kernel": 7 * kernel, "scale": scale}}
    apply = jax.jit(functions(HEAD).apply)
    cosines = apply(one, FEATURES)
    assert jnp.abs(cosines).max() <= 1 + 1e-6
    np.testing.assert_allclose(apply(params, FEATURES), cosines * scale, atol=1e-6)
    np.testing.assert_allclose(apply(longer, FEATURES), cosines * scale, atol=1e-6)


def test_a_zero_vector_stays_zero_and_has_a_finite_gradient():
    value, gradient = jax.value_and_grad(lambda x: unit(x).sum())(jnp.zeros(4))
    assert value == 0
    assert jnp.isfinite(gradient).all()


def test_fresh_prototypes_have_length_one():
    params = functions(HEAD).init(jax.random.key(0))
    np.testing.assert_array_equal(params["prototypes"]["scale"], 1)
    assert jnp.ptp(params["prototypes"]["kernel"]) > 0


def test_sizes_are_checked():
    with pytest.raises(ConfigError, match="bottleneck_dim is 0; it must be at least 1"):
        DinoHeadConfig(bottleneck_dim=0)
