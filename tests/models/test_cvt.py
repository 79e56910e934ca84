"""CvT: published sizes, maps of any image, batch statistics, and that how it is run changes nothing."""

from functools import partial

import jax
import jax.export
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import assert_trees_close, functions, pixels, randomised
from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.config_json import config_from_json, config_to_json
from vit_jax.models.cvt.config import CvtConfig
from vit_jax.models.families import family_of
from vit_jax.models.flops import forward_macs, parameter_count
from vit_jax.models.heads.upernet.config import UperNetConfig
from vit_jax.models.layers.convolutional import depthwise
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.layers.lora import Lora
from vit_jax.models.names.resolve import list_models, resolve
from vit_jax.models.storage import stored

# Rolled: one block of each stage to compile.
TINY = CvtConfig(image_size=32, num_classes=5, widths=(8, 16, 32), depths=(1, 2, 3), head_dim=8, unroll=1)
KEY = jax.random.key(0)


def state(config, seed=0):
    model = functions(config)
    return randomised(model.abstract, seed), randomised(model.abstract_buffers, seed)


def call(config, images, key=None, capture=()):
    params, buffers = state(config)
    run = jax.jit(functions(config).apply_state, static_argnames="capture")
    return run(params, buffers, images, key, capture=capture)


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [
        ("cvt-13", 19_997_480, 4.57),
        ("cvt-13@384", 19_997_480, 16.3),
        ("CvT-21", 31_622_696, 7.18),
        ("microsoft/cvt-21-384-22k", 31_622_696, 24.9),
        ("cvt-w24", 277_196_392, 194.2),
    ],
)
def test_published_sizes(name, parameters, gmacs):
    config = resolve(name)[1]
    assert parameter_count(config) == trees.count(functions(config).abstract) == parameters
    assert forward_macs(config) / 1e9 == pytest.approx(gmacs, rel=0.01)


def test_names():
    assert list_models("cvt*") == ["cvt-13", "cvt-21", "cvt-w24"]
    assert list_models("microsoft/cvt*")[0] == "microsoft/cvt-13"
    assert {resolve(name)[1].activation for name in list_models("microsoft/cvt*")} == {"gelu"}
    assert resolve("cvt-13")[1].activation == "quick_gelu"
    assert resolve("CvT-W24") == resolve("cvt-w24@384") == resolve("cvt-w24")
    with pytest.raises(ConfigError, match=r"'cvt-14' does not exist. Did you mean 'cvt-"):
        resolve("cvt-14")
    config = resolve("microsoft/cvt-13-384")[1]
    assert (config.image_size, config.preprocessing.crop_mode) == ((384, 384), "squash")
    assert config_from_json(config_to_json(config)) == config


@pytest.mark.parametrize(
    "changes",
    [
        dict(qkv_bias=False, mlp_ratio=2.5, in_channels=1),
        dict(num_classes=0),
        dict(num_classes=0, final_norm=False, kernels=(5, 3, 3), projection_kernel=5),
    ],
)
def test_options_are_counted_as_they_are(changes):
    config = replace(TINY, **changes)
    assert parameter_count(config) == trees.count(functions(config).abstract)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (45, 33), (7, 18)])
def test_maps_of_images_of_any_size(height, width):
    params, buffers = state(TINY)
    levels = family_of(TINY).levels(replace(TINY, image_size=(height, width)))
    features = jax.jit(functions(TINY).features, static_argnames="levels")
    maps = features(params, buffers, pixels(2, height, width))
    assert [level.stride for level in levels] == [(4, 4), (8, 8), (16, 16)]
    assert [x.shape for x in maps] == [(2, *level.grid, level.channels) for level in levels]
    (fine,) = features(params, buffers, pixels(2, height, width), levels=("stages/0",))
    np.testing.assert_allclose(fine, maps[0], atol=1e-6)


@pytest.mark.parametrize("strides", [(1, 1), (2, 2), (2, 3)])
@pytest.mark.parametrize(("sides", "sizes", "channels"), [((7, 10), (3, 5), 6), ((4, 6, 5), (3, 3, 3), 2)])
def test_the_shifted_sum_is_the_convolution_of_each_channel(sides, sizes, channels, strides, monkeypatch):
    strides = (*(1,) * (len(sides) - 2), *strides)
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(2, *sides, 6)), rng.normal(size=(*sizes, channels))

    def both():
        out, gradients = jax.vjp(
            lambda x, kernel: depthwise(x, kernel, strides), *map(jnp.float32, (x, kernel))
        )
        return out, *gradients(jnp.sin(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape))

    shifted = both()
    monkeypatch.setattr("vit_jax.models.layers.convolutional.platform", lambda: "gpu")
    # The gradient of the kernel, the last, is a sum over all places.
    for ours, theirs, limit in zip(shifted, both(), (1e-5, 1e-5, 2e-5), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=limit)


def test_one_program_takes_images_of_several_sizes():
    params, buffers = state(TINY)
    stride = family_of(TINY).any_size(TINY)
    shape = jax.export.symbolic_shape(f"b, {stride[0]}*h, {stride[1]}*w, 3")
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    call_of = jax.jit(lambda images: functions(TINY).apply_state(params, buffers, images)[0])
    program = jax.export.export(call_of)(images)
    for size in ((16, 48), (32, 32)):
        given = pixels(2, *size)
        np.testing.assert_allclose(program.call(given), call(TINY, given)[0], rtol=1e-4, atol=1e-4)


def gradients(config, key=KEY):
    """Output, gradients and new statistics of a training step."""
    params, buffers = state(config)
    images = pixels(4, 32, 32)

    @jax.jit
    def step(params):
        def loss(params):
            out, new = functions(config).apply_state(params, buffers, images, key)
            return jnp.square(out).mean(), (out, new)

        return jax.grad(loss, has_aux=True)(params)

    return step(params)


@pytest.fixture(scope="module")
def plain():
    return gradients(TINY)


@pytest.mark.parametrize("changes", [dict(remat="full", unroll=0), dict(remat="attention")])
def test_unrolled_rolled_and_computed_again_are_the_same(plain, changes):
    found, (out, new) = gradients(replace(TINY, **changes))
    np.testing.assert_allclose(out, plain[1][0], rtol=1e-5, atol=1e-6)
    assert_trees_close(new, plain[1][1], rtol=1e-5)
    assert_trees_close(found, plain[0], rtol=1e-4)


def test_statistics_change_in_training_alone_and_not_if_frozen(plain):
    _, buffers = state(TINY)
    _, new = plain[1]
    assert sorted({path.split("/attn/")[1] for path in trees.flatten(buffers)}) == [
        f"{name}/norm/{which}" for name in ("key", "query", "value") for which in ("mean", "variance")
    ]
    for path, leaf in trees.flatten(new).items():
        assert (leaf != trees.flatten(buffers)[path]).any(), path
    for same in (
        call(TINY, pixels(4, 32, 32)),
        call(replace(TINY, frozen_statistics=True), pixels(4, 32, 32), KEY),
    ):
        assert_trees_close(same[1], buffers, rtol=0, atol=0)
    np.testing.assert_allclose(
        call(replace(TINY, frozen_statistics=True), pixels(4, 32, 32), KEY)[0],
        call(TINY, pixels(4, 32, 32))[0],
        atol=1e-5,
    )


def test_an_example_alone_is_what_it_is_among_others_in_evaluation():
    images = pixels(4, 32, 32)
    np.testing.assert_allclose(call(TINY, images)[0][1:2], call(TINY, images[1:2])[0], rtol=1e-5, atol=1e-5)


def test_bfloat16_is_near(plain):
    found, (out, new) = gradients(replace(TINY, dtype="bfloat16"))
    assert out.dtype == jnp.float32
    assert np.abs(out - plain[1][0]).max() < 0.05 * np.abs(plain[1][0]).max()
    assert_trees_close(new, plain[1][1], rtol=0.05)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found))


def test_captures():
    config, images = TINY, pixels(2, 32, 32)
    maps = (*family_of(config).levels(config), *family_of(config).maps(config))
    names = (*(level.name for level in maps), "attention/0", "attention/-1", "pre_logits")
    (out, values), _ = call(config, images, capture=names)
    assert set(values) == set(names)
    for level in maps:
        assert values[level.name].shape == (2, *level.grid, level.channels)
    np.testing.assert_array_equal(values["blocks/0"], values["stages/0"])
    np.testing.assert_array_equal(values[maps[-1].name], values["stages/2"])
    assert (values["attention/0"].shape[2], values["attention/-1"].shape) == (64, (2, 4, 1 + 4, 1 + 1))
    for block in ("attention/0", "attention/-1"):
        np.testing.assert_allclose(values[block].sum(-1), 1, rtol=1e-5)
    head = state(config)[0]["head"]
    np.testing.assert_allclose(
        values["pre_logits"] @ head["kernel"] + head["bias"], out, rtol=1e-5, atol=1e-5
    )
    explained = family_of(config).explain(config)
    assert (explained.level.grid, explained.level.prefix, explained.query) == ((1, 1), 1, 0)
    headless = family_of(config).headless(config)
    params, buffers = state(config)
    bare, _ = jax.jit(functions(headless).apply_state)(trees_without(params, "head"), buffers, images)
    np.testing.assert_allclose(bare, values["pre_logits"], rtol=1e-5, atol=1e-5)


def trees_without(params, name):
    return {key: value for key, value in params.items() if key != name}


def test_a_decoder_of_pixels_stands_on_its_maps():
    config = UperNetConfig(
        family_of(TINY).headless(TINY), 3, taps=(0, 1, 2), pool_scales=(1,), auxiliary_channels=4
    )
    model = functions(config)
    assert parameter_count(config) == trees.count(model.abstract)
    out, buffers = jax.eval_shape(
        model.apply_state, model.abstract, model.abstract_buffers, pixels(2, 32, 32), KEY
    )
    assert out.shape == (2, 8, 8, 3)
    assert any(path.startswith("encoder/stages/2") for path in trees.flatten(buffers))


def test_drop_path_rises_over_the_last_stage_alone():
    config = replace(TINY, drop_path_rate=0.5)
    assert [config.stage(index).drop_path_rate for index in range(3)] == [0, 0, 0.5]
    out = [call(config, pixels(4, 32, 32), jax.random.key(seed))[0] for seed in (0, 1)]
    assert (out[0] != out[1]).any()
    np.testing.assert_array_equal(call(config, pixels(4, 32, 32))[0], call(TINY, pixels(4, 32, 32))[0])


def test_layers_are_counted_over_the_stages():
    layer_of = partial(family_of(TINY).layer_of, TINY)
    expected = {
        "stages/0/embed/kernel": 0,
        "stages/0/blocks/norm1/scale": range(1, 2),
        "stages/1/embed/norm/scale": 1,
        "stages/1/blocks/mlp/fc1/kernel": range(2, 4),
        "stages/2/class_token": 3,
        "stages/2/blocks/attn/key/conv/kernel": range(4, 7),
        "norm/scale": 7,
        "head/kernel": 7,
    }
    assert {path: layer_of(path, "beit") for path in expected} == expected
    assert layer_of("norm/scale", "timm") == 6


def test_low_rank_factors_and_eight_bits_find_its_kernels():
    model, (params, buffers) = functions(TINY), state(TINY)
    lora = Lora(2, 4.0, ("query", "value", "fc1", "attn/out"))
    factors = lora.init(KEY, model.abstract)
    assert sorted(trees.flatten(factors["stages"]["2"])) == [
        f"blocks/{layer}/{factor}"
        for layer in ("attn/out", "attn/query", "attn/value", "mlp/fc1")
        for factor in "ab"
    ]
    noisy = jax.tree.map(lambda leaf: leaf + 0.1, factors)
    merged = lora.merge({**params, "lora": noisy})
    assert trees.flatten(merged).keys() == trees.flatten(params).keys()
    path = "stages/0/blocks/attn/query/dense/kernel"
    assert (trees.flatten(merged)[path] != trees.flatten(params)[path]).any()
    images = pixels(2, 32, 32)
    expected, _ = jax.jit(model.apply_state)(params, buffers, images)
    for storage, close in (("bfloat16", 0.03), ("int8", 0.06)):
        out, _ = jax.jit(model.apply_state)(stored(params, storage), buffers, images)
        assert 0 < np.abs(out - expected).max() <= close * np.abs(expected).max(), storage


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(image_size=2), "images of 2x2 pixels are too small.*at least 3x3"),
        (dict(widths=(8, 16)), r"widths is \(8, 16\); it must be 3 numbers, one a stage"),
        (dict(head_dim=5), "head_dim is 5, which does not divide width 8"),
        (dict(final_norm=False), "final_norm is False, but the head reads"),
        (dict(projection_kernel=2), "projection_kernel is 2; it must be odd"),
        (dict(activation="gelo"), "activation is 'gelo'; it must be one of .*Did you mean 'gelu'"),
        (dict(depths=(1, 0, 1)), r"depths is \(1, 0, 1\); it must be at least 1"),
    ],
)
def test_configurations_that_cannot_be(changes, message):
    with pytest.raises(ConfigError, match=message) as refused:
        replace(TINY, **changes)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(
    ("images", "capture", "message"),
    [
        (jnp.zeros((1, 2, 32, 3)), (), "images of 2x32 pixels are too small"),
        (jnp.zeros((1, 32, 32, 1)), (), r"the model takes \(batch, height, width, 3\)"),
        (jnp.zeros((1, 32, 32, 3), jnp.uint8), (), "raw pixels"),
        (jnp.zeros((1, 32, 32, 3)), ("stages/3",), "'stages/3' is not part of this model; it has 3 stages"),
        (jnp.zeros((1, 32, 32, 3)), ("attention",), "'attention' has no number.*the last is attention/-1"),
    ],
)
def test_calls_that_cannot_be(images, capture, message):
    model = functions(TINY).bind(*state(TINY))
    with pytest.raises(ConfigError, match=message):
        model(images, capture=capture)
    with pytest.raises(ConfigError, match="'stages/7' is not a level of this model; it has stages/0"):
        functions(TINY).features(*state(TINY), pixels(1, 32, 32), levels=["stages/7"])
