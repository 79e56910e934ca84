"""Text encoders and pairs of towers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import functions, parameters, pixels, tiny
from vit_jax.errors import ConfigError
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.text.config import ImageTextConfig, TextConfig

TEXT = TextConfig(
    width=32,
    depth=2,
    heads=2,
    mlp_dim=64,
    vocab_size=20,
    context_length=8,
    num_classes=6,
    eos_token=17,
    unroll=1,
)
# The end token 17 twice, and after it a higher one.
TOKENS = jnp.asarray([[3, 5, 17, 17, 19, 0, 2, 1], [3, 17, 5, 6, 4, 19, 2, 17]])
CLIP = ImageTextConfig(tiny(num_classes=6, head_bias=False), TEXT)
SIGLIP = ImageTextConfig(
    tiny(class_token=False, pool="map", num_classes=0),
    replace(TEXT, causal=False, pool="last", num_classes=32, head_bias=True),
    logit_bias=True,
)


def encoded(config, tokens):
    model = functions(config).bind(parameters(config))
    return jax.jit(lambda tokens: (model.features(tokens), model(tokens)))(tokens)


@pytest.mark.parametrize(("pool", "places"), [("eos", (2, 1)), ("argmax", (4, 5)), ("last", (7, 7))])
def test_pooling(pool, places):
    config = replace(TEXT, pool=pool)
    features, embedding = encoded(config, TOKENS)
    kernel = parameters(config)["head"]["kernel"]
    assert (features.shape, embedding.shape, embedding.dtype) == ((2, 8, 32), (2, 6), jnp.float32)
    np.testing.assert_allclose(embedding, features[jnp.arange(2), jnp.asarray(places)] @ kernel, atol=2e-6)


@pytest.mark.parametrize("causal", [True, False])
def test_later_tokens_are_seen_only_where_not_causal(causal):
    config = replace(TEXT, causal=causal)
    changed = TOKENS.at[:, 4].set(7)
    one, other = (np.asarray(encoded(config, tokens)[0]) for tokens in (TOKENS, changed))
    differs = np.abs(one - other).max(axis=2) > 1e-5
    np.testing.assert_array_equal(differs, np.broadcast_to(np.arange(8) >= (4 if causal else 0), (2, 8)))


def test_a_causal_text_is_the_same_without_what_follows():
    features, _ = encoded(TEXT, TOKENS)
    np.testing.assert_allclose(encoded(TEXT, TOKENS[:, :5])[0], features[:, :5], atol=2e-6)


def test_dropout_needs_a_key_and_begins_at_the_embedding():
    config = replace(TEXT, dropout_rate=0.5)
    apply, params = jax.jit(functions(config).apply), parameters(config)
    np.testing.assert_allclose(apply(params, TOKENS), encoded(TEXT, TOKENS)[1], atol=1e-6)
    one, other = (apply(params, TOKENS, jax.random.key(seed)) for seed in (0, 1))
    assert np.abs(one - other).max() > 1e-3


@pytest.mark.parametrize("shape", [(2, 9), (8,), ()])
def test_wrong_tokens(shape):
    with pytest.raises(ConfigError, match=r"tokens have shape .*; the model takes \(batch, up to 8\)\.$"):
        functions(TEXT).apply(parameters(TEXT), jnp.zeros(shape, jnp.int32))


@pytest.mark.parametrize(("config", "dtype"), [(CLIP, "float32"), (SIGLIP, "bfloat16")])
def test_similarities(config, dtype):
    towers = [replace(tower, dtype=dtype) for tower in (config.image, config.text)]
    computed = ImageTextConfig(*towers, config.logit_bias)
    params = parameters(config)
    ours = jax.jit(functions(computed).apply)(params, pixels(3), TOKENS)
    assert {part.dtype for part in ours} == {jnp.dtype("float32")}
    assert (ours.logits.shape, ours.image.shape[0], ours.text.shape[0]) == ((3, 2), 3, 2)
    for embedding in (ours.image, ours.text):
        np.testing.assert_allclose(np.linalg.norm(embedding, axis=1), 1, rtol=1e-6)
    bias = params["logit_bias"] if config.logit_bias else 0
    np.testing.assert_allclose(
        ours.logits, np.exp(params["logit_scale"]) * (ours.image @ ours.text.T) + bias, atol=1e-6
    )
    exact = jax.jit(functions(config).apply)(params, pixels(3), TOKENS)
    assert np.abs(ours.logits - exact.logits).max() <= (0 if dtype == "float32" else 0.05)
    image = jax.jit(functions(config.image).apply)(params["image"], pixels(3))
    np.testing.assert_allclose(exact.image, image / np.linalg.norm(image, axis=1, keepdims=True), atol=1e-6)


@pytest.mark.parametrize(("config", "scale", "bias"), [(CLIP, 1 / 0.07, None), (SIGLIP, 10, -10)])
def test_initial_temperature_and_bias(config, scale, bias):
    init = functions(config).init

    @jax.jit
    def scalars(key):
        return {name: value for name, value in init(key).items() if name.startswith("logit")}

    params = scalars(jax.random.key(0))
    np.testing.assert_allclose(jnp.exp(params["logit_scale"]), scale, rtol=1e-6)
    assert ("logit_bias" in params) == (bias is not None)
    assert bias is None or params["logit_bias"] == bias


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(vocab_size=0), "vocab_size is 0; it must be at least 1"),
        (dict(context_length=0), "context_length is 0; it must be at least 1"),
        (dict(context_length="8"), "context_length is '8'; it must be an integer"),
        (dict(causal=1), "causal is 1; it must be True or False"),
        (dict(pool="cls"), "pool is 'cls'; it must be one of eos, argmax, last"),
        (dict(eos_token=-1), "eos_token is -1; it must be 0 or more"),
        (dict(eos_token=20, pool="eos"), "eos_token is 20, but the tokens are 0 to 19; choose"),
        (dict(num_classes=-1), "num_classes is -1; it must be 0 or more"),
        (dict(head_bias="yes"), "head_bias is 'yes'; it must be True or False"),
        (dict(vocabulary=3), "'vocabulary' is not a model option. Did you mean 'vocab_size'"),
    ],
)
def test_wrong_configurations(changes, message):
    with pytest.raises(ConfigError, match=message) as info:
        replace(TEXT, **changes)
    assert "\n" not in str(info.value)


@pytest.mark.parametrize(
    ("image", "text", "bias", "message"),
    [
        (tiny(num_classes=5), TEXT, False, "image tower gives 5 features and the text tower 6; they must be"),
        (tiny(num_classes=0), TEXT, False, "image tower gives 32 features and the text tower 6"),
        (tiny(pool="none", num_classes=6), TEXT, False, "image tower has pool 'none'; choose one with one"),
        ({}, TEXT, False, "image is {}; it must be a ViTConfig"),
        (tiny(), tiny(), False, r"text is ViTConfig.*; it must be a TextConfig"),
        (tiny(num_classes=6), TEXT, 1, "logit_bias is 1; it must be True or False"),
    ],
)
def test_towers_that_do_not_fit(image, text, bias, message):
    with pytest.raises(ConfigError, match=message) as info:
        ImageTextConfig(image, text, bias)
    assert "\n" not in str(info.value)
