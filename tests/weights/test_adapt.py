"""A checkpoint in another size: classes, images, patches, channels, parts."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest

from tests.reference.cases import assert_close
from tests.tiny import parameters, pixels, run, tiny
from tests.weights.checks import refused
from tests.weights.models import (
    BEIT,
    CLIP_PAIR,
    DINOV2,
    GOOGLE,
    HYBRID,
    MAE,
    PLAIN,
    SIGLIP_PAIR,
    flat,
    opened,
    write,
)
from vit_jax import trees
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.adaptation import adapt_channels
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.layers.positions.relative import RelativePositions
from vit_jax.models.layers.positions.resample import resample_patch_kernel, resample_positions
from vit_jax.models.names.resolve import resolve
from vit_jax.models.vit.embedding import position_table
from vit_jax.weights.adapt import changes
from vit_jax.weights.load import load, open_pretrained


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    """One file for all tests that read the same model."""
    folder = tmp_path_factory.mktemp("plain")
    write(PLAIN, folder / "model", "timm")
    return folder / "model"


def test_a_new_head_starts_at_zero(source):
    config, params = opened(source, num_classes=3)
    assert config.num_classes == 3
    assert params["head/kernel"].shape == (32, 3)
    assert not np.any(params["head/kernel"])
    assert not np.any(params["head/bias"])
    for path, array in flat(PLAIN).items():
        assert path.startswith("head/") or np.array_equal(array, params[path])


def test_a_new_head_of_some_deviation(source):
    found = trees.flatten(open_pretrained(source, num_classes=300, head_std=0.02).params())["head/kernel"]
    assert 0.018 < np.std(found) < 0.022
    pretrained = open_pretrained(source, num_classes=300, head_std=0.02)
    assert pretrained.report.new["head/kernel"] == "normal, deviation 0.02"
    again, other = (trees.flatten(pretrained.params(seed=seed))["head/kernel"] for seed in (0, 1))
    assert np.array_equal(found, again)
    assert not np.array_equal(found, other)


def test_the_same_number_of_classes_keeps_the_published_head(source):
    pretrained = open_pretrained(source, num_classes=5)
    assert not pretrained.report.new
    assert not pretrained.report.dropped


def test_no_classes_drop_the_head(source):
    config, params = opened(source, num_classes=0)
    assert config.num_classes == 0
    assert params.keys() == {path for path in flat(PLAIN) if not path.startswith("head/")}


def test_the_report_says_it_all(source):
    report = open_pretrained(source, num_classes=3, image_size=24, in_channels=1).report
    assert str(report).splitlines() == [
        f"{source}: 18 arrays loaded",
        f"  changed  {'patch_embed/kernel':<40} channels 3 -> 1",
        f"  changed  {'pos_embed':<40} 4x4 -> 6x6, bicubic",
        f"  new      {'head/bias, head/kernel':<40} zero",
        f"  dropped  {'head.bias, head.weight':<40} not part of the model",
    ]


@pytest.mark.parametrize(
    ("config", "format", "rule"),
    [
        (PLAIN, "timm", ("bicubic", True, 0.0)),
        (GOOGLE, "npz", ("zoom", True, 0.0)),
        (DINOV2, "hf", ("bicubic", False, 0.0)),
    ],
)
def test_positions_follow_the_rule_of_the_family(config, format, rule, tmp_path):
    path = tmp_path / ("model.npz" if format == "npz" else "model")
    write(config, path, format)
    params = opened(path, image_size=(24, 32))[1]
    method, antialias, offset = rule
    table = parameters(config)["pos_embed"]
    expected = resample_positions(table, (4, 4), (6, 8), method, antialias, 1, offset)
    assert params["pos_embed"].shape == (49, 32)
    assert np.array_equal(params["pos_embed"][0], table[0])
    assert np.allclose(params["pos_embed"], expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["blocks", "shared"])
def test_relative_tables_follow_the_grid(kind, tmp_path):
    config = replace(BEIT, position_bias=kind)
    write(config, tmp_path, "timm")
    params = opened(tmp_path, image_size=24)[1]
    path = "position_bias" if kind == "shared" else "blocks/attn/position_bias"
    own = np.atleast_3d(flat(config)[path]).reshape(-1, 52, 2)[0]
    expected = RelativePositions((4, 4), config.bias_resample).resized(own, (6, 6))
    assert np.allclose(params[path].reshape(-1, 124, 2)[0], expected, atol=1e-6)


@pytest.mark.parametrize("method", ["flexi", "bilinear"])
def test_patches_of_another_size(source, method):
    config, params = opened(source, patch_size=8, image_size=32, patch_resample=method)
    assert config.grid == PLAIN.grid
    expected = resample_patch_kernel(np.asarray(flat(PLAIN)["patch_embed/kernel"]), (8, 8), method)
    assert np.allclose(params["patch_embed/kernel"], expected, atol=1e-6)
    if method == "flexi":  # what a patch of one colour becomes stays the same
        sums = [np.asarray(kernel).sum((0, 1)) for kernel in (flat(PLAIN)["patch_embed/kernel"], expected)]
        assert np.allclose(*sums, atol=1e-4)


FLEXIVIT = dict(np.load(Path(__file__).parent.parent / "reference" / "flexivit_timm.npz"))


RESIZED = [
    key.removesuffix(".patch") for key in FLEXIVIT if key.startswith("out.") and key.endswith(".patch")
]


@pytest.mark.parametrize("name", RESIZED)
def test_flexivit_is_resized_as_timm_does_when_it_loads(name):
    """By timm's `checkpoint_filter_fn(..., interpolation="bilinear", antialias=False)`, as its FlexiViTs are."""
    size, patch = ([int(side) for side in part.split("x")] for part in name.split(".")[1:])
    config = replace(resolve("flexivit_small")[1], width=8, heads=2, image_size=32, patch_size=8)
    target = replace(config, image_size=size, patch_size=patch)
    found = changes(config, target)
    table, kernel = FLEXIVIT["in.pos_embed"][0], FLEXIVIT["in.patch"].transpose(2, 3, 1, 0)
    ours = {
        "pos_embed": found["pos_embed"][0](table) if "pos_embed" in found else table,
        "patch": found["patch_embed/kernel"][0](kernel) if "patch_embed/kernel" in found else kernel,
    }
    theirs = {
        "pos_embed": FLEXIVIT[f"{name}.pos_embed"][0],
        "patch": FLEXIVIT[f"{name}.patch"].transpose(2, 3, 1, 0),
    }
    for what, array in ours.items():
        assert_close(array, theirs[what], 2e-5 * np.abs(theirs[what]).max(), what)
    if "pos_embed" in found:
        assert found["pos_embed"][1].endswith("bilinear")
        # While it runs, it is resized bicubically with antialiasing, as timm's models all are.
        running = position_table(config, jnp.asarray(table), target.grid)
        bicubic = resample_positions(table, config.grid, target.grid, "bicubic", True)
        assert np.array_equal(running, bicubic)
        assert not np.allclose(running, ours["pos_embed"], atol=1e-2)


def test_grey_images_give_what_they_gave_in_colour(source):
    config, params = opened(source, in_channels=1)
    grey = pixels(channels=1)
    colour = np.repeat(grey, 3, axis=-1)
    assert len(config.preprocessing.mean) == 1
    found = run(replace(config, unroll=1), grey, params=trees.unflatten(params))
    assert np.allclose(found, run(PLAIN, colour), atol=1e-5)


@pytest.mark.parametrize("channels", [2, 4, 5])
def test_more_channels_repeat_in_turn(channels):
    kernel = np.random.default_rng(0).standard_normal((2, 2, 3, 4)).astype(np.float32)
    adapted = adapt_channels(kernel, channels)
    assert adapted.shape == (2, 2, channels, 4)
    assert np.allclose(adapted[:, :, 0], kernel[:, :, 0] * 3 / channels)
    assert np.allclose(adapted[:, :, channels - 1], kernel[:, :, (channels - 1) % 3] * 3 / channels)


def test_first_kernel_of_a_backbone_is_what_changes(tmp_path):
    write(HYBRID, tmp_path / "R.npz", "npz")
    report = open_pretrained(tmp_path / "R.npz", in_channels=1).report
    assert report.changed == {"backbone/conv_root/kernel": "channels 3 -> 1"}
    refused(
        lambda: open_pretrained(tmp_path / "R.npz", patch_size=2, image_size=64), "patch_size cannot change"
    )


def test_what_only_concerns_training_changes_freely(source):
    model = load(source, drop_path_rate=0.3, dropout_rate=0.1, verbose=False)
    assert (model.config.drop_path_rate, model.config.dropout_rate) == (0.3, 0.1)


def test_another_pool_keeps_the_head(source):
    pretrained = open_pretrained(source, pool="mean")
    assert pretrained.config.pool == "mean"
    assert not pretrained.report.new
    assert open_pretrained(source, pool="map").report.new.keys() > {"pool/probe"}


@pytest.mark.parametrize(
    ("field", "value"), [("width", 64), ("depth", 3), ("heads", 4), ("mlp_dim", 32), ("qkv_bias", False)]
)
def test_weights_do_not_fit_another_architecture(source, field, value):
    refused(lambda: open_pretrained(source, **{field: value}), f"{field} is {value!r}, but")


def test_strides_of_a_stem_are_those_of_its_weights(tmp_path):
    # Their shapes say nothing of strides, and other ones would make another model without a word.
    write(tiny(stem=(4, 6), stem_strides=(1, 1)), tmp_path / "stem", "orbax")
    assert open_pretrained(tmp_path / "stem", stem_strides=(1, 1)).config.stem_strides == ()
    refused(lambda: open_pretrained(tmp_path / "stem", stem_strides=(1, 2)), "stem_strides is (1, 2), but ()")


def test_options_that_are_none(source):
    with pytest.raises(ConfigError, match="'classes' is not a model option"):
        open_pretrained(source, classes=3)
    with pytest.raises(ConfigError, match="nearest sizes are 16 or 20"):
        open_pretrained(source, image_size=18)


def test_parts_of_models(tmp_path):
    write(CLIP_PAIR, tmp_path / "clip", "hf")
    write(SIGLIP_PAIR, tmp_path / "siglip", "hf")
    write(MAE, tmp_path / "mae", "hf")
    for name, part, expected in (
        ("clip", "image", CLIP_PAIR.image),
        ("clip", "text", CLIP_PAIR.text),
        ("siglip", "image", SIGLIP_PAIR.image),
        ("mae", "encoder", MAE.encoder),
    ):
        config, params = opened(tmp_path / name, part=part)
        assert type(config) is type(expected)
        whole = flat({"clip": CLIP_PAIR, "siglip": SIGLIP_PAIR, "mae": MAE}[name])
        own = {path.removeprefix(f"{part}/"): a for path, a in whole.items() if path.startswith(f"{part}/")}
        assert params.keys() == own.keys()
        assert all(np.array_equal(params[path], array) for path, array in own.items())
    tuned = open_pretrained(tmp_path / "clip", num_classes=3, image_size=24)
    assert tuned.config.num_classes == 3
    assert tuned.config.head_bias
    assert tuned.report.new == {"head/kernel": "zero", "head/bias": "zero"}
    assert tuned.report.changed.keys() == {"pos_embed"}
    tuned = open_pretrained(tmp_path / "mae", num_classes=3)
    assert tuned.config.pool == "cls"
    assert all(name.startswith("decoder.") for name in tuned.report.dropped)
    for options, why in (
        (dict(part="decoder"), "has the parts: encoder"),
        (dict(image_size=32), "cannot change in a model of several"),
    ):
        with pytest.raises(ConfigError, match=why):
            open_pretrained(tmp_path / "mae", **options)
    assert open_pretrained(tmp_path / "mae", dtype="bfloat16").config.decoder.dtype == "bfloat16"


def test_a_text_tower_has_no_images(tmp_path):
    write(CLIP_PAIR, tmp_path, "hf")
    with pytest.raises((ConfigError, CheckpointError)):
        open_pretrained(tmp_path, part="text", image_size=32)
