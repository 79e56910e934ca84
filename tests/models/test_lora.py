"""Low-rank factors: merged weights by hand, a start that changes nothing, what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import functions, parameters, pixels, randomised, tiny
from vit_jax.errors import ConfigError
from vit_jax.models.layers.lora import Lora
from vit_jax.objectives.adapted import Adapted
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.classification import Classification
from vit_jax.objectives.classification.options import ClassificationOptions
from vit_jax.trees import flatten, unflatten

CONFIG = tiny()
EVERY = Lora(3, 12.0, ("query", "key", "value", "out", "mlp"))


def adapted(lora, config=CONFIG, noise=True):
    params = parameters(config)
    factors = lora.init(jax.random.key(0), params)
    return params | {"lora": randomised(factors, seed=1) if noise else factors}


def test_it_starts_as_the_model_it_adapts():
    params = adapted(EVERY, noise=False)
    assert sorted(flatten(params["lora"])) == sorted(
        f"blocks/{layer}/{factor}"
        for layer in ("attn/query", "attn/key", "attn/value", "attn/out", "mlp/fc1", "mlp/fc2")
        for factor in "ab"
    )
    merged, plain = flatten(jax.jit(EVERY.merge)(params)), flatten(parameters(CONFIG))
    assert merged.keys() == plain.keys()
    for path, leaf in plain.items():
        np.testing.assert_array_equal(merged[path], leaf)
    for path, leaf in flatten(params["lora"]).items():
        assert leaf.dtype == jnp.float32
        assert bool(jnp.any(leaf != 0)) == path.endswith("/a")


def test_merged_weights_by_hand():
    params = adapted(EVERY)
    merged, factors = flatten(EVERY.merge(params)), params["lora"]["blocks"]
    for layer in range(CONFIG.depth):
        for index, name in enumerate(("query", "key", "value")):
            a, b = (np.asarray(factors["attn"][name][part][layer], np.float64) for part in "ab")
            expected = parameters(CONFIG)["blocks"]["attn"]["qkv"]["kernel"][layer, :, index]
            expected = expected + 12 / 3 * np.einsum("dr,rhk->dhk", a, b)
            np.testing.assert_allclose(
                merged["blocks/attn/qkv/kernel"][layer, :, index], expected, rtol=1e-5, atol=1e-6
            )
        a, b = (np.asarray(factors["attn"]["out"][part][layer], np.float64) for part in "ab")
        expected = parameters(CONFIG)["blocks"]["attn"]["out"]["kernel"][layer]
        expected = expected + 4 * np.einsum("hkr,rd->hkd", a, b)
        np.testing.assert_allclose(merged["blocks/attn/out/kernel"][layer], expected, rtol=1e-5, atol=1e-6)
        a, b = (np.asarray(factors["mlp"]["fc2"][part][layer], np.float64) for part in "ab")
        expected = parameters(CONFIG)["blocks"]["mlp"]["fc2"]["kernel"][layer] + 4 * a @ b
        np.testing.assert_allclose(merged["blocks/mlp/fc2/kernel"][layer], expected, rtol=1e-5, atol=1e-6)


def test_gated_units_are_layers_of_their_own():
    config = tiny(mlp="swiglu")
    lora = Lora(2, 2.0, ("mlp/up", "mlp/down"))
    params = adapted(lora, config)
    merged, plain = lora.merge(params)["blocks"]["mlp"], parameters(config)["blocks"]["mlp"]
    a, b = (params["lora"]["blocks"]["mlp"]["up"][part] for part in "ab")
    change = merged["gate_up"]["kernel"] - plain["gate_up"]["kernel"]
    np.testing.assert_array_equal(change[:, :, 0], 0)
    np.testing.assert_allclose(change[:, :, 1], jnp.einsum("ldr,lrm->ldm", a, b), rtol=1e-4, atol=1e-5)
    assert bool(jnp.any(merged["down"]["kernel"] != plain["down"]["kernel"]))


def objective(lora):
    plain = Classification(CONFIG, ClassificationOptions(), DataInfo(5))
    return plain, Adapted(plain, lora)


def test_the_objective_is_that_of_the_merged_model():
    lora = Lora(2, 8.0, ("query", "value"))
    plain, wrapped = objective(lora)
    params = adapted(lora)
    images = pixels(2)
    batch = {"image": images, "target": jax.nn.one_hot(jnp.asarray([1, 3]), 5)}
    ours, _ = jax.jit(wrapped.loss)(params, {}, batch, jax.random.key(0))
    expected, _ = jax.jit(plain.loss)(jax.jit(lora.merge)(params), {}, batch, jax.random.key(0))
    unchanged, _ = jax.jit(plain.loss)(parameters(CONFIG), {}, batch, jax.random.key(0))
    np.testing.assert_allclose(ours, expected, rtol=1e-6)
    assert abs(float(ours - unchanged)) > 1e-4
    gradients = flatten(jax.jit(jax.grad(lambda p: wrapped.loss(p, {}, batch, jax.random.key(0))[0]))(params))
    for path, leaf in gradients.items():
        assert leaf.dtype == jnp.float32
        if path.startswith("lora/"):
            assert bool(jnp.all(jnp.any(leaf != 0, axis=tuple(range(1, leaf.ndim))))), path  # in every block


def test_fresh_parameters_have_factors_of_their_own_randomness():
    lora = Lora(2, 8.0, ("query", "value"))
    wrapped = objective(lora)[1]
    params, buffers = jax.jit(wrapped.init)(jax.random.key(0))
    assert buffers == {}
    assert params.keys() == parameters(CONFIG).keys() | {"lora"}
    query, value = (params["lora"]["blocks"]["attn"][name]["a"] for name in ("query", "value"))
    assert query.shape == (CONFIG.depth, CONFIG.width, 2)
    assert bool(jnp.all(jnp.abs(query) <= CONFIG.width**-0.5))
    assert bool(jnp.any(query != value))
    assert wrapped.network == wrapped.model == CONFIG


def test_what_is_refused():
    params = parameters(CONFIG)
    with pytest.raises(
        ConfigError, match=r"lora.targets has 'querry', which matches no layer.*Did you mean 'query'"
    ):
        Lora(4, 16.0, ("querry",)).init(jax.random.key(0), params)
    with pytest.raises(
        ConfigError, match=r"lora.rank is 33, more than blocks/attn/query has: it maps 32 to 32"
    ):
        Lora(33, 16.0, ("query",)).init(jax.random.key(0), params)
    assert Lora(32, 16.0, ("query",)).init(jax.random.key(0), params)
    only_head = unflatten({path: leaf for path, leaf in flatten(params).items() if path.startswith("head")})
    with pytest.raises(ConfigError, match="matches no layer"):
        Lora(4, 16.0, ("query",)).init(jax.random.key(0), only_head)


def test_adapted_model_runs_in_the_compute_dtype():
    config = tiny(dtype="bfloat16")
    params = adapted(EVERY, config)
    run = jax.jit(lambda p, x: functions(config).apply(EVERY.merge(p), x))
    assert bool(jnp.isfinite(run(params, pixels(2))).all())
