"""Dense layers, norms, activations and dropout against plain differentiation, float64 and statistics."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import tiny
from vit_jax.models.layers.activations import ACTIVATIONS
from vit_jax.models.layers.dense import Dense, dense, initial_kernel, matmul, spread, sum_of_rows
from vit_jax.models.layers.dropout import drop_path, dropout
from vit_jax.models.layers.encoder_config import CHOICES
from vit_jax.models.layers.mlp import MLPS
from vit_jax.models.layers.norm import _variance, layer_norm
from vit_jax.models.vit.embedding import with_prefix


def normal(*shape, seed=0, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape), dtype)


def plain_dense(x, kernel, bias, inputs):
    y = jnp.tensordot(x, kernel.astype(x.dtype), inputs)
    return y if bias is None else y + bias.astype(x.dtype)


@pytest.mark.parametrize(
    ("rows", "in_shape", "out_shape"),
    [
        ((3, 4), (6,), (5,)),
        ((3, 4), (6,), (3, 2, 5)),
        ((3, 4), (2, 3), (5,)),
        ((2, 3), (2, 3), (4, 2)),
        ((7,), (6,), (5,)),
        ((), (6,), (5,)),
    ],
)
@pytest.mark.parametrize("with_bias", [True, False])
def test_dense_value_and_gradients_are_plain_ones(rows, in_shape, out_shape, with_bias):
    x, kernel = normal(*rows, *in_shape), normal(*in_shape, *out_shape, seed=1)
    bias = normal(*out_shape, seed=2) if with_bias else None
    cotangent = normal(*rows, *out_shape, seed=3)

    def ours(*arguments):
        return jnp.sum(dense(*arguments, len(in_shape)) * cotangent)

    def plain(*arguments):
        return jnp.sum(plain_dense(*arguments, len(in_shape)) * cotangent)

    arguments = (x, kernel, bias)
    value, expected = dense(*arguments, len(in_shape)), plain_dense(*arguments, len(in_shape))
    assert value.shape == (*rows, *out_shape)
    np.testing.assert_allclose(value, expected, rtol=1e-6, atol=1e-6)
    gradients, expected = (jax.jit(jax.grad(f, argnums=(0, 1, 2)))(*arguments) for f in (ours, plain))
    for one, other in zip(jax.tree.leaves(gradients), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-6, atol=2e-6)


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_gradients_of_parameters():
    x, kernel, bias = normal(4, 8, 16, dtype=jnp.bfloat16), normal(16, 12, seed=1), normal(12, seed=2)
    cotangent = normal(4, 8, 12, seed=3, dtype=jnp.bfloat16)

    def loss(function):
        return lambda *a: jnp.sum((function(*a, 1) * cotangent).astype(jnp.float32))

    assert dense(x, kernel, bias).dtype == jnp.bfloat16
    np.testing.assert_array_equal(dense(x, kernel, bias), plain_dense(x, kernel, bias, 1))
    gradients = jax.jit(jax.grad(loss(dense), argnums=(0, 1, 2)))(x, kernel, bias)
    assert [g.dtype for g in gradients] == [jnp.bfloat16, jnp.float32, jnp.float32]
    wide_x, wide_kernel, dy = (
        np.asarray(a.astype(jnp.bfloat16).astype(jnp.float32), np.float64) for a in (x, kernel, cotangent)
    )
    exact = (dy @ wide_kernel.T, np.einsum("abi,abo->io", wide_x, dy), dy.sum(axis=(0, 1)))
    for ours, expected in zip(gradients, exact, strict=True):
        # Products are rounded to bfloat16 once, at the end.
        ours = np.asarray(ours.astype(jnp.float32), np.float64)
        np.testing.assert_allclose(ours, expected, rtol=2**-8, atol=1e-6)


def test_gradients_of_what_is_broadcast_are_summed_in_float32():
    rows = 4096
    dy = (normal(rows, 3, 8) + 0.5).astype(jnp.bfloat16)
    exact = np.asarray(dy.astype(jnp.float32), np.float64).sum(axis=0)

    def gradient(of):
        return jax.jit(jax.grad(lambda p: jnp.sum((of(p) * dy).astype(jnp.float32))))

    x = jnp.zeros((rows, 3, 8), jnp.bfloat16)
    table = gradient(lambda table: x + spread(table, x))(jnp.zeros((3, 8)))
    np.testing.assert_allclose(table, exact, rtol=1e-5)
    bias = gradient(lambda bias: dense(x, jnp.zeros((8, 8)), bias))(jnp.zeros(8))
    np.testing.assert_allclose(bias, exact.sum(axis=0), rtol=1e-5)
    # A token before the patches, with a position.
    patches, token = jnp.zeros((rows, 2, 8), jnp.bfloat16), jnp.zeros((1, 8))
    first = gradient(lambda token: with_prefix(patches, jnp.zeros((3, 8)), token, None))(token)
    np.testing.assert_allclose(first, exact[:1], rtol=1e-5)


def test_matmul_writes_its_weight_gradient_as_one_product_without_transposing():
    x, kernel = normal(2, 3, 4), normal(4, 5, seed=1)

    def last_operation(function):
        jaxpr = jax.make_jaxpr(jax.grad(lambda k: function(x, k).sum()))(kernel)
        return str(jaxpr.eqns[-1].primitive)

    assert last_operation(lambda x, k: x @ k) == "transpose"
    assert last_operation(matmul) == "dot_general"


@pytest.mark.parametrize(("inputs", "outputs"), [(4, 12), (12, 4), (8, 8)])
@pytest.mark.parametrize("backend", ["gpu", "tpu"])
def test_weight_gradients_are_the_same_on_every_platform(monkeypatch, backend, inputs, outputs):
    x, kernel = normal(2, 3, inputs), normal(inputs, outputs, seed=1)
    dy = normal(2, 3, outputs, seed=2)

    def gradients():
        return jax.jit(lambda x, kernel: jax.vjp(matmul, x, kernel)[1](dy))(x, kernel)

    expected = gradients()
    monkeypatch.setattr("vit_jax.models.layers.dense.platform", lambda: backend)
    for ours, theirs in zip(gradients(), expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-6)


def test_forward_mode_through_matmul_is_refused():
    x, kernel = normal(2, 4), normal(4, 5, seed=1)
    with pytest.raises(TypeError, match="forward-mode autodiff"):
        jax.jvp(lambda k: matmul(x, k), (kernel,), (kernel,))


@pytest.mark.parametrize(("mean", "deviation"), [(0.0, 1.0), (30.0, 1.0), (-30.0, 0.01), (1000.0, 1.0)])
def test_layer_norm_is_that_of_float64(mean, deviation):
    x = (mean + deviation * normal(4, 5, 64)).astype(jnp.float32)
    scale, bias = 1 + 0.1 * normal(64, seed=1), normal(64, seed=2)
    wide = np.asarray(x, np.float64)
    centred = wide - wide.mean(-1, keepdims=True)
    expected = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + 1e-6)
    expected = expected * np.asarray(scale, np.float64) + np.asarray(bias, np.float64)
    # Beside rounding of the result, only the float32 sum of the mean may cost: some units of |mean|.
    limit = 4e-6 + 4 * np.spacing(np.float32(abs(mean))) / deviation
    np.testing.assert_allclose(jax.jit(layer_norm)(x, scale, bias, 1e-6), expected, rtol=0, atol=limit)


def plain_layer_norm(x, scale, bias, epsilon):
    wide = x.astype(jnp.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    variance = jnp.square(centred).mean(-1, keepdims=True)
    return (centred * jax.lax.rsqrt(variance + epsilon) * scale + bias).astype(x.dtype)


@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
def test_the_gradient_of_layer_norm_is_that_of_automatic_differentiation(dtype, offset):
    x, dy = (offset + normal(4, 5, 64)).astype(dtype), normal(4, 5, 64, seed=3).astype(dtype)
    scale, bias = 1 + 0.1 * normal(64, seed=1), normal(64, seed=2)

    @jax.jit
    def gradients(x, scale, bias):
        return tuple(jax.vjp(norm, x, scale, bias, 0.1)[1](dy) for norm in (layer_norm, plain_layer_norm))

    for ours, expected in zip(*gradients(x, scale, bias), strict=True):
        assert ours.dtype == expected.dtype
        ours, expected = (np.asarray(g, np.float64) for g in (ours, expected))
        exactness = 2**-8 if dtype == jnp.bfloat16 and ours.ndim > 1 else 1e-5  # parameters' are float32
        np.testing.assert_allclose(
            ours, expected, rtol=exactness, atol=exactness * 0.1 * np.abs(expected).max()
        )


def test_layer_norm_is_differentiated_twice():
    x, scale, bias, along = (
        normal(3, 16),
        1 + 0.1 * normal(16, seed=1),
        normal(16, seed=2),
        normal(3, 16, seed=4),
    )

    def curvature(norm):
        def slope(x):
            return jnp.vdot(jax.grad(lambda x: jnp.sin(norm(x, scale, bias, 1e-6)).sum())(x), along)

        return jax.jit(jax.grad(slope))(x)

    expected = curvature(plain_layer_norm)
    np.testing.assert_allclose(
        curvature(layer_norm), expected, rtol=0, atol=2e-5 * float(jnp.abs(expected).max())
    )


def test_forward_mode_through_layer_norm_is_refused():
    x, one = normal(2, 4), jnp.ones(4)
    with pytest.raises(TypeError, match="forward-mode autodiff"):
        jax.jvp(lambda x: layer_norm(x, one, one, 1e-6), (x,), (x,))


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(4096, 3, 8), (50, 7), (9,)], ids=str)
@pytest.mark.parametrize("backend", ["cpu", "tpu"])
def test_sums_of_rows_are_float32_on_every_platform(monkeypatch, backend, shape, dtype):
    monkeypatch.setattr("vit_jax.models.layers.dense.platform", lambda: backend)
    x = (normal(*shape) + 0.5).astype(dtype)
    ours = jax.jit(sum_of_rows)(x)
    assert (ours.dtype, ours.shape) == (jnp.float32, shape[-1:])
    exact = np.asarray(x, np.float64).sum(tuple(range(x.ndim - 1)))
    np.testing.assert_allclose(ours, exact, rtol=1e-5, atol=1e-4)


def test_layer_norm_epsilon_is_added_to_the_variance():
    x, one, zero = jnp.asarray([[-1.0, 1.0]]), jnp.ones(2), jnp.zeros(2)
    np.testing.assert_allclose(layer_norm(x, one, zero, 3.0), [[-0.5, 0.5]], rtol=1e-6)
    np.testing.assert_array_equal(layer_norm(jnp.full((1, 4), 7.0), jnp.ones(4), jnp.zeros(4), 1e-6), 0)


def test_layer_norm_statistics_are_float32_for_bfloat16():
    x = (30 + normal(4, 64)).astype(jnp.bfloat16)
    ours = layer_norm(x, jnp.ones(64), jnp.zeros(64), 1e-6)
    assert ours.dtype == jnp.bfloat16
    expected = layer_norm(x.astype(jnp.float32), jnp.ones(64), jnp.zeros(64), 1e-6)
    np.testing.assert_array_equal(ours, expected.astype(jnp.bfloat16))


@pytest.mark.parametrize("offset", [0.0, 3.0, 30.0, 1000.0])
def test_a_variance_in_one_pass_loses_less_than_bfloat16_did(monkeypatch, offset):
    monkeypatch.setattr("vit_jax.models.layers.norm.platform", lambda: "tpu")
    given = offset + normal(40, 384)
    x = given.astype(jnp.bfloat16)
    ours = jax.jit(lambda x: _variance(x, x.astype(jnp.float32).mean(-1, keepdims=True)))(x)[:, 0]
    rounded, exact = (np.asarray(y, np.float64).var(-1) for y in (x, given))
    assert np.abs(ours - rounded).max() < np.abs(rounded - exact).max() / 4


def test_norms_of_bfloat16_are_the_same_on_every_platform(monkeypatch):
    scale, bias = 1 + 0.1 * normal(64, seed=1), normal(64, seed=2)
    # The last row is constant, and its mean square rounded.
    x = jnp.concatenate([3 + normal(7, 64), jnp.full((1, 64), 100.3)]).astype(jnp.bfloat16)
    dy = normal(8, 64, seed=3).astype(jnp.bfloat16)

    def value_and_gradients():
        value, pullback = jax.vjp(lambda *a: layer_norm(*a, 1e-6), x, scale, bias)
        return value, *(gradient[:7] if gradient.shape == x.shape else gradient for gradient in pullback(dy))

    expected = jax.jit(value_and_gradients)()
    monkeypatch.setattr("vit_jax.models.layers.norm.platform", lambda: "tpu")
    for ours, theirs in zip(jax.jit(lambda: value_and_gradients())(), expected, strict=True):
        ours, theirs = (np.asarray(y, np.float32) for y in (ours, theirs))
        np.testing.assert_allclose(ours, theirs, rtol=2**-7, atol=1e-3)


CLOSED_FORMS = {
    "gelu": lambda x: x * 0.5 * (1 + math.erf(x / math.sqrt(2))),
    "gelu_tanh": lambda x: 0.5 * x * (1 + math.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x / (1 + math.exp(-1.702 * x)),
    "relu": lambda x: max(x, 0.0),
    "silu": lambda x: x / (1 + math.exp(-x)),
}


@pytest.mark.parametrize("name", CHOICES["activation"])
def test_activations(name):
    x = np.linspace(-6, 6, 97, dtype=np.float32)
    expected = [CLOSED_FORMS[name](float(v)) for v in x]
    np.testing.assert_allclose(ACTIVATIONS[name](jnp.asarray(x)), expected, rtol=2e-6, atol=6 * 2**-23)


def test_choices_are_all_implemented():
    assert set(ACTIVATIONS) == set(CHOICES["activation"])
    assert set(MLPS) == set(CHOICES["mlp"])


def test_dropout_without_key_or_rate_is_the_identity():
    x = normal(4, 5)
    assert dropout(x, 0.5, None) is x
    assert dropout(x, 0.0, jax.random.key(0)) is x
    assert drop_path(x, 0.5, None) is x
    np.testing.assert_array_equal(drop_path(x, 0.0, jax.random.key(0)), x)


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_dropout_drops_elements_at_its_rate_and_keeps_the_expectation(rate):
    x = jnp.full((100, 1000), 2.0)
    y = np.asarray(dropout(x, rate, jax.random.key(1)))
    assert set(np.unique(y)) == {0.0, np.float32(2.0) / np.float32(1 - rate)}
    deviation = math.sqrt(rate * (1 - rate) / x.size)
    assert abs((y == 0).mean() - rate) < 4 * deviation
    assert abs(y.mean() - 2) < 4 * 2 * deviation / (1 - rate)
    # Elements are independent: rows are not dropped together.
    assert (y == 0).mean(axis=1).std() < 3 * math.sqrt(rate * (1 - rate) / 1000)
    assert not np.array_equal(y, dropout(x, rate, jax.random.key(2)))
    np.testing.assert_array_equal(y, dropout(x, rate, jax.random.key(1)))


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.9])
def test_drop_path_drops_whole_examples_at_its_rate(rate):
    x = jnp.full((20_000, 2, 3), 2.0)
    y = np.asarray(jax.jit(drop_path)(x, jnp.float32(rate), jax.random.key(1)))
    np.testing.assert_array_equal(y, np.broadcast_to(y[:, :1, :1], y.shape))
    dropped = y[:, 0, 0] == 0
    deviation = math.sqrt(rate * (1 - rate) / len(x))
    assert abs(dropped.mean() - rate) < 4 * deviation
    np.testing.assert_allclose(y[~dropped], 2 / (1 - rate), rtol=1e-6)
    assert abs(y.mean() - 2) < 4 * 2 * deviation / (1 - rate)


def test_dropout_keeps_the_dtype():
    x = jnp.ones((64, 8), jnp.bfloat16)
    assert dropout(x, 0.3, jax.random.key(0)).dtype == jnp.bfloat16
    assert drop_path(x, jnp.float32(0.3), jax.random.key(0)).dtype == jnp.bfloat16


def test_initial_kernels():
    shape, key = (400, 3, 200), jax.random.key(0)
    xavier = np.asarray(initial_kernel("jax", key, shape, 400, 200))
    limit = math.sqrt(6 / 600)
    assert 0.999 * limit < np.abs(xavier).max() <= limit
    np.testing.assert_allclose(xavier.std(), limit / math.sqrt(3), rtol=0.01)
    np.testing.assert_allclose(initial_kernel("trunc_normal", key, shape, 1, 1).std(), 0.02, rtol=0.01)
    assert not initial_kernel("zeros", key, shape, 1, 1).any()


def test_query_key_and_value_are_initialised_each_as_a_matrix_of_its_own():
    from flax import nnx

    layer = Dense((64,), (3, 4, 16), fan_out=64, rngs=nnx.Rngs(0))
    np.testing.assert_allclose(np.abs(layer.kernel[...]).max(), math.sqrt(6 / 128), rtol=0.01)


def test_swiglu_is_the_product_of_its_halves():
    from flax import nnx

    x = normal(2, 3, 32)
    mlp = MLPS["swiglu"](tiny(mlp="swiglu", mlp_dim=24), rngs=nnx.Rngs(0))
    mlp.gate_up.bias[...] = normal(2, 24, seed=5)
    gate, up = (x @ mlp.gate_up.kernel[:, i] + mlp.gate_up.bias[i] for i in range(2))
    expected = (gate * jax.nn.sigmoid(gate) * up) @ mlp.down.kernel[...] + mlp.down.bias[...]
    np.testing.assert_allclose(mlp(x, None), expected, rtol=1e-5, atol=1e-6)
