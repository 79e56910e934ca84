"""Products and convolutions by oneDNN under jaxlib 0.10: the same numbers, and only where asked for and worth it."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export, lax

from vit_jax import onednn
from vit_jax.compiler_options import (
    CALLED_BY_US,
    has_onednn,
    jit,
    prediction_options,
    training_options,
    version,
)

pytestmark = pytest.mark.skipif(
    version != CALLED_BY_US or not has_onednn("cpu"), reason="for jaxlib 0.10.2 and bfloat16 instructions"
)

# lhs shape, rhs shape, ((lhs inner, rhs inner), (lhs batch, rhs batch))
PRODUCTS = {
    "x @ w": ((400, 256), (256, 192), (((1,), (0,)), ((), ()))),
    "y @ w.T": ((400, 256), (192, 256), (((1,), (1,)), ((), ()))),
    "x.T @ y": ((256, 400), (256, 192), (((0,), (0,)), ((), ()))),
    "x.T @ y.T": ((256, 400), (192, 256), (((0,), (1,)), ((), ()))),
    "images of tokens": ((4, 100, 256), (256, 192), (((2,), (0,)), ((), ()))),
    "to heads": ((4, 100, 256), (256, 3, 64), (((2,), (0,)), ((), ()))),
    "from heads": ((4, 100, 3, 64), (3, 64, 256), (((2, 3), (0, 1)), ((), ()))),
    "inner axes in another order": ((4, 100, 3, 64), (64, 3, 256), (((2, 3), (1, 0)), ((), ()))),
    "weight gradient over two axes": ((4, 100, 256), (4, 100, 192), (((0, 1), (0, 1)), ((), ()))),
    "queries and keys": ((4, 3, 120, 64), (4, 3, 90, 64), (((3,), (3,)), ((0, 1), (0, 1)))),
    "weights and values": ((4, 3, 120, 90), (4, 3, 90, 64), (((3,), (2,)), ((0, 1), (0, 1)))),
    "heads after tokens": ((4, 120, 3, 64), (4, 90, 3, 64), (((3,), (3,)), ((0, 2), (0, 2)))),
    "a vector": ((32000, 256), (256,), (((1,), (0,)), ((), ()))),
}
MATMUL, CONVOLUTION = onednn.TARGETS["matmul"], onednn.TARGETS["conv"]
DTYPES = {
    "float32": (jnp.float32, None, 1e-6),
    "bfloat16": (jnp.bfloat16, None, 2**-8),
    "bfloat16 to float32": (jnp.bfloat16, jnp.float32, 1e-6),
}


def text(function, *arguments) -> str:
    return jit(function, training_options("cpu", "bfloat16", 256)).lower(*arguments).as_text()


def matrix(rows: int, columns: int, seed: int = 0) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), (rows, columns))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", PRODUCTS)
def test_every_form_of_product(name, dtype):
    (left, right, dimensions), (computing, result, tolerance) = PRODUCTS[name], DTYPES[dtype]
    a = jax.random.normal(jax.random.key(0), left).astype(computing)
    b = jax.random.normal(jax.random.key(1), right).astype(computing)
    product = functools.partial(lax.dot_general, dimension_numbers=dimensions, preferred_element_type=result)
    lowered = jax.jit(onednn.marked(product)).lower(a, b)
    assert lowered.as_text().count(MATMUL) == 1
    ours, theirs = lowered.compile()(a, b), jax.jit(product)(a, b)
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


def convolution(x, kernel, stride=1):
    dimensions = ("NHWC", "HWIO", "NHWC")
    return lax.conv_general_dilated(x, kernel, (stride, stride), "SAME", dimension_numbers=dimensions)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize(
    ("height", "width", "size", "stride"), [(28, 20, 3, 1), (41, 42, 3, 2), (40, 40, 7, 2)]
)
def test_convolutions_and_their_gradients(height, width, size, stride, dtype):
    x = jax.random.normal(jax.random.key(0), (4, height, width, 48)).astype(dtype)
    kernel = jax.random.normal(jax.random.key(1), (size, size, 48, 80)).astype(dtype) / size

    dy = jax.random.normal(jax.random.key(2), (4, -(-height // stride), -(-width // stride), 80)).astype(
        dtype
    )

    def everything(x, kernel, dy):
        y, pull = jax.vjp(functools.partial(convolution, stride=stride), x, kernel)
        return y, *pull(dy)

    lowered = jax.jit(onednn.marked(everything)).lower(x, kernel, dy)
    # The gradient of images is one of dilated images where windows are two apart; that stays XLA's.
    assert lowered.as_text().count(CONVOLUTION) == 4 - stride
    assert lowered.as_text().count("stablehlo.convolution") == stride - 1
    # Of thousands of products each: in float64's eyes oneDNN's sums are 2e-6 of the largest off, XLA's own 6e-7.
    tolerance = {"float32": 4e-6, "bfloat16": 2**-7}[dtype]
    for ours, theirs in zip(lowered.compile()(x, kernel, dy), jax.jit(everything)(x, kernel, dy)):
        assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
        ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance * np.abs(theirs).max())


def test_layouts_of_convolutions():
    x = jax.random.normal(jax.random.key(0), (8, 48, 28, 20))
    kernel = jax.random.normal(jax.random.key(1), (80, 48, 5, 3))
    plain = functools.partial(lax.conv, window_strides=(1, 2), padding="VALID")  # channels first
    lowered = jax.jit(onednn.marked(plain)).lower(x, kernel)
    assert lowered.as_text().count(CONVOLUTION) == 1
    np.testing.assert_allclose(lowered.compile()(x, kernel), jax.jit(plain)(x, kernel), atol=2e-4)


def test_other_convolutions_stay_as_they_are():
    x, kernel = jnp.ones((4, 28, 28, 64)), jnp.ones((3, 3, 64, 64))
    grouped = functools.partial(
        lax.conv_general_dilated,
        window_strides=(1, 1),
        padding="SAME",
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=2,
    )
    assert CONVOLUTION in text(convolution, x, kernel)
    assert CONVOLUTION not in jax.jit(convolution).lower(x, kernel).as_text()
    assert CONVOLUTION not in text(grouped, x, jnp.ones((3, 3, 32, 64)))
    assert CONVOLUTION not in text(convolution, x[:1, :10], kernel)  # too little work
    assert CONVOLUTION not in text(convolution, x.astype(jnp.float16), kernel.astype(jnp.float16))


def test_gradients_of_any_order_loops_and_recomputation():
    def loss(w, x):
        def layer(x, w):
            return jnp.tanh(jnp.einsum("bnk,kc->bnc", x, w)), None

        return jnp.square(lax.scan(jax.checkpoint(layer), x, w)[0]).mean()

    def curvature(w, x):  # of the loss along w, forwards over backwards
        return jax.jvp(jax.grad(loss), (w, x), (w, jnp.zeros_like(x)))[1]

    w = jax.random.normal(jax.random.key(0), (3, 256, 256)) / 16
    x = jax.random.normal(jax.random.key(1), (4, 100, 256))
    for function in (loss, jax.grad(loss), curvature):
        plain = jax.jit(function).lower(w, x)
        lowered = jit(function, training_options("cpu", "float32", 256)).lower(w, x)
        assert "stablehlo.dot_general" not in lowered.as_text()
        assert lowered.as_text().count(MATMUL) == plain.as_text().count("stablehlo.dot_general")
        ours, theirs = np.asarray(lowered.compile()(w, x)), np.asarray(plain.compile()(w, x))
        np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())


def test_only_inside_a_marked_function():
    a, b = matrix(400, 256), matrix(256, 192)
    assert MATMUL not in jax.jit(jnp.matmul).lower(a, b).as_text()
    assert MATMUL in text(jnp.matmul, a, b)
    assert MATMUL not in jax.jit(jnp.matmul).lower(a, b).as_text()
    assert MATMUL not in jit(jnp.matmul).lower(a, b).as_text()
    assert MATMUL not in jit(jnp.matmul, prediction_options("cpu", "float32")).lower(a, b).as_text()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_small_products_stay_as_they_are(dtype):
    columns = onednn.FEWEST[dtype] // (400 * 100)
    for n, calls in ((columns, 1), (columns - 1, 0)):
        assert (
            text(jnp.matmul, matrix(400, 100).astype(dtype), matrix(100, n).astype(dtype)).count(MATMUL)
            == calls
        )


def test_wide_products_in_float32_only_where_they_are_transposed():
    a, b = matrix(400, 256), matrix(256, onednn.MOST_COLUMNS + 1)
    assert MATMUL not in text(jnp.matmul, a, b)
    assert MATMUL in text(lambda a, b: jnp.einsum("nc,kc->nk", a, b), a, b.T)
    assert MATMUL in text(jnp.matmul, a.astype(jnp.bfloat16), b.astype(jnp.bfloat16))


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.int32])
def test_other_dtypes_stay_as_they_are(dtype):
    assert MATMUL not in text(jnp.matmul, jnp.ones((400, 256), dtype), jnp.ones((256, 192), dtype))


def test_programs_for_several_devices_stay_as_they_are():
    mesh = jax.sharding.Mesh(jax.devices(), "data")
    rows = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    assert MATMUL not in text(jnp.matmul, jax.device_put(matrix(400, 256), rows), matrix(256, 192))


def test_exported_programs_run_anywhere():
    program = jit(jnp.matmul, training_options("cpu", "float32", 256))
    arguments = matrix(400, 256), matrix(256, 192)
    exported = export.export(program, platforms=("cpu", "tpu"))(*arguments)
    assert MATMUL not in exported.mlir_module()


def test_the_function_keeps_its_name_and_arguments():
    def step(state, *, batch):
        """Do one step."""
        return state @ batch

    program = jit(step, training_options("cpu", "float32", 256), donate_argnums=0)
    assert program.__name__ == "step"
    assert program.__doc__ == "Do one step."
    state = matrix(8, 8)
    assert program(state, batch=matrix(8, 8)).shape == (8, 8)
    assert state.is_deleted()
