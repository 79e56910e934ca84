"""Swin Transformers of both versions: what they compute, at which sizes, and how they are run."""

from functools import cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.models.swin.models import FIRST, SECOND, VERSIONS
from tests.tiny import assert_trees_close, functions, parameters, pixels, run
from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.models.layers import attention as attention_module
from vit_jax.models.layers.encoder import drop_path_rates
from vit_jax.models.layers.kernels.together import attend
from vit_jax.models.layers.lora import Lora
from vit_jax.models.registry import create_model, model_functions
from vit_jax.models.storage import stored
from vit_jax.models.swin.config import replace

NAMES = ("embedded", "stages/0", "stages/-1", "blocks/4", "attention/1", "encoded", "pooled")
DROPPED = dict(drop_path_rate=0.3, dropout_rate=0.1, attention_dropout_rate=0.1)


@cache
def loss_and_gradient(config):
    """A loss of the logits, compiled, and its gradient in all parameters, with everything dropped now and then.

    Two pairs of blocks, which may be rolled, and one that is left.
    """
    config = replace(config, depths=(5,), heads=(2,), **DROPPED)

    def loss(params):
        return jnp.square(functions(config).apply(params, pixels(), jax.random.key(3))).sum()

    return jax.jit(jax.value_and_grad(loss))(parameters(config))


@pytest.mark.parametrize("version", VERSIONS)
def test_values_on_the_way_and_their_shapes(version):
    logits, values = run(VERSIONS[version], pixels(), capture=NAMES)
    shapes = {name: values[name].shape for name in NAMES}
    assert shapes == {
        "embedded": (2, 8, 8, 8),
        "stages/0": (2, 8, 8, 8),
        "stages/-1": (2, 4, 4, 16),
        "blocks/4": (2, 4, 4, 16),
        "attention/1": (2 * 16, 2, 4, 4),
        "encoded": (2, 4, 4, 16),
        "pooled": (2, 16),
    }
    assert logits.shape == (2, 5)
    np.testing.assert_array_equal(values["blocks/4"], values["stages/-1"])
    np.testing.assert_allclose(values["attention/1"].sum(-1), 1, rtol=1e-5)
    np.testing.assert_allclose(values["pooled"], values["encoded"].mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_without_numbers_all_are_captured():
    _, values = run(FIRST, pixels(), capture=("stages", "blocks", "attention"))
    assert [len(values[name]) for name in ("stages", "blocks", "attention")] == [2, 5, 5]
    np.testing.assert_array_equal(values["blocks"][1], values["stages"][0])


@pytest.mark.parametrize("version", VERSIONS)
def test_unrolled_is_rolled(version):
    rolled = VERSIONS[version]
    unrolled = replace(rolled, unroll=0)
    assert_trees_close(loss_and_gradient(rolled), loss_and_gradient(unrolled), rtol=2e-5, atol=1e-6)


@pytest.mark.parametrize("remat", ["full", "dots", "attention"])
def test_checkpointing_changes_nothing(remat):
    ours, other = (loss_and_gradient(config) for config in (FIRST, replace(FIRST, remat=remat)))
    assert_trees_close(ours, other, rtol=2e-5, atol=1e-6)


def test_drop_path_grows_over_all_stages():
    rates = drop_path_rates(replace(FIRST, drop_path_rate=0.4))
    np.testing.assert_allclose(rates, [0, 0.1, 0.2, 0.3, 0.4], rtol=1e-6)
    constant = drop_path_rates(replace(FIRST, drop_path_rate=0.4, drop_path_schedule="constant"))
    np.testing.assert_allclose(constant, 0.4)


def test_the_last_blocks_branches_are_dropped_for_whole_images():
    config = replace(FIRST, drop_path_rate=0.999999, depths=(1, 2), heads=(2, 4))
    _, values = run(config, pixels(), jax.random.key(0), capture=("blocks",))
    np.testing.assert_array_equal(values["blocks"][2], values["blocks"][1])  # of a rate of almost 1
    assert (
        np.abs(values["blocks"][0] - run(config, pixels(), capture=("embedded",))[1]["embedded"]).max() > 0.1
    )


def test_the_second_version_starts_as_an_identity():
    model = create_model("swinv2_tiny_window8_256", image_size=16, width=8, depths=(2, 2), heads=(2, 2), patch_size=2,
                         window_size=4, num_classes=3)  # fmt: skip
    _, values = model(pixels(), capture=("embedded", "stages/0"))
    np.testing.assert_array_equal(values["embedded"], values["stages/0"])
    np.testing.assert_allclose(np.exp(model.stages[0].blocks.attn.logit_scale[...]), 10, rtol=1e-5)
    assert not np.asarray(model(pixels())).any()  # the head starts at zero


@pytest.mark.parametrize("version", VERSIONS)
def test_a_place_sees_its_window_and_after_the_shift_the_next(version):
    """Which pixels move a place of the first map: those of its window, then of windows moved by half of one."""
    config = replace(VERSIONS[version], depths=(2,), heads=(2,), window_size=4)
    images, params = pixels(1), parameters(config)

    def reach(block):
        def place(images):
            _, values = functions(config).apply(params, images, capture=(f"blocks/{block}",))
            return values[f"blocks/{block}"][0, 2, 2].sum()

        moved = np.abs(jax.jit(jax.grad(place))(images))[0].sum(-1)
        return moved.reshape(8, 2, 8, 2).sum((1, 3)) > 0

    inside = np.zeros((8, 8), bool)
    inside[:4, :4] = True
    np.testing.assert_array_equal(reach(0), inside)
    # Place (2, 2) lies in the shifted window of places 2 to 5, which reach into all four windows.
    assert reach(1).all()


def test_what_the_shift_brings_together_is_hidden():
    config = replace(FIRST, depths=(2,), heads=(2,), window_size=4)
    _, values = run(config, pixels(), capture=("attention/1",))
    last = np.asarray(values["attention/1"])[3]  # the corner: places of four sides of the map
    places = np.arange(16).reshape(4, 4)
    own, other = places[:2, :2].ravel(), places[2:].ravel()
    assert last[:, own][:, :, other].max() < 1e-20
    np.testing.assert_allclose(last[:, own][:, :, own].sum(-1), 1, rtol=1e-5)


@pytest.mark.parametrize("fit", ["clamp", "pad", "pad_together", "clamp_once"])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (20, 28), (14, 22), (8, 40)])
def test_images_of_any_size(fit, height, width):
    config = replace(FIRST, window_fit=fit)
    logits, values = run(config, pixels(2, height, width), capture=("stages/1",))
    assert logits.shape == (2, 5)
    assert values["stages/1"].shape == (2, -(-height // 4), -(-width // 4), 16)
    assert np.isfinite(logits).all()


def test_ways_to_fit_differ_where_windows_do_not_divide_and_only_there():
    config = replace(FIRST, window_size=4)
    for size, same in ((16, True), (20, False)):
        outputs = [run(replace(config, window_fit=fit), pixels(2, size, size)) for fit in ("clamp", "pad")]
        assert np.allclose(*outputs, atol=1e-5) is same


def test_pixels_that_fill_no_patch():
    images = pixels(2, 17, 18)
    padded = run(replace(FIRST, window_fit="pad_together"), jnp.pad(images, ((0, 0), (0, 1), (0, 0), (0, 0))))
    np.testing.assert_array_equal(run(replace(FIRST, window_fit="pad_together"), images), padded)
    cut = run(replace(FIRST, window_fit="pad"), images[:, :16])
    np.testing.assert_array_equal(run(replace(FIRST, window_fit="pad"), images), cut)
    with pytest.raises(
        ConfigError, match="height 17, not divisible by patch size 2; the nearest sizes are 16 or 18"
    ):
        run(FIRST, images)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((1, 16, 16, 3), np.uint8), "images are uint8, raw pixels"),
        (np.zeros((1, 16, 16, 1), np.float32), r"images have shape \(1, 16, 16, 1\); the model takes"),
        (np.zeros((1, 2, 16, 3), np.float32), "images of 1x8 patches leave no map in stage 2"),
    ],
)
def test_images_it_does_not_take(images, message):
    with pytest.raises(ConfigError, match=message):
        functions(FIRST).apply(parameters(FIRST), images)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("block/0", "'block/0' cannot be captured; names are embedded, stages.*Did you mean 'blocks'"),
        ("pooled/0", "'pooled/0' has a number, but only stages, blocks, attention are counted"),
        ("stages/2", "'stages/2' is not part of this model; it has 2 stages, counted from 0"),
        ("blocks/-6", "'blocks/-6' is not part of this model; it has 5 blocks"),
    ],
)
def test_captures_that_are_none(name, message):
    with pytest.raises(ConfigError, match=message):
        functions(FIRST).apply(parameters(FIRST), pixels(), capture=(name,))


def test_maps_of_all_levels_are_features():
    maps = model_functions(FIRST).features(parameters(FIRST), {}, pixels(2, 20, 16))
    assert [x.shape for x in maps] == [(2, 10, 8, 8), (2, 5, 4, 16)]
    with pytest.raises(
        ConfigError, match=r"'stages/4' is not a level of this model; it has stages/0 \(stride 2\), stages/1"
    ):
        model_functions(FIRST).features(parameters(FIRST), {}, pixels(), levels=["stages/4"])


def test_masked_patches_are_the_mask_token():
    config = replace(FIRST, mask_token=True)
    mask = np.zeros((2, 64), bool)
    mask[:, 10:20] = True
    images = np.asarray(pixels())
    hidden = np.where(mask.reshape(2, 8, 1, 8, 1, 1), 7.0, images.reshape(2, 8, 2, 8, 2, 3)).reshape(
        images.shape
    )
    apply = jax.jit(functions(config).apply)
    ours, other = (apply(parameters(config), x.astype(np.float32), mask=mask) for x in (images, hidden))
    np.testing.assert_array_equal(ours, other)
    with pytest.raises(ConfigError, match="a mask was given to a model without mask_token"):
        functions(FIRST).apply(parameters(FIRST), pixels(), mask=mask)
    with pytest.raises(ConfigError, match=r"mask has shape \(2, 63\); the patches are \(2, 8, 8\)"):
        functions(config).apply(parameters(config), pixels(), mask=mask[:, 1:])


def test_half_precision_is_near():
    exact = run(SECOND, pixels())
    near = run(replace(SECOND, dtype="bfloat16"), pixels())
    assert near.dtype == jnp.float32
    np.testing.assert_allclose(near, exact, atol=0.05 * np.abs(exact).max())


def test_int8_storage_and_low_rank_factors_find_its_layers():
    for config in VERSIONS.values():
        params = parameters(config)
        near = run(config, pixels(), params=stored(params, "int8"))
        exact = run(config, pixels())
        np.testing.assert_allclose(near, exact, atol=0.05 * np.abs(exact).max())
        lora = Lora(2, 2.0, ("query", "out", "fc1"))
        factors = lora.init(jax.random.key(0), params)
        assert sorted(trees.flatten(factors)) == [
            f"stages/{stage}/blocks/{layer}/{factor}"
            for stage in (0, 1)
            for layer in ("attn/out", "attn/query", "mlp/fc1")
            for factor in "ab"
        ]
        merged = lora.merge({**params, "lora": factors})
        assert_trees_close(merged, params)


def test_a_new_head_starts_at_zero():
    model = model_functions(FIRST).bind(parameters(FIRST))
    model.reset_classifier(3)
    assert model(pixels()).shape == (2, 3)
    assert not np.asarray(model(pixels())).any()
    model.reset_classifier(0)
    assert model(pixels()).shape == (2, 16)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_kernel_of_tpus_is_the_same_model(version, monkeypatch):
    """Played: four windows of 49 places, two side by side, twice; then of the shifted block."""
    sizes = dict(image_size=28, window_size=7, width=32, depths=(2,), heads=(4,))
    config = replace(VERSIONS[version], **sizes)
    expected = with_gradients(config)
    calls = []

    def kernel(*given, **named):
        calls.append(named["windows"])
        return attend(*given, **named, interpret=True)

    monkeypatch.setattr("vit_jax.models.layers.kernels.together.attend", kernel)
    monkeypatch.setattr(attention_module, "platform", lambda: "tpu")
    monkeypatch.setattr(attention_module, "is_known", lambda: True)
    ours = with_gradients(replace(config, attention="kernel"))
    assert calls == [4, 4]
    assert_trees_close(ours, expected, rtol=1e-4, atol=1e-5)


def with_gradients(config):
    """The loss of a few images and its gradient."""

    def loss(params):
        return jnp.square(functions(config).apply(params, pixels(height=28, width=28))).sum()

    return jax.jit(jax.value_and_grad(loss))(parameters(config))
