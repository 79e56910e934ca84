import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage

from tests.reference.cases import assert_close, load_case, tolerance
from vit_jax.errors import ConfigError
from vit_jax.models.layers.positions.resample import (
    resample_grid,
    resample_patch_kernel,
    resample_positions,
    resize_matrix,
    runtime_weights,
)

# Outputs of timm's resampling of positions and of torch's interpolate.
ABOUT, CASE, _ = load_case("aux_resample_timm")
SIZES = [(7, 7), (3, 3), (5, 2)]
MODES = [
    ("nearest", False),
    ("bilinear", False),
    ("bilinear", True),
    ("bicubic", False),
    ("bicubic", True),
    ("zoom", False),
]


def case_grid():
    return jnp.asarray(CASE["in.pos"][0, 1:].reshape(4, 4, 6))


def case_output(name):
    return np.moveaxis(CASE[f"out.{name}"][0], 0, -1)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("antialias", [True, False])
def test_positions_equal_timm(size, antialias):
    table = jnp.asarray(CASE["in.pos"][0])
    ours = resample_positions(table, (4, 4), size, "bicubic", antialias, prefix=1)
    name = f"pos_bicubic_aa{int(antialias)}_{size[0]}x{size[1]}"
    assert_close(ours, CASE[f"out.{name}"][0], tolerance(ABOUT, name), name)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [True, False])
def test_grid_equals_torch(size, method, antialias):
    ours = resample_grid(case_grid(), size, method, antialias)
    name = f"grid_{method}_aa{int(antialias)}_{size[0]}x{size[1]}"
    assert_close(ours, case_output(name), tolerance(ABOUT, name), name)


@pytest.mark.parametrize("size", SIZES)
def test_grid_with_dino_offset_equals_torch(size):
    ours = resample_grid(case_grid(), size, "bicubic", offset=0.1)
    name = f"grid_dino_offset_{size[0]}x{size[1]}"
    assert_close(ours, case_output(name), tolerance(ABOUT, name), name)


def test_nearest_rounds_as_torch():
    # torch 2.13: exact arithmetic would take sample 3 from output 37 on, its float32 product only from 38 on.
    taps = resize_matrix(6, 74, "nearest").argmax(axis=1)
    np.testing.assert_array_equal(taps, np.repeat(np.arange(6), [13, 12, 13, 12, 12, 12]))


@pytest.mark.parametrize(
    ("size", "new"), [((14, 14), (24, 24)), ((16, 16), (7, 12)), ((5, 3), (2, 11)), ((4, 1), (1, 6))]
)
def test_zoom_equals_scipy(size, new):
    grid = np.random.default_rng(0).normal(size=(*size, 3)).astype(np.float32)
    factors = (new[0] / size[0], new[1] / size[1], 1)
    theirs = scipy.ndimage.zoom(grid, factors, order=1)
    ours = resample_grid(jnp.asarray(grid), new, "zoom")
    assert_close(ours, theirs, 2e-5 * np.abs(theirs).max(), "zoom")


def test_zoom_keeps_the_corner_where_scipy_rounds_past_it():
    assert scipy.ndimage.zoom(np.ones(8), 26 / 8, order=1)[-1] == 0
    assert resize_matrix(8, 26, "zoom")[-1, -1] == 1


@pytest.mark.parametrize(("method", "antialias"), MODES)
@pytest.mark.parametrize("n_in", [1, 2, 7, 14])
@pytest.mark.parametrize("n_out", [1, 3, 7, 32])
def test_weights(method, antialias, n_in, n_out):
    weights = resize_matrix(n_in, n_out, method, antialias)
    assert weights.shape == (n_out, n_in)
    assert weights.dtype == np.float64
    # Exact but for float64 rounding of the weights.
    np.testing.assert_allclose(weights.sum(axis=1), 1, rtol=0, atol=1e-12)
    if n_in == n_out:
        np.testing.assert_array_equal(weights, np.eye(n_in))
    if method not in ("nearest", "zoom"):
        # Neither end of the axis is preferred, but for float64 rounding of places counted from one of them.
        np.testing.assert_allclose(weights, weights[::-1, ::-1], rtol=0, atol=1e-12)


@pytest.mark.parametrize(("method", "antialias"), MODES)
def test_constant_grid_stays_constant(method, antialias):
    grid = jnp.full((5, 4, 2), 3.0)
    np.testing.assert_allclose(resample_grid(grid, (9, 2), method, antialias), 3.0, rtol=1e-6)


@pytest.mark.parametrize(
    ("method", "antialias"), [("bilinear", False), ("bilinear", True), ("bicubic", True)]
)
def test_linear_ramp_is_sampled_at_pixel_centres(method, antialias):
    # Cubic kernels reproduce a line only with the parameter -0.5, which torch uses with antialiasing.
    ramp = jnp.arange(32.0)[:, None, None]
    ours = resample_grid(ramp, (64, 1), method, antialias)[6:-6, 0, 0]
    np.testing.assert_allclose(ours, (np.arange(64)[6:-6] + 0.5) / 2 - 0.5, rtol=0, atol=1e-5)


def test_own_size_changes_nothing():
    grid = case_grid()
    np.testing.assert_array_equal(resample_grid(grid, (4, 4), "bicubic", offset=0.1), grid)
    table = jnp.asarray(CASE["in.pos"][0])
    np.testing.assert_array_equal(resample_positions(table, (4, 4), (4, 4), "bicubic", True, prefix=1), table)


def test_works_under_jit_and_differentiates():
    table = jnp.asarray(CASE["in.pos"][0])

    def function(x):
        return resample_positions(x, (4, 4), (3, 5), "bilinear", True, prefix=1)

    np.testing.assert_allclose(jax.jit(function)(table), function(table), rtol=0, atol=1e-6)
    gradient = jax.grad(lambda x: function(x).sum())(table)
    # Every output row spreads a weight of 1 over the table.
    np.testing.assert_allclose(gradient.sum(axis=0), 1 + 15, rtol=1e-5)
    np.testing.assert_allclose(gradient[0], 1)


def test_table_that_does_not_fit_the_grid():
    with pytest.raises(
        ConfigError, match=r"has 17 rows; a grid of 4x4 patches after 0 other tokens needs 16"
    ):
        resample_positions(jnp.zeros((17, 4)), (4, 4), (7, 7), "bicubic")


def test_unknown_method_names_the_nearest():
    with pytest.raises(ConfigError, match=r"'bicubc'.*bilinear.*Did you mean 'bicubic'"):
        resize_matrix(4, 7, "bicubc")


# ---- patch kernels


def case_kernel(name):
    return CASE[name].transpose(2, 3, 1, 0)


@pytest.mark.parametrize("size", [(4, 4), (12, 12), (16, 16), (8, 10)])
def test_patch_kernels_equal_timm(size):
    ours = resample_patch_kernel(case_kernel("in.patch"), size)
    name = f"{size[0]}" if size[0] == size[1] else f"{size[0]}x{size[1]}"
    theirs = case_kernel(f"out.patch_pinv_{name}")
    assert ours.dtype == np.float32
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=2e-6 * np.abs(theirs).max())


@pytest.mark.parametrize("method", ["flexi", "bilinear"])
def test_patch_kernel_of_its_own_size_is_itself(method):
    kernel = case_kernel("in.patch")
    np.testing.assert_allclose(resample_patch_kernel(kernel, (8, 8), method), kernel, atol=1e-6)


@pytest.mark.parametrize("size", [(12, 12), (16, 9), (8, 31)])
def test_larger_patches_give_the_tokens_of_the_smaller(size):
    """Of any patch that was made larger by resizing, so also of a constant one."""
    rng = np.random.default_rng(0)
    kernel = case_kernel("in.patch")
    patches = rng.standard_normal((4, 8, 8, 3)).astype(np.float32)
    patches[0] = 0.5
    larger = np.stack([resample_grid(jnp.asarray(patch), size, "bicubic", True) for patch in patches])
    np.testing.assert_allclose(larger[0], 0.5, atol=1e-6)
    tokens = np.einsum("bpqc,pqcd->bd", patches, kernel)
    ours = np.einsum("bpqc,pqcd->bd", larger, resample_patch_kernel(kernel, size))
    np.testing.assert_allclose(ours, tokens, atol=2e-5)


def test_bilinear_kernels_are_resized_as_images():
    kernel = case_kernel("in.patch")
    one = resample_grid(jnp.asarray(kernel.reshape(8, 8, -1)), (5, 12), "bilinear", True)
    np.testing.assert_allclose(
        resample_patch_kernel(kernel, (5, 12), "bilinear"), one.reshape(5, 12, 3, 5), atol=1e-6
    )


def test_unknown_patch_method():
    with pytest.raises(ConfigError, match="patch resampling is 'pinv'; it must be one of flexi, bilinear"):
        resample_patch_kernel(case_kernel("in.patch"), (4, 4), "pinv")


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_weights_of_sizes_at_run_time(method):
    weights = jax.jit(lambda n: runtime_weights(jnp.arange(9) % n, n[None], 6, method))
    for n_out in (1, 3, 6, 9):
        exact = resize_matrix(6, n_out, method, antialias=True)
        np.testing.assert_allclose(weights(jnp.int32(n_out))[:n_out], exact, atol=2e-6)
