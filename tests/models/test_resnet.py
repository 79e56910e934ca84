"""The convolutional front of hybrids."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from tests.tiny import functions, parameters, pixels, run, tiny
from vit_jax.models.layers.convolutional import group_norm, max_pool
from vit_jax.models.names.resolve import resolve
from vit_jax.models.vit.resnet import Bottleneck, GroupNorm, ResNet, StandardisedConv, standardise
from vit_jax.models.vit.resnet_config import ResNetConfig

SMALL = ResNetConfig((1, 2), (128, 256), stem_channels=32)
HYBRID = tiny(backbone=SMALL, patch_size=2, image_size=32)


@pytest.mark.parametrize(
    ("config", "stride", "channels"),
    [
        (ResNetConfig(), 4, 64),
        (ResNetConfig((1,), (128,), 32), 4, 128),
        (SMALL, 8, 256),
        (ResNetConfig((1, 1, 1), (128, 128, 128), 32), 16, 128),
    ],
)
def test_output_grid(config, stride, channels):
    assert (config.stride, config.out_channels) == (stride, channels)
    for height, width in ((32, 64), (2 * stride, stride)):
        shape = jax.eval_shape(
            lambda x: ResNet(config, 3, rngs=nnx.Rngs(0))(x),
            jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32),
        )
        assert shape.shape == (1, height // stride, width // stride, channels)


def test_stem_alone_and_its_patches():
    config = resolve("vit_tiny_r_s16_p8_224")[1]
    assert config.backbone is not None
    assert (config.backbone.depths, config.token_stride, config.num_patches) == ((), (32, 32), 49)


def test_patches_are_cut_from_the_map_of_features():
    assert (HYBRID.token_stride, HYBRID.grid) == ((16, 16), (2, 2))
    params, images = parameters(HYBRID), pixels(1, 32, 32)
    model = functions(HYBRID).bind(params)
    features = jax.jit(lambda x: model.backbone(x))(images)
    kernel = params["patch_embed"]["kernel"]
    tokens = jax.lax.conv_general_dilated(
        features, kernel, (2, 2), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    expected = tokens.reshape(1, 4, 32) + params["patch_embed"]["bias"] + params["pos_embed"][1:]
    _, values = run(HYBRID, images, capture=("embedded",))
    np.testing.assert_allclose(values["embedded"][:, 1:], expected, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize(("channels_in", "stride"), [(128, 1), (128, 2), (64, 1)])
def test_a_fresh_unit_is_its_shortcut(channels_in, stride):
    unit = Bottleneck(channels_in, 128, stride, "google", rngs=nnx.Rngs(0))
    assert (unit.conv_proj is None) == (channels_in == 128 and stride == 1)
    x = pixels(1, 4, 4, channels_in)
    shortcut = x if unit.conv_proj is None else unit.norm_proj(unit.conv_proj(x))
    np.testing.assert_allclose(jax.jit(lambda x: unit(x))(x), jax.nn.relu(shortcut), atol=1e-6)


@pytest.mark.parametrize("numerics", ["google", "timm"])
def test_numerics(numerics):
    """Epsilons are told apart by values near them: half of a deviation, or of a variance, of that size remains."""
    kernel = jnp.asarray([1.0, -1.0]).reshape(2, 1, 1, 1)
    tiny_deviation = {"google": 1e-5, "timm": 1e-4}[numerics]
    remaining = {"google": 0.5, "timm": np.sqrt(0.5)}[numerics]
    np.testing.assert_allclose(standardise(tiny_deviation * kernel, numerics), remaining * kernel, rtol=1e-5)
    np.testing.assert_allclose(standardise(7.0 + kernel, numerics), kernel, rtol=1e-4)
    epsilon = {"google": 1e-6, "timm": 1e-5}[numerics]
    x = jnp.sqrt(epsilon) * jnp.broadcast_to(kernel.reshape(1, 2, 1, 1), (1, 2, 1, 64))
    np.testing.assert_allclose(jnp.abs(GroupNorm(64, numerics)(x)), np.sqrt(0.5), rtol=1e-5)


def test_groups_are_neighbouring_channels_over_all_places():
    x = pixels(2, 3, 2, 64)
    norm = GroupNorm(64, "google")
    scale, bias = (jnp.asarray(np.random.default_rng(i).standard_normal(64), jnp.float32) for i in range(2))
    norm.scale, norm.bias = nnx.Param(scale), nnx.Param(bias)
    groups = np.asarray(x, np.float64).reshape(2, 6, 32, 2)
    centred = groups - groups.mean((1, 3), keepdims=True)
    normed = (centred / np.sqrt(centred.var((1, 3), keepdims=True) + 1e-6)).reshape(x.shape)
    np.testing.assert_allclose(norm(x), normed * scale + bias, atol=2e-6)


@pytest.mark.parametrize(("size", "stride"), [(1, 1), (1, 2), (3, 1), (3, 2), (7, 2)])
@pytest.mark.parametrize(("height", "width"), [(6, 5), (7, 8)])
def test_convolutions_and_their_gradients(height, width, size, stride):
    graph, state = nnx.split(StandardisedConv(size, 8, 16, stride, "timm", rngs=nnx.Rngs(0)))
    x, kernel = pixels(2, height, width, 8), state["kernel"][...]

    def ours(x, kernel):
        return nnx.merge(graph, nnx.State({"kernel": nnx.Param(kernel)}))(x)

    def by_hand(x, kernel):  # a sum over the places of the kernel
        kernel = standardise(kernel, "timm")
        shape = [-(-length // stride) for length in (height, width)]
        pads = [max((n - 1) * stride + size - length, 0) for n, length in zip(shape, (height, width))]
        x = jnp.pad(x, ((0, 0), *((pad // 2, pad - pad // 2) for pad in pads), (0, 0)))
        ends = [(n - 1) * stride + 1 for n in shape]
        places = [(i, j) for i in range(size) for j in range(size)]
        return jnp.stack(
            [x[:, i : i + ends[0] : stride, j : j + ends[1] : stride] @ kernel[i, j] for i, j in places]
        ).sum(0)

    expected, pull = jax.vjp(by_hand, x, kernel)
    dy = jnp.asarray(np.random.default_rng(0).standard_normal(expected.shape), jnp.float32)
    value, gradients = jax.jit(lambda x, kernel, dy: (ours(x, kernel), jax.vjp(ours, x, kernel)[1](dy)))(
        x, kernel, dy
    )
    for found, wanted in zip((value, *gradients), (expected, *pull(dy))):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=3e-6 * np.abs(wanted).max())


def test_gradients_of_group_norm_are_those_of_automatic_differentiation():
    def by_hand(x, scale, bias):
        groups = x.reshape(2, 6, 32, 2)
        centred = groups - groups.mean((1, 3), keepdims=True)
        normed = centred * jax.lax.rsqrt(jnp.square(centred).mean((1, 3), keepdims=True) + 1e-3)
        return normed.reshape(x.shape) * scale + bias

    rng = np.random.default_rng(0)
    scale, bias, dy = (jnp.asarray(rng.standard_normal(s), jnp.float32) for s in (64, 64, (2, 3, 2, 64)))
    x = 3 * pixels(2, 3, 2, 64) + 1

    def both(function):
        value, pull = jax.vjp(function, x, scale, bias)
        return value, *pull(dy)

    for ours, expected in zip(
        jax.jit(both, static_argnums=0)(lambda *a: group_norm(*a, 1e-3)), both(by_hand)
    ):
        np.testing.assert_allclose(ours, expected, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize(("height", "width"), [(1, 2), (4, 3), (7, 8)])
def test_pooling_and_its_gradient_are_those_of_xla(height, width, dtype):
    """Small integers: many values are equal, and sums of their gradients exact."""
    rng = np.random.default_rng(height)
    x = jnp.asarray(rng.integers(-1, 2, (2, height, width, 5)), dtype)
    lowest = np.asarray(-np.inf, dtype)

    def xlas(x):
        return jax.lax.reduce_window(x, lowest, jax.lax.max, (1, 3, 3, 1), (1, 2, 2, 1), "SAME")

    expected, pull = jax.vjp(xlas, x)
    dy = jnp.asarray(rng.integers(-9, 10, expected.shape), dtype)
    value, ours = jax.jit(lambda x, dy: (lambda value, pull: (value, pull(dy)))(*jax.vjp(max_pool, x)))(x, dy)
    assert value.dtype == ours[0].dtype == dtype
    np.testing.assert_array_equal(np.float32(value), np.float32(expected))
    np.testing.assert_array_equal(np.float32(ours[0]), np.float32(pull(dy)[0]))
    assert np.isnan(np.float32(max_pool(x.at[0, 0, 0, 0].set(jnp.nan))[0, 0, 0, 0]))


def test_weights_of_one_library_give_nearly_the_others_values():
    google, timm = (
        functions(tiny(backbone=ResNetConfig((1, 2), (128, 256), 32, numerics), patch_size=2, image_size=32))
        for numerics in ("google", "timm")
    )
    params, images = parameters(HYBRID), pixels(1, 32, 32)
    both = jax.jit(lambda params: (google.apply(params, images), timm.apply(params, images)))
    ours, theirs = both(params)
    assert 0 < np.abs(ours - theirs).max() < 1e-2 * np.abs(ours).max()
