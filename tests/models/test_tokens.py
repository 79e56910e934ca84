"""Tokens beside the patches, poolings of several tokens, padding, and images as sequences of patches."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import TINY, assert_trees_close, functions, parameters, pixels, run, tiny
from vit_jax.errors import ConfigError
from vit_jax.models.layers.pixels.patches import patchify
from vit_jax.models.patches import Patches
from vit_jax.models.vit.config import replace
from vit_jax.models.vit.resnet_config import ResNetConfig

MASKED = tiny(mask_token=True)


def masked(config, images, mask, capture=()):
    apply = jax.jit(functions(config).apply, static_argnames="capture")
    return apply(parameters(config), images, None, capture=capture, mask=mask)


def test_the_mask_token_stands_in_for_patches():
    mask = jnp.zeros((2, 16), bool).at[0, 5].set(True).at[1, 2:9].set(True)
    logits, values = masked(MASKED, pixels(), mask, ("embedded",))
    params = parameters(MASKED)
    hidden = params["mask_token"] + params["pos_embed"][1:]
    _, whole = run(MASKED, pixels(), capture=("embedded",))
    expected = jnp.where(mask[..., None], hidden, whole["embedded"][:, 1:])
    np.testing.assert_allclose(values["embedded"][:, 1:], expected, atol=1e-6)
    # The hidden pixels say nothing.
    pixel_mask = jnp.repeat(jnp.repeat(mask.reshape(2, 4, 4), 4, axis=1), 4, axis=2)[..., None]
    other = masked(MASKED, jnp.where(pixel_mask, 9.0, pixels()), mask, ("embedded",))[0]
    np.testing.assert_array_equal(logits, other)
    nothing = masked(MASKED, pixels(), jnp.zeros((2, 16), bool), ("embedded",))[0]
    np.testing.assert_array_equal(nothing, run(MASKED, pixels(), capture=("embedded",))[0])


@pytest.mark.parametrize(
    ("config", "shape", "message"),
    [
        (TINY, (2, 16), "a mask was given to a model without mask_token; create it with one"),
        (MASKED, (2, 17), r"mask has shape \(2, 17\); the patches have \(2, 16\)"),
        (MASKED, (16,), r"mask has shape \(16,\); the patches have \(2, 16\)"),
    ],
)
def test_wrong_masks(config, shape, message):
    with pytest.raises(ConfigError, match=message):
        functions(config).apply(parameters(config), pixels(), mask=jnp.zeros(shape, bool))


def test_distillation_is_the_mean_of_two_heads():
    config = tiny(distillation_token=True)
    params = parameters(config)
    assert params["pos_embed"].shape == (18, 32)
    names = ("embedded", "encoded", "pooled", "class_logits", "distillation_logits")
    logits, values = run(config, pixels(), capture=names)
    assert values["embedded"].shape == (2, 18, 32)
    for place, token in enumerate(("class_token", "distillation_token")):
        first = params[token][0] + params["pos_embed"][place]
        np.testing.assert_allclose(values["embedded"][:, place], np.stack([first, first]), atol=1e-6)
    for place, (name, head) in enumerate(
        (("class_logits", "head"), ("distillation_logits", "head_distillation"))
    ):
        expected = values["encoded"][:, place] @ params[head]["kernel"] + params[head]["bias"]
        np.testing.assert_allclose(values[name], expected, atol=2e-6)
    mean = (values["class_logits"] + values["distillation_logits"]) / 2
    np.testing.assert_allclose(logits, mean, atol=1e-6)
    np.testing.assert_allclose(values["pooled"], values["encoded"][:, :2].mean(axis=1), atol=1e-6)


@pytest.mark.parametrize(
    ("name", "part"), [("class_logits", "distillation head"), ("stem", "convolutions before the patches")]
)
def test_captures_of_parts_that_are_not_there(name, part):
    with pytest.raises(ConfigError, match=f"'{name}' cannot be captured: this model has no {part}"):
        functions(TINY).apply(parameters(TINY), pixels(), capture=(name,))


@pytest.mark.parametrize(("pool", "width"), [("cls_mean", 64), ("patches", 32)])
def test_poolings_of_several_tokens(pool, width):
    config = tiny(pool=pool, register_tokens=2)
    logits, values = run(config, pixels(), capture=("encoded", "pooled"))
    encoded, head = values["encoded"], parameters(config)["head"]
    assert (config.feature_width, head["kernel"].shape) == (width, (width, 5))
    expected = encoded[:, 3:]
    if pool == "cls_mean":
        expected = jnp.concatenate([encoded[:, 0], encoded[:, 3:].mean(axis=1)], axis=1)
    np.testing.assert_allclose(values["pooled"], expected, atol=1e-6)
    np.testing.assert_allclose(logits, expected @ head["kernel"] + head["bias"], atol=3e-6)


def test_sizes_that_patches_do_not_divide_are_padded_below_and_on_the_right():
    config = tiny(dynamic_image_size=True, dynamic_image_pad=True, stem=(4,))
    images = pixels(2, 18, 13)
    padded = jnp.zeros((2, 20, 16, 3)).at[:, :18, :13].set(images)
    np.testing.assert_array_equal(run(config, images), run(config, padded))


# ---- images as sequences of patches

SEQUENCES = tiny(class_token=False, pool="map", dynamic_image_size=True, resample="bilinear")
SHAPES = ((16, 16), (8, 24), (20, 4))
LONGEST = 18


def sequence(shapes, filler=3.0):
    """Images of these heights and widths, alone and as one padded sequence each."""
    images = [pixels(1, *shape, seed=i) for i, shape in enumerate(shapes)]
    values = [patchify(image, (4, 4))[0] for image in images]
    padded = [jnp.full((LONGEST, 48), filler).at[: len(rows)].set(rows) for rows in values]
    return images, Patches(jnp.stack(padded), jnp.asarray([(h // 4, w // 4) for h, w in shapes]))


@pytest.mark.parametrize(
    "config",
    [
        SEQUENCES,
        replace(SEQUENCES, pool="mean", resample="bicubic", attention="xla"),
        replace(SEQUENCES, pool="mean", position="none", pool_norm="after", rope="eva", rope_grid=(3, 3)),
        replace(SEQUENCES, class_token=True, register_tokens=2, pool="cls_mean", rope="dinov3"),
        replace(SEQUENCES, class_token=True, distillation_token=True, pool="cls", position="sincos2d_mae"),
    ],
    ids=["map", "mean", "rotary", "tokens", "fixed"],
)
def test_sequences_are_the_images_one_by_one(config):
    images, patches = sequence(SHAPES)
    params = parameters(config)

    @jax.jit
    def outputs(params, images, patches):
        apply = functions(config).apply
        return [apply(params, image)[0] for image in images], apply(params, patches)

    alone, together = outputs(params, images, patches)
    np.testing.assert_allclose(together, np.stack(alone), atol=5e-6)
    assert np.ptp(together, axis=0).min() > 1e-3
    # Padding says nothing.
    _, again = outputs(params, images, sequence(SHAPES, filler=-7.0)[1])
    np.testing.assert_array_equal(together, again)


def test_padding_gets_no_gradient_and_the_mask_token_stands_in():
    config = replace(SEQUENCES, mask_token=True)
    _, patches = sequence(SHAPES)
    mask = jnp.zeros((3, LONGEST), bool).at[:, 1].set(True)

    def loss(values):
        out = functions(config).apply(parameters(config), Patches(values, patches.sizes), mask=mask)
        return jnp.sin(out).sum()

    found = np.asarray(jax.jit(jax.grad(loss))(patches.values)).any(axis=2)
    np.testing.assert_array_equal(found, patches.valid & ~mask)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(stem=(4,)),
            r"this model has stem \(4,\) and does not take patches of variable-size images; give",
        ),
        (
            dict(backbone=ResNetConfig(), patch_size=4, image_size=32),
            r"this model has backbone ResNetConfig\(",
        ),
        (dict(class_token=True, position_bias="shared"), "this model has position_bias 'shared' and"),
        (dict(patch_drop_rate=0.5), "this model has patch_drop_rate 0.5 and"),
        (dict(resample="zoom"), "resampled bilinear or bicubic; this model has resample 'zoom'; give images"),
    ],
)
def test_models_that_do_not_take_sequences(changes, message):
    config = replace(SEQUENCES, **changes)
    with pytest.raises(ConfigError, match=message):
        functions(config).apply(parameters(config), sequence(SHAPES)[1])
    with pytest.raises(ConfigError, match=r"max_patches is 64, but .*set max_patches to 0"):
        replace(config, max_patches=64)


@pytest.mark.parametrize(
    ("values", "sizes"), [((2, 18, 47), (2, 2)), ((18, 48), (2,)), ((2, 18, 48), (2,)), ((2, 18, 48), (1, 2))]
)
def test_wrong_sequences(values, sizes):
    with pytest.raises(
        ConfigError, match=r"patches have shape .*; the model takes \(batch, patches, 48\) and"
    ) as info:
        functions(SEQUENCES).apply(
            parameters(SEQUENCES), Patches(jnp.zeros(values), jnp.ones(sizes, jnp.int32))
        )
    assert "\n" not in str(info.value)


# ---- the parts together

TOGETHER = tiny(
    backbone=ResNetConfig((1,), (128,), 32),
    patch_size=2,
    image_size=(16, 32),
    rope="eva",
    rope_grid=(3, 3),
    position_bias="blocks",
    mask_token=True,
    k_bias=False,
    attention_norm=True,
    mlp="swiglu",
    mlp_norm=True,
    pool="mean",
)
MASK = jnp.asarray(np.arange(16).reshape(2, 8) % 3 == 0)


def together(config):
    params = parameters(TOGETHER)

    def loss(params):
        out = functions(config).apply(params, pixels(2, 16, 32), mask=MASK)
        return jnp.sin(out).sum(), out

    return jax.jit(jax.value_and_grad(loss, has_aux=True))(params)


@pytest.fixture(scope="module")
def reference():
    return together(TOGETHER)


@pytest.mark.parametrize("changes", [dict(unroll=0), dict(remat="full", attention="xla")])
def test_unrolled_rematerialised_and_fused_change_no_number(reference, changes):
    assert TOGETHER.unroll == 1
    assert_trees_close(together(dataclasses.replace(TOGETHER, **changes)), reference, rtol=1e-5)


def test_every_parameter_has_a_gradient(reference):
    for path, gradient in jax.tree_util.tree_leaves_with_path(reference[1]):
        assert np.abs(gradient).max() > 0, jax.tree_util.keystr(path)


def test_bfloat16_is_close(reference):
    config = dataclasses.replace(TOGETHER, dtype="bfloat16")
    apply = jax.jit(functions(config).apply)
    ours, (_, exact) = apply(parameters(TOGETHER), pixels(2, 16, 32), mask=MASK), reference[0]
    assert ours.dtype == jnp.float32
    assert 0 < np.abs(ours - exact).max() < 0.1 * np.abs(exact).max()
