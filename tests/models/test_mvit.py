"""MViTv2: published sizes, pooling, both ways of widening, and that how it is run changes nothing."""

import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import assert_trees_close, functions, parameters, pixels
from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.config_json import config_from_json, config_to_json
from vit_jax.models.families import family_of
from vit_jax.models.flops import forward_macs, parameter_count
from vit_jax.models.layers.convolutional import max_pool
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.layers.lora import Lora
from vit_jax.models.mvit.attention import distances, resized
from vit_jax.models.mvit.config import MvitConfig
from vit_jax.models.names.resolve import list_models, resolve
from vit_jax.models.storage import stored

# Of as few blocks as have one of every kind: compiling is most of the time.
TINY = MvitConfig(image_size=32, num_classes=5, width=8, head_dim=8, depths=(1, 1, 3, 1), unroll=1)
WIDE = replace(TINY, widen="mlp", depths=(1, 1, 2, 1), class_token=True, pool="cls")
DEEP, DEEP_WIDE = replace(TINY, depths=(1, 2, 3, 1)), replace(WIDE, depths=(2, 3, 2, 1))
KEY = jax.random.key(0)


def call(config, images, key=None, capture=()):
    run = jax.jit(functions(config).apply, static_argnames="capture")
    return run(parameters(config), images, key, capture=capture)


@pytest.mark.parametrize(
    ("name", "parameters", "gmacs"),
    [
        ("mvitv2_tiny", 24_173_320, 4.68),
        ("MViTv2-S", 34_870_216, 6.96),
        ("mvitv2_base.fb_in1k", 51_472_744, 10.10),
        ("mvitv2_large", 217_992_952, 43.7),
        ("mvitv2_base_cls.fb_inw21k", 65_444_032, None),
        ("mvitv2_large_cls.fb_inw21k", 234_583_216, None),
        ("mvitv2_huge_cls.fb_inw21k", 694_804_128, 120.6),
    ],
)
def test_published_sizes(name, parameters, gmacs):
    config = resolve(name)[1]
    assert parameter_count(config) == trees.count(functions(config).abstract) == parameters
    if gmacs:
        assert forward_macs(config) / 1e9 == pytest.approx(gmacs, rel=0.01)


def test_names():
    names = list_models("mvitv2*")
    assert len(names) == 8
    assert all(resolve(name)[0] == name for name in names)
    assert list_models("mvitv2_*_cls", pretrained=True) == []
    assert list_models("mvitv2_huge*", pretrained=True) == ["mvitv2_huge_cls.fb_inw21k"]
    assert resolve("mvitv2_huge_cls.fb_inw21k")[1].num_classes == 19168
    for wrong in ("mvitv2_tiny.fb_inw21k", "mvitv2_tinny", "tiny"):
        with pytest.raises(ConfigError, match="does not exist"):
            resolve(wrong)
    assert config_from_json(config_to_json(WIDE)) == WIDE


@pytest.mark.parametrize(
    "changes",
    [dict(), dict(qkv_bias=False, mlp_ratio=2.5, in_channels=1), dict(num_classes=0, pool_kernel=5)],
)
@pytest.mark.parametrize("config", [TINY, WIDE], ids=["attention", "mlp"])
def test_options_are_counted_as_they_are(config, changes):
    config = replace(config, **changes)
    assert parameter_count(config) == trees.count(functions(config).abstract)


def test_equal_blocks_are_stacked_and_others_stand_alone():
    stages = [[(run.depth, run.inputs, run.width, run.outputs) for run in runs] for runs in DEEP.stages()]
    assert stages == [
        [(1, 8, 8, 8)],
        [(1, 8, 16, 16), (1, 16, 16, 16)],
        [(1, 16, 32, 32), (2, 32, 32, 32)],
        [(1, 32, 64, 64)],
    ]
    assert [[(run.depth, run.outputs) for run in runs] for runs in DEEP_WIDE.stages()] == [
        [(1, 8), (1, 16)],
        [(1, 16), (1, 16), (1, 32)],
        [(1, 32), (1, 64)],
        [(1, 64)],
    ]
    strides = [{(run.q_stride, run.kv_stride) for run in runs} for runs in DEEP.stages()]
    assert strides == [{(1, 4)}, {(2, 2), (1, 2)}, {(2, 1), (1, 1)}, {(2, 1)}]
    assert [run.depth for run in resolve("mvitv2_large")[1].stages()[2]] == [1, 34, 1]


@pytest.mark.parametrize("config", [TINY, WIDE], ids=["attention", "mlp"])
@pytest.mark.parametrize(("height", "width"), [(32, 32), (45, 70)])
def test_maps_of_images_of_any_size(config, height, width):
    levels = family_of(config).levels(replace(config, image_size=(height, width)))
    maps = jax.jit(functions(config).features)(parameters(config), {}, pixels(2, height, width))
    assert [level.stride for level in levels] == [(4, 4), (8, 8), (16, 16), (32, 32)]
    assert [x.shape for x in maps] == [(2, *level.grid, level.channels) for level in levels]


def test_distances_are_counted_in_steps_of_the_finer():
    np.testing.assert_array_equal(distances(3, 3), [[2, 1, 0], [3, 2, 1], [4, 3, 2]])
    np.testing.assert_array_equal(distances(4, 2), [[2, 0], [3, 1], [4, 2], [5, 3]])
    np.testing.assert_array_equal(distances(2, 4), [[3, 2, 1, 0], [5, 4, 3, 2]])
    for queries, keys in itertools.product(range(1, 20), repeat=2):
        found = distances(queries, keys)
        assert found.min() >= 0
        assert found.max() < 2 * max(queries, keys) - 1
    np.testing.assert_allclose(resized(jnp.arange(5.0)[:, None], 9)[::8, 0], [0, 4])


@pytest.mark.parametrize("side", [6, 7])
@pytest.mark.parametrize("before", [None, 0, 1])
def test_largest_values_of_windows_that_begin_where_they_are_told_to(side, before, monkeypatch):
    x = pixels(2, side, side, 3)
    pooled, gradient = max_pool(x, before), jax.grad(lambda x: jnp.sum(max_pool(x, before) ** 2))(x)
    monkeypatch.setattr("vit_jax.models.layers.convolutional.platform", lambda: "gpu")
    np.testing.assert_array_equal(pooled, max_pool(x, before))
    np.testing.assert_allclose(gradient, jax.grad(lambda x: jnp.sum(max_pool(x, before) ** 2))(x), atol=1e-6)
    if before == 1:  # as torch: the first window sees the first two rows and columns
        np.testing.assert_array_equal(pooled[:, 0, 0], x[:, :2, :2].max((1, 2)))


def gradients(config):
    @jax.jit
    def step(params):
        def loss(params):
            return jnp.square(functions(config).apply(params, pixels(2, 32, 32), KEY)).mean()

        return jax.value_and_grad(loss)(params)

    return step(parameters(config))


@pytest.fixture(scope="module")
def plain():
    return gradients(TINY)


@pytest.mark.parametrize("changes", [dict(remat="full", unroll=0), dict(remat="attention")])
def test_unrolled_rolled_and_computed_again_are_the_same(plain, changes):
    loss, found = gradients(replace(TINY, **changes))
    np.testing.assert_allclose(loss, plain[0], rtol=1e-5)
    assert_trees_close(found, plain[1], rtol=1e-4)
    assert all((leaf != 0).any() for leaf in jax.tree.leaves(found) if leaf.size > 5)


def test_bfloat16_is_near(plain):
    loss, found = gradients(replace(TINY, dtype="bfloat16"))
    assert abs(loss - plain[0]) < 0.1 * plain[0]
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(found))


@pytest.mark.parametrize("config", [TINY, WIDE], ids=["attention", "mlp"])
def test_captures(config):
    family, prefix = family_of(config), config.prefix_tokens
    maps = (*family.levels(config), *family.maps(config))
    names = (*(level.name for level in maps), "attention/0", "attention/-1", "encoded", "pre_logits")
    out, values = call(config, pixels(2, 32, 32), capture=names)
    assert set(values) == set(names)
    for level in maps:
        assert values[level.name].shape == (2, *level.grid, level.channels)
    np.testing.assert_array_equal(values[maps[-1].name], values["stages/3"])
    assert (values["attention/0"].shape[2], values["attention/-1"].shape) == (
        prefix + 64,
        (2, 8, prefix + 1, prefix + 4),
    )
    for block in ("attention/0", "attention/-1"):
        np.testing.assert_allclose(values[block].sum(-1), 1, rtol=1e-5)
    head = parameters(config)["head"]
    np.testing.assert_allclose(
        values["pre_logits"] @ head["kernel"] + head["bias"], out, rtol=1e-5, atol=1e-5
    )
    explained = family_of(config).explain(config)
    assert (explained.level.grid, explained.level.prefix) == ((2, 2), prefix)
    assert explained.query == (0 if config.class_token else None)
    headless = family_of(config).headless(config)
    bare = {name: leaf for name, leaf in parameters(config).items() if name != "head"}
    features = jax.jit(functions(headless).apply)(bare, pixels(2, 32, 32))
    np.testing.assert_allclose(features, values["pre_logits"], rtol=1e-5, atol=1e-5)


def test_every_implementation_of_attention_computes_the_same():
    explicit, xla = (call(replace(WIDE, attention=name), pixels(2, 32, 32)) for name in ("explicit", "xla"))
    np.testing.assert_allclose(explicit, xla, rtol=1e-4, atol=1e-4)


def test_drop_path_rises_over_all_stages():
    config = replace(TINY, drop_path_rate=0.9)
    out = [call(config, pixels(2, 32, 32), jax.random.key(seed)) for seed in (0, 1)]
    assert (out[0] != out[1]).any()
    np.testing.assert_array_equal(call(config, pixels(2, 32, 32)), call(TINY, pixels(2, 32, 32)))
    # The first block, the whole of the first stage, is never dropped.
    maps = [call(config, pixels(2, 32, 32), jax.random.key(seed), ("stages/0",))[1] for seed in (0, 1)]
    np.testing.assert_array_equal(maps[0]["stages/0"], maps[1]["stages/0"])


def test_layers_are_counted_over_the_stages():
    layer_of = partial(family_of(DEEP).layer_of, DEEP)
    expected = {
        "patch_embed/kernel": 0,
        "class_token": 0,
        "stages/0/runs/0/blocks/norm1/scale": range(1, 2),
        "stages/1/runs/1/blocks/skip1/kernel": range(3, 4),
        "stages/2/runs/1/blocks/attn/positions/h": range(5, 7),
        "stages/3/runs/0/blocks/mlp/fc1/kernel": range(7, 8),
        "norm/scale": 8,
        "head/kernel": 8,
    }
    assert {path: layer_of(path, "beit") for path in expected} == expected
    assert layer_of("norm/scale", "timm") == 7


def test_low_rank_factors_and_eight_bits_find_its_kernels():
    model, params, images = functions(WIDE), parameters(WIDE), pixels(2, 32, 32)
    factors = Lora(2, 4.0, ("query", "skip")).init(KEY, model.abstract)
    assert sorted(trees.flatten(factors["stages"]["0"]["runs"]["0"])) == [
        f"blocks/{layer}/{factor}" for layer in ("attn/query", "skip2") for factor in "ab"
    ]
    expected = jax.jit(model.apply)(params, images)
    for storage, close in (("bfloat16", 0.03), ("int8", 0.06)):
        out = jax.jit(model.apply)(stored(params, storage), images)
        assert 0 < np.abs(out - expected).max() <= close * np.abs(expected).max(), storage


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(depths=()), r"depths is \(\); it must be a number of blocks for each stage"),
        (dict(head_dim=5), "head_dim is 5, which does not divide width 8"),
        (dict(widen="head"), "widen is 'head'; it must be one of attention, mlp"),
        (dict(pool="cls"), "pool is 'cls' but class_token is False"),
        (dict(pool_kernel=2), "pool_kernel is 2; it must be odd"),
        (dict(patch_pad=0, image_size=6), "images of 6x6 pixels are too small.*at least 7x7"),
    ],
)
def test_configurations_that_cannot_be(changes, message):
    with pytest.raises(ConfigError, match=message) as refused:
        replace(TINY, **changes)
    assert "\n" not in str(refused.value)


def test_calls_that_cannot_be():
    model = functions(TINY).bind(parameters(TINY))
    with pytest.raises(ConfigError, match=r"the model takes \(batch, height, width, 3\)"):
        model(jnp.zeros((1, 32, 32, 1)))
    with pytest.raises(ConfigError, match=r"'stage/3' cannot be captured.*Did you mean 'stages'"):
        model(jnp.zeros((1, 32, 32, 3)), capture="stage/3")
    with pytest.raises(ConfigError, match="'stages/4' is not a level of this model; it has stages/0"):
        functions(TINY).features(parameters(TINY), {}, pixels(1, 32, 32), levels=["stages/4"])
