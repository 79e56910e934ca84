"""Masked autoencoding: masks, targets, what the encoder can know, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import labelled, pixels, randomised, tiny
from vit_jax.errors import ConfigError
from vit_jax.models.arithmetic import encoder_macs
from vit_jax.models.layers.pixels.patches import patchify
from vit_jax.models.mae.masking import random_masking, visible_patches
from vit_jax.models.vit.config import replace
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.mae.objective import build, hidden_patch_losses, patch_targets
from vit_jax.objectives.mae.options import MaeOptions

MODEL = tiny(depth=1, register_tokens=1)
KEY = jax.random.key(0)


def objective(model=MODEL, **options):
    defaults = dict(decoder_width=16, decoder_depth=1, decoder_heads=2)
    return build(model, MaeOptions(**defaults | options), DataInfo(5))


def parameters(ours):
    return randomised(jax.eval_shape(ours.init, KEY)[0])


def batch(size=6):
    return labelled(size) | {"mask": jnp.ones(size, bool)}


@pytest.mark.parametrize("keep", [1, 4, 16])
def test_masks(keep):
    noise = jax.random.uniform(KEY, (50, 16))
    kept, restore, mask = map(np.asarray, random_masking(noise, keep))
    np.testing.assert_array_equal((mask == 0).sum(axis=1), keep)
    assert set(np.unique(mask)) <= {0.0, 1.0}
    for i in range(50):
        np.testing.assert_array_equal(np.sort(kept[i]), np.flatnonzero(mask[i] == 0))
        np.testing.assert_array_equal(restore[i][kept[i]], np.arange(keep))
        np.testing.assert_array_equal(np.sort(restore[i]), np.arange(16))
        order = np.argsort(np.asarray(noise)[i])
        np.testing.assert_array_equal(order[restore[i]], np.arange(16))
    if keep == 4:
        assert len(np.unique(mask, axis=0)) > 45  # every image has its own
        # Each patch is hidden 3/4 of the time.
        assert np.abs(mask.mean(axis=0) - 0.75).max() < 5 * np.sqrt(0.75 * 0.25 / 50)


def test_number_of_visible_patches():
    assert [visible_patches(196, r) for r in (0.0, 0.75, 0.9, 0.999)] == [196, 49, 19, 1]
    assert visible_patches(1, 0.5) == 1


def test_prepare_draws_new_masks_with_every_key():
    ours = objective()
    one, again, other = (ours.prepare(batch(), jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one["noise"], again["noise"])
    assert not np.array_equal(one["noise"], other["noise"])
    assert one["noise"].shape == (6, 16)
    np.testing.assert_allclose(one["image"], np.asarray(batch()["image"]) / 127.5 - 1, atol=1e-6)


def test_normalised_targets_have_no_mean_and_unit_variance():
    images = 5 + 3 * pixels(3, 8, 12, 2)
    target = np.asarray(patch_targets(images, (4, 4), True))
    assert target.shape == (3, 6, 32)
    np.testing.assert_allclose(target.mean(axis=-1), 0, atol=1e-5)
    np.testing.assert_allclose(target.var(axis=-1, ddof=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(patch_targets(images, (4, 4), False), patchify(images, (4, 4)))
    np.testing.assert_array_equal(patch_targets(jnp.full((1, 4, 4, 1), 3.0), (4, 4), True), 0)


@pytest.mark.parametrize("ratio", [0.01, 0.75, 0.999])
def test_the_loss_is_the_mean_over_hidden_patches(ratio):
    ours = objective(mask_ratio=ratio)
    params, prepared = parameters(ours), ours.prepare(batch(), KEY)

    @jax.jit
    def both(params, batch):
        applied = ours.functions.apply(params, batch["image"], batch["noise"], ratio)
        return applied, ours.loss(params, {}, batch, KEY)

    (predicted, mask), (loss, out) = both(params, prepared)
    hidden = np.asarray(mask, bool)
    assert hidden.sum() == 6 * {0.01: 1, 0.75: 12, 0.999: 15}[ratio]
    target = patch_targets(prepared["image"], (4, 4), True)
    np.testing.assert_allclose(
        loss, np.asarray(hidden_patch_losses(predicted, target))[hidden].mean(), rtol=1e-5
    )
    np.testing.assert_array_equal(out.weight, hidden.sum())
    np.testing.assert_array_equal(out.metrics["loss"], loss)


def test_the_encoder_does_not_see_hidden_pixels():
    ours = objective()
    params, prepared = parameters(ours), ours.prepare(batch(), KEY)
    images, noise = prepared["image"], prepared["noise"]
    apply = jax.jit(lambda p, x, n: ours.functions.apply(p, x, n, 0.75))
    predicted, mask = apply(params, images, noise)
    # One pixel mask per image, from the patches that are hidden.
    hidden = np.kron(np.asarray(mask).reshape(6, 4, 4), np.ones((1, 4, 4)))[..., None] > 0
    other_hidden, _ = apply(params, jnp.where(hidden, 7.0, images), noise)
    np.testing.assert_array_equal(other_hidden, predicted)
    other_visible, _ = apply(params, jnp.where(hidden, images, 7.0), noise)
    assert np.abs(other_visible - predicted).max() > 0.1

    def prediction(images):
        return jnp.square(ours.functions.apply(params, images, noise, 0.75)[0]).sum()

    gradient = np.asarray(jax.jit(jax.grad(prediction))(images))
    assert not gradient[np.broadcast_to(hidden, gradient.shape)].any()
    assert (np.abs(gradient[np.broadcast_to(~hidden, gradient.shape)]) > 0).mean() > 0.99


def test_predictions_follow_patches_not_their_order_in_the_shuffle():
    """Another noise that hides the same patches gives the same picture."""
    ours = objective()
    params, images = parameters(ours), pixels(2)
    order = np.random.default_rng(0).permutation(16)
    rank = np.empty(16)
    rank[order] = np.arange(16)
    other = rank.copy()
    other[order[:4]] = rank[order[[2, 0, 3, 1]]]
    other[order[4:]] = rank[order[4:][::-1]]
    apply = jax.jit(lambda n: ours.functions.apply(params, images, n, 0.75))
    one, two = (apply(jnp.asarray(np.stack([noise] * 2), jnp.float32)) for noise in (rank, other))
    np.testing.assert_array_equal(one[1], two[1])
    np.testing.assert_allclose(one[0], two[0], atol=1e-5)


def test_evaluation_is_deterministic_and_leaves_padding_out():
    ours = objective()
    params = parameters(ours)
    evaluate = jax.jit(ours.evaluate)
    one, again = (evaluate(params, {}, batch()) for _ in range(2))
    assert set(one) == {"loss", "count"}
    np.testing.assert_array_equal(one["loss"], again["loss"])
    assert float(one["count"]) == 6
    rows = [float(evaluate(params, {}, batch() | {"mask": jnp.arange(6) == i})["loss"]) for i in range(6)]
    assert len(set(rows)) == 6
    np.testing.assert_allclose(one["loss"], sum(rows), rtol=1e-5)
    half = evaluate(params, {}, batch() | {"mask": jnp.arange(6) < 3})
    np.testing.assert_allclose(half["loss"], sum(rows[:3]), rtol=1e-5)
    assert float(half["count"]) == 3


def test_padding_that_is_not_finite_does_not_count():
    ours = objective()
    params, data = parameters(ours), batch()
    data["image"] = data["image"].astype(jnp.float32)
    data["mask"] = jnp.arange(6) < 5
    evaluate = jax.jit(ours.evaluate)
    expected = evaluate(params, {}, data)
    data["image"] = data["image"].at[5].set(jnp.nan)
    np.testing.assert_array_equal(evaluate(params, {}, data)["loss"], expected["loss"])


@pytest.mark.parametrize("normalise", [True, False])
def test_illustrate_shows_image_visible_part_and_reconstruction(normalise):
    ours = objective(normalise_pixels=normalise)
    data = {name: np.asarray(rows) for name, rows in labelled(3).items()}
    picture = ours.illustrate(parameters(ours), {}, data, ["a.png", "b.png", "c.png"])
    assert picture.columns == ("image", "seen", "reconstructed")
    assert "75%" in picture.title
    assert [example.record for example in picture.examples] == ["a.png", "b.png", "c.png"]
    for example, given in zip(picture.examples, data["image"]):
        assert example.caption.startswith("loss ")
        assert example.right is None
        for image in example.images:
            assert (image.shape, image.dtype) == ((16, 16, 3), np.uint8)
        image, seen, whole = example.images
        np.testing.assert_array_equal(image, given)
        patches = [np.asarray(patchify(x[None], (4, 4)))[0] for x in (image, seen, whole)]
        visible = (patches[0] == patches[1]).all(axis=1)
        assert visible.sum() == 4
        np.testing.assert_array_equal(patches[0][visible], patches[2][visible])
        assert len(np.unique(patches[1][~visible])) == 1  # grey
        assert not np.array_equal(patches[1][~visible], patches[2][~visible])


def test_the_encoder_is_that_of_the_paper_whatever_the_model_was_for():
    ours = objective(tiny(pool="map", class_token=False, representation_size=8))
    model = ours.model
    assert (model.position, model.pool, model.class_token) == ("sincos2d_mae", "none", True)
    assert (model.num_classes, model.representation_size) == (0, 0)
    names = set(parameters(ours)["encoder"])
    assert names == {"patch_embed", "class_token", "blocks", "norm"}
    assert set(parameters(ours)["decoder"]) == {"embed", "mask_token", "blocks", "norm", "head"}


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (MODEL, dict(mask_ratio=0.0), "mask_ratio is 0.0, which hides none of the 16 patches"),
        (replace(MODEL, patch_size=16), {}, "mask_ratio is 0.75, which hides none of the 1 patches"),
        (
            replace(MODEL, patch_drop_rate=0.5),
            {},
            "patch_drop_rate is 0.5; masked autoencoding drops patches",
        ),
    ],
)
def test_what_cannot_be_learned_is_refused(model, options, message):
    with pytest.raises(ConfigError, match=message):
        objective(model, **options)


def test_training_arithmetic():
    ours = objective()
    macs = 16 * 48 * 32 + encoder_macs(2 + 4, 32, 1, 64) + 6 * 32 * 16
    macs += encoder_macs(2 + 16, 16, 1, 64) + 16 * 16 * 48
    assert ours.train_flops == 6 * macs
