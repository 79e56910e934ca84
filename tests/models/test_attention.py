"""Explicit attention against JAX's own, its weights and its dropout."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import TINY, parameters, pixels, run, tiny
from vit_jax.models.layers.attention import attention


def qkv(queries=7, keys=7, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    shapes = ((2, queries, 3, 8), (2, keys, 3, 8), (2, keys, 3, 8))
    return [jnp.asarray(rng.standard_normal(shape), dtype) for shape in shapes]


@pytest.mark.parametrize(("queries", "keys"), [(7, 7), (1, 9)])
def test_explicit_is_the_same_as_xla_with_its_gradients(queries, keys):
    inputs = qkv(queries, keys)
    explicit, weights = attention(*inputs, implementation="explicit")
    fused, none = attention(*inputs, implementation="xla")
    assert weights is None
    assert none is None
    np.testing.assert_allclose(explicit, fused, rtol=0, atol=1e-6)

    def gradient(implementation):
        def loss(*inputs):
            return jnp.sin(attention(*inputs, implementation=implementation)[0]).sum()

        return jax.jit(jax.grad(loss, argnums=(0, 1, 2)))(*inputs)

    for one, other in zip(gradient("explicit"), gradient("xla")):
        np.testing.assert_allclose(one, other, rtol=0, atol=1e-6)


def test_explicit_is_the_formula_in_float64():
    q, k, v = (np.asarray(x, np.float64) for x in qkv(4, 6))
    scores = np.einsum("bnhk,bmhk->bhnm", q, k) / np.sqrt(8)
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    expected = np.einsum("bhnm,bmhk->bnhk", weights, v)
    ours, our_weights = attention(*qkv(4, 6), implementation="explicit", return_weights=True)
    np.testing.assert_allclose(ours, expected, rtol=0, atol=1e-6)
    np.testing.assert_allclose(our_weights, weights, rtol=0, atol=1e-6)


@pytest.mark.parametrize("implementation", ["auto", "explicit", "xla", "cudnn"])
def test_weights_come_whatever_the_implementation_and_their_rows_sum_to_one(implementation):
    out, weights = attention(*qkv(4, 6), implementation=implementation, return_weights=True)
    assert weights.shape == (2, 3, 4, 6)
    assert (np.asarray(weights) >= 0).all()
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)
    np.testing.assert_allclose(out, attention(*qkv(4, 6), implementation="explicit")[0], atol=1e-6)


def test_softmax_is_float32_for_bfloat16():
    inputs = qkv(dtype=jnp.bfloat16)
    ours, weights = attention(*inputs, implementation="explicit", return_weights=True)
    exact, _ = attention(*(x.astype(jnp.float32) for x in inputs), implementation="explicit")
    assert ours.dtype == weights.dtype == jnp.bfloat16
    np.testing.assert_allclose(ours.astype(jnp.float32), exact, atol=2**-6 * np.abs(exact).max())
    np.testing.assert_allclose(weights.astype(jnp.float32).sum(-1), 1, atol=2**-8 * 2)


def test_scores_of_any_size_give_finite_weights():
    q, k, v = qkv()
    out, weights = attention(1e4 * q, k, v, implementation="explicit", return_weights=True)
    assert np.isfinite(out).all()
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)


@pytest.mark.parametrize("implementation", ["auto", "explicit", "xla"])
def test_dropout_only_with_a_key(implementation):
    inputs = qkv(32, 32)
    plain, _ = attention(*inputs, implementation=implementation)
    without_key, _ = attention(*inputs, implementation=implementation, dropout_rate=0.5)
    np.testing.assert_array_equal(plain, without_key)
    key = jax.random.key(0)
    no_rate, _ = attention(*inputs, implementation=implementation, key=key)
    np.testing.assert_array_equal(plain, no_rate)
    dropped, weights = attention(
        *inputs, implementation=implementation, dropout_rate=0.5, key=key, return_weights=True
    )
    assert np.abs(dropped - plain).max() > 0.1
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)  # weights are those before dropout
    again, _ = attention(*inputs, implementation=implementation, dropout_rate=0.5, key=key)
    np.testing.assert_array_equal(dropped, again)


def test_dropout_of_weights_keeps_the_expectation():
    q, k, v = qkv(4, 6)
    expected, _ = attention(q, k, v)
    keys = jax.random.split(jax.random.key(0), 4000)
    sample = jax.jit(jax.vmap(lambda key: attention(q, k, v, dropout_rate=0.3, key=key)[0]))
    samples = sample(keys)
    error = samples.std(axis=0) / np.sqrt(len(keys))
    assert (np.abs(samples.mean(axis=0) - expected) < 5 * error + 1e-5).all()


def around(queries=7, keys=7):
    rng = np.random.default_rng(1)
    bias = jnp.asarray(rng.standard_normal((3, queries, keys)), jnp.float32)
    mask = rng.random((2, 1, queries, keys)) < 0.6
    mask[..., 0] = True  # every query sees a key
    return bias, jnp.asarray(mask)


@pytest.mark.parametrize("implementation", ["explicit", "xla", "cudnn"])
def test_bias_and_mask_are_the_formula_with_its_gradients(implementation):
    bias, mask = around()

    def formula(q, k, v, bias):
        scores = jnp.einsum("bnhk,bmhk->bhnm", q, k) / np.sqrt(8) + bias
        weights = jnp.where(mask, jnp.exp(scores), 0)
        weights = weights / weights.sum(-1, keepdims=True)
        return jnp.einsum("bhnm,bmhk->bnhk", weights, v)

    def ours(q, k, v, bias):
        return attention(q, k, v, bias=bias, mask=mask, implementation=implementation)[0]

    def value_and_gradients(function):
        def loss(*inputs):
            out = function(*inputs)
            return jnp.sin(out).sum(), out

        return jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2, 3), has_aux=True))(*qkv(), bias)

    for one, other in zip(*(jax.tree.leaves(value_and_gradients(f)) for f in (ours, formula))):
        np.testing.assert_allclose(one, other, rtol=2e-6, atol=3e-6)


@pytest.mark.parametrize("implementation", ["explicit", "xla"])
def test_masked_keys_have_no_influence_and_no_gradient(implementation):
    q, k, v = qkv()
    seen = jnp.arange(7) < 4
    mask = seen[None, None, None, :]

    @jax.jit
    def both(k, v):
        def loss(k, v):
            out, _ = attention(q, k, v, mask=mask, implementation=implementation)
            return jnp.sin(out).sum(), out

        return jax.grad(loss, argnums=(0, 1), has_aux=True)(k, v)

    gradients, out = both(k, v)
    _, other = both(*(jnp.where(seen[:, None, None], x, 100.0) for x in (k, v)))
    np.testing.assert_array_equal(out, other)
    np.testing.assert_allclose(out, attention(q, k[:, :4], v[:, :4])[0], atol=1e-6)
    for gradient in gradients:
        assert not np.asarray(gradient[:, 4:]).any()
        assert np.abs(gradient[:, :4]).min() > 0


def test_weights_of_masked_keys_are_zero():
    bias, mask = around()
    _, weights = attention(*qkv(), bias=bias, mask=mask, return_weights=True)
    assert not np.asarray(jnp.where(mask, 0, weights)).any()
    np.testing.assert_allclose(weights.sum(-1), 1, rtol=1e-6)


def test_keys_without_bias_are_keys_of_bias_zero():
    config = tiny(k_bias=False)
    params = parameters(config)
    bias = params["blocks"]["attn"]["qkv"]["bias"]
    assert bias.shape == (2, 2, 2, 16)
    wide = {**params["blocks"]["attn"]["qkv"], "bias": jnp.insert(bias, 1, 0.0, axis=1)}
    blocks = {**params["blocks"], "attn": {**params["blocks"]["attn"], "qkv": wide}}
    np.testing.assert_array_equal(
        run(config, pixels()), run(TINY, pixels(), params={**params, "blocks": blocks})
    )


@pytest.fixture
def gpu(monkeypatch):
    """Attention that believes to run on a GPU; what it was asked for, by implementation and numbers of tokens."""
    asked, real = [], jax.nn.dot_product_attention

    def attend(q, k, v, *others, implementation, **lengths):
        asked.append((implementation, q.shape[1], k.shape[1]))
        # In float32: jax's own form mixes dtypes, which is not allowed in these tests.
        given = jax.tree.map(lambda x: x.astype(jnp.float32), (q, k, v, *others))
        return real(*given, implementation="xla", **lengths).astype(q.dtype)

    monkeypatch.setattr("vit_jax.models.layers.attention.platform", lambda: "gpu")
    monkeypatch.setattr(jax.nn, "dot_product_attention", attend)
    return asked


@pytest.mark.parametrize(
    ("dtype", "tokens", "asked"),
    [
        (jnp.bfloat16, (4, 6), ("cudnn", 4, 6)),
        (jnp.float32, (4, 6), ("xla", 4, 6)),
        # cuDNN's gradient is not offered for odd numbers of tokens, such as 14 x 14 + 1.
        (jnp.bfloat16, (5, 5), ("cudnn", 6, 6)),
        (jnp.bfloat16, (4, 5), ("cudnn", 4, 6)),
    ],
)
def test_gpus_get_cudnn_where_its_gradient_exists(gpu, dtype, tokens, asked):
    out, _ = attention(*qkv(*tokens, dtype=dtype))
    assert out.shape[1] == tokens[0]
    assert gpu == [asked]
    attention(*qkv(*tokens, dtype=dtype), bias=jnp.zeros((1, *tokens)))
    assert gpu[1:] == [("xla", *tokens)]


@pytest.mark.parametrize("tokens", [(5, 5), (4, 5), (5, 4)])
def test_what_is_padded_for_cudnn_is_the_formula_with_its_gradients(gpu, tokens):
    inputs = qkv(*tokens)

    def both(implementation):
        out, back = jax.vjp(lambda *x: attention(*x, implementation=implementation)[0], *inputs)
        return out, *back(jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape))

    for ours, expected in zip(both("cudnn"), both("explicit")):
        np.testing.assert_allclose(ours, expected, rtol=0, atol=2e-6)
    assert gpu == [("cudnn", tokens[0] + tokens[0] % 2, tokens[1] + tokens[1] % 2)]
