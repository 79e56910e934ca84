"""SimMIM: the loss of transformers, what is hidden, what the model can know, and what is refused."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.objectives.steps import assert_divided_steps_are_whole_ones, configuration
from tests.parity.sources import prepare
from tests.reference.cases import assert_close, load_case, nhwc, tolerance, weights_file
from tests.tiny import labelled, randomised, tiny
from vit_jax.errors import ConfigError
from vit_jax.models.families import family_of
from vit_jax.models.functional import parameters as parameters_of
from vit_jax.models.hiera.config import HieraConfig
from vit_jax.models.swin.config import SwinConfig
from vit_jax.models.vit.config import replace
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.simmim.losses import enlarged, hidden_errors, hidden_squares, l1_loss
from vit_jax.objectives.simmim.objective import build
from vit_jax.objectives.simmim.options import SimmimOptions
from vit_jax.training.experiment import build as experiment_of
from vit_jax.trees import flatten
from vit_jax.weights.load import load

KEY = jax.random.key(0)
MODEL = tiny(depth=1)


def objective(model=MODEL, **options):
    return build(model, SimmimOptions(**dict(mask_size=8) | options), DataInfo(5))


def parameters(ours):
    return randomised(jax.eval_shape(ours.init, KEY)[0])


@pytest.mark.parametrize("case", ["vit_hf_simmim", "deit_hf_mim", "swin_hf_simmim"])
def test_the_loss_is_that_of_transformers(case, tmp_path):
    about, arrays, _ = load_case(case)
    model = load(prepare(about, weights_file(case), tmp_path)[0], verbose=False)
    ours = objective(model.config, mask_size=model.config.patch_size[0])
    assert (
        ours.model == model.config
    )  # the published layout is what is trained, so it is written back as it is
    images = jnp.asarray(nhwc(arrays["in.pixel_values"]))
    hidden = jnp.asarray(arrays["in.bool_masked_pos"], bool).reshape(len(images), -1)
    prepared = {"image": images, "hidden": hidden}
    reconstruct = jax.jit(ours.reconstruct)
    predicted, _ = reconstruct(parameters_of(model), {}, prepared, None)
    assert_close(
        predicted, nhwc(arrays["out.reconstruction"]), tolerance(about, "reconstruction"), "reconstruction"
    )
    side = model.config.patch_size[0]
    pixels = enlarged(hidden.reshape(-1, *model.config.grid), (side, side))
    errors, count = hidden_errors(images, predicted, pixels)
    assert_close(l1_loss(errors.sum(), count.sum()), arrays["out.loss"], tolerance(about, "loss"), "loss")


def test_as_many_squares_are_hidden_in_every_image():
    hidden = np.asarray(hidden_squares(jax.random.uniform(KEY, (400, 36)), math.ceil(0.6 * 36)))
    assert set(hidden.sum(axis=1)) == {22}  # as the authors' mask generator, of 36 squares
    assert len(np.unique(hidden, axis=0)) == 400
    assert np.abs(hidden.mean(axis=0) - 22 / 36).max() < 5 * np.sqrt(0.24 / 400)
    mask = np.asarray(enlarged(jnp.asarray(hidden[:1].reshape(1, 6, 6)), (2, 3)))
    assert mask.shape == (1, 12, 18)
    np.testing.assert_array_equal(mask[0], np.kron(hidden[0].reshape(6, 6), np.ones((2, 3), bool)))


def test_the_loss_counts_hidden_pixels_alone():
    images, predicted = jnp.zeros((2, 2, 2, 3)), jnp.ones((2, 2, 2, 3))
    predicted = predicted.at[0, 0, 0].set(7.0)
    hidden = jnp.zeros((2, 2, 2), bool).at[0, 0, 0].set(True).at[1].set(True)
    errors, count = hidden_errors(images, predicted, hidden)
    np.testing.assert_array_equal(errors, [7, 4])
    np.testing.assert_array_equal(count, [1, 4])
    np.testing.assert_allclose(l1_loss(errors.sum(), count.sum()), 11 / (5 + 1e-5), rtol=1e-6)


def test_prepare_draws_new_squares_with_every_key_and_the_model_does_not_see_them():
    ours = objective()
    batch = labelled(4)
    one, again, other = (ours.prepare(batch, jax.random.key(seed)) for seed in (0, 0, 1))
    np.testing.assert_array_equal(one["hidden"], again["hidden"])
    assert not np.array_equal(one["hidden"], other["hidden"])
    assert one["hidden"].shape == (4, 4)
    assert set(np.asarray(one["hidden"]).sum(axis=1)) == {3}
    params, pixels = parameters(ours), ours._hidden_pixels(one)[..., None]
    reconstruct = jax.jit(lambda images: ours.reconstruct(params, {}, one | {"image": images}, None)[0])
    predicted = reconstruct(one["image"])
    np.testing.assert_array_equal(reconstruct(jnp.where(pixels, 7.0, one["image"])), predicted)
    assert np.abs(reconstruct(jnp.where(pixels, one["image"], 7.0)) - predicted).max() > 0.01


def test_evaluation_is_the_same_every_time_and_leaves_padding_out():
    ours = objective()
    params, data = parameters(ours), labelled(4) | {"mask": jnp.arange(4) < 3}
    evaluate = jax.jit(ours.evaluate)
    whole = evaluate(params, {}, data)
    rows = [float(evaluate(params, {}, data | {"mask": jnp.arange(4) == i})["loss"]) for i in range(4)]
    assert float(whole["count"]) == 3
    np.testing.assert_allclose(whole["loss"], sum(rows[:3]), rtol=1e-5)
    picture = ours.illustrate(
        params, {}, {name: np.asarray(value) for name, value in data.items()}, ["a", "b", "c", "d"]
    )
    assert (picture.columns, len(picture.examples)) == (("image", "seen", "reconstructed"), 4)
    image, seen, made = picture.examples[0].images
    kept = (image == seen).all(axis=-1)
    np.testing.assert_array_equal(image[kept], made[kept])
    assert 0.2 < kept.mean() < 0.35
    assert not np.array_equal(image, made)


def test_divided_steps_are_whole_ones():
    def make():
        return configuration({"name": "simmim", "mask_size": 4}, class_token=False, pool="mean")

    experiment, state, metrics = assert_divided_steps_are_whole_ones(make)
    assert metrics["finite"] == 1
    assert set(state.params) >= {"mask_token", "head", "blocks"}
    assert not experiment.task.objective.outputs_named  # else ten digits would be the names of four pixels
    learned = experiment.task.objective
    rows = learned.features(state.params, {}, labelled(2, 8, 1))
    assert rows.shape == (2, 16)
    np.testing.assert_array_equal(family_of(learned.model).headless(learned.model).pool, "mean")


def test_it_starts_from_a_checkpoint_that_knows_nothing_of_masks(tmp_path):
    config = configuration({"name": "simmim", "mask_size": 8}, unroll=1)
    config.model = {"checkpoint": str(weights_file("vit_timm_token")), "unroll": 1}
    config.data.train_split = "train"
    experiment = experiment_of(config)
    state = experiment.init()
    own = flatten(state.params)
    assert own["head/kernel"].shape[-1] == math.prod(experiment.task.objective.model.patch_size) * 3
    assert np.abs(own["mask_token"]).max() > 0  # drawn, not zero


@pytest.mark.parametrize(
    ("model", "options", "message"),
    [
        (HieraConfig(), {}, "family 'hiera' has no mask token, which SimMIM needs; choose one of vit, swin"),
        (MODEL, dict(mask_size=6), "mask_size is 6; it must be a multiple of the patches' 4 pixels"),
        (MODEL, dict(mask_size=32), "mask_size is 32; .* and divide the images' 16"),
        (MODEL, dict(mask_size=16), "mask_ratio is 0.6, which hides all 1 squares of 16 pixels"),
        (MODEL, dict(mask_ratio=1.0), "mask_ratio is 1.0; it must be above 0 and below 1"),
        (replace(MODEL, patch_drop_rate=0.5), {}, "patch_drop_rate is 0.5, but SimMIM needs every patch"),
        (replace(MODEL, merge_tokens=2), {}, r"merge_tokens is \(2,\), but SimMIM needs every patch"),
        (
            SwinConfig(
                image_size=24, patch_size=2, width=8, depths=(1, 1, 1), heads=(1, 1, 1), window_size=3
            ),
            {},
            None,
        ),
        (
            SwinConfig(
                image_size=20,
                patch_size=2,
                width=8,
                depths=(1, 1, 1),
                heads=(1, 1, 1),
                window_size=3,
                window_fit="pad_together",
            ),
            dict(mask_size=4),
            r"image_size is \(20, 20\), but each place of the last map predicts \(8, 8\) pixels",
        ),
    ],
)
def test_what_cannot_be_learned_is_refused(model, options, message):
    if message is None:
        assert objective(model, **options).model.num_classes == 8 * 8 * 3
        return
    with pytest.raises(ConfigError, match=message):
        objective(model, **options)
