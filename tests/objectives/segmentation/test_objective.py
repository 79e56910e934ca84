"""Semantic segmentation: exact denominators over microbatches and devices, metrics of the whole set, evaluation."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests.tiny import assert_trees_close, randomised, tiny
from vit_jax.errors import ConfigError
from vit_jax.evaluation.metrics.segmentation import counts
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.options import parse_options
from vit_jax.objectives.registry import build_objective
from vit_jax.objectives.segmentation.losses import pixel_cross_entropy
from vit_jax.objectives.segmentation.options import SegmentationOptions
from vit_jax.training.config import default_config
from vit_jax.training.state import TrainState
from vit_jax.training.step import make_step
from vit_jax.trees import flatten

MODEL = tiny(depth=1, width=16, num_classes=3)
DATA = DataInfo(3, ("sky", "road", "tree"))


def objective(model=MODEL, **options):
    return build_objective(parse_options({"name": "segmentation", **options}), model, DATA)


def batch_of(count=8, size=(16, 16), seed=0):
    """Images of which the last half have few known pixels."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(-1, 3, (count, *size)).astype(np.int32)
    labels[count // 2 :, 3:] = -1
    image = rng.integers(0, 256, (count, *size, 3), dtype=np.uint8)
    return {"image": jnp.asarray(image), "segmentation": jnp.asarray(labels)}


def state_of(learned, optimizer):
    params, buffers = jax.eval_shape(learned.init, jax.random.key(0))
    params = randomised(params)
    return TrainState(jnp.zeros((), jnp.int32), params, randomised(buffers), optimizer.init(params), None)


def test_mean_is_over_known_pixels():
    rng = np.random.default_rng(0)
    logits = rng.standard_normal((2, 3, 4, 3)).astype(np.float32)
    labels = rng.integers(-1, 3, (2, 3, 4)).astype(np.int32)
    every = -np.log(np.exp(logits) / np.exp(logits).sum(-1, keepdims=True))
    known = labels >= 0
    losses = np.take_along_axis(every, np.maximum(labels, 0)[..., None], -1)[..., 0][known]
    loss, weight = pixel_cross_entropy(logits, labels)
    np.testing.assert_allclose((loss, weight), (losses.mean(), known.sum()), rtol=1e-6)
    weights = np.float32([0.5, 2, 1])[labels[known]]
    loss, weight = pixel_cross_entropy(logits, labels, (0.5, 2.0, 1.0))
    np.testing.assert_allclose(
        (loss, weight), (np.average(losses, weights=weights), weights.sum()), rtol=1e-6
    )
    adjusted, _ = pixel_cross_entropy(logits - jnp.log(jnp.asarray([0.5, 2, 1])), labels, (0.5, 2, 1), True)
    np.testing.assert_allclose(adjusted, loss, rtol=1e-6)
    nothing = jax.value_and_grad(lambda x: pixel_cross_entropy(x, jnp.full((2, 3, 4), -1))[0])(logits)
    assert float(nothing[0]) == 0
    assert not jnp.any(nothing[1])


def test_calibrated_logits_are_those_of_pixels_as_they_are():
    labels = jnp.asarray([0] * 7 + [1] * 2 + [2])[None, None]  # of pixels that look the same
    weights = (1.0, 10.0, 30.0)
    found = {}
    for calibrated in (False, True):
        mean = jax.jit(
            jax.grad(
                lambda x, calibrated=calibrated: pixel_cross_entropy(
                    jnp.broadcast_to(x, (1, 1, 10, 3)), labels, weights, calibrated
                )[0]
            )
        )
        logits = jnp.zeros(3)
        for _ in range(300):
            logits -= mean(logits)
        found[calibrated] = jax.nn.softmax(logits)
    np.testing.assert_allclose(found[True], (0.7, 0.2, 0.1), rtol=1e-3)
    np.testing.assert_allclose(found[False], np.array([7, 20, 30]) / 57, rtol=1e-3)


@pytest.mark.parametrize(
    "options",
    [
        dict(cells=2),
        dict(head="upernet", channels=8, auxiliary_channels=4, class_weights=(1.0, 2.0, 0.0)),
        dict(head="setr_mla", channels=8, branch_channels=4),
        dict(head="dpt", channels=4, widths=(2, 4, 4, 4)),
    ],
)
def test_accumulation_is_the_big_batch(options):
    options |= dict(copy_paste=0.5, pasted=(0, 2))  # before the batch is divided
    learned, optimizer = objective(norm="layer", dropout=0.0, **options), optax.sgd(0.1)
    state = state_of(learned, optimizer)
    whole, parts = (
        jax.jit(make_step(learned, optimizer, lambda step: 0.1, seed=0, accumulation=n))(state, batch_of())
        for n in (1, 4)
    )
    np.testing.assert_allclose(parts[1]["loss"], whole[1]["loss"], rtol=5e-6)
    assert_trees_close(parts[0].params, whole[0].params, rtol=2e-6, atol=1e-7)
    assert float(whole[1]["gradient_norm"]) > 1e-3


def test_options_of_another_head_are_refused():
    with pytest.raises(ConfigError, match=r"objective\.head is 'upernet', but its options are a LinearHead"):
        SegmentationOptions(head="upernet")


def test_batch_norm_takes_the_batch_of_all_devices():
    pasted = dict(copy_paste=0.5, pasted=(0, 2))  # of images on other devices too
    learned, optimizer = objective(dropout=0.0, cells=2, **pasted), optax.sgd(0.1)
    state, batch = state_of(learned, optimizer), batch_of()
    step = jax.jit(make_step(learned, optimizer, lambda step: 0.1, seed=0))
    one, metrics = step(state, batch)
    mesh = Mesh(np.array(jax.devices()), ("data",))
    divided = jax.device_put(batch, NamedSharding(mesh, PartitionSpec("data")))
    eight, others = step(jax.device_put(state, NamedSharding(mesh, PartitionSpec())), divided)
    np.testing.assert_allclose(others["loss"], metrics["loss"], rtol=2e-6)
    assert_trees_close(eight.params, one.params, rtol=2e-6, atol=1e-6)
    assert_trees_close(eight.buffers, one.buffers, rtol=1e-5, atol=1e-6)
    assert flatten(one.buffers).keys() == {"norm/mean", "norm/variance"}
    assert float(jnp.abs(one.buffers["norm"]["mean"] - state.buffers["norm"]["mean"]).max()) > 1e-3
    config = default_config()
    config.accumulation = 2
    objective(norm="layer").refuses(config)
    with pytest.raises(ConfigError, match="accumulation is 2, but batch norm needs the whole batch"):
        learned.refuses(config)


def test_pixels_of_chosen_classes_are_pasted_with_their_labels():
    batch = batch_of()
    plain = objective().prepare(batch, jax.random.key(0))
    always, half = (
        objective(copy_paste=chance, pasted=(0, 2)).prepare(batch, jax.random.key(0)) for chance in (1.0, 0.5)
    )
    image, labels = (np.asarray(plain[name]) for name in ("image", "segmentation"))
    changed = []
    for index in range(len(labels)):
        pasted = np.isin(labels[index - 1], (0, 2))
        expected = np.where(pasted, labels[index - 1], labels[index])
        np.testing.assert_array_equal(always["segmentation"][index], expected)
        pixels = np.where(pasted[..., None], image[index - 1], image[index])
        np.testing.assert_array_equal(always["image"][index], pixels)
        changed.append(not np.array_equal(half["segmentation"][index], labels[index]))
        of = always if changed[-1] else plain
        for name in of:
            np.testing.assert_array_equal(half[name][index], of[name][index])
    assert 0 < sum(changed) < len(changed)
    config = default_config()
    config.data.batch_size = 1
    with pytest.raises(ConfigError, match="batch_size is 1, and there is no other image"):
        objective(copy_paste=1.0, pasted=(0,)).refuses(config)


def test_metrics_are_of_the_pixels_of_images_that_count():
    learned = objective(cells=4)
    params, buffers = (randomised(part) for part in jax.eval_shape(learned.init, jax.random.key(0)))
    batch = batch_of() | {"mask": jnp.arange(8) < 6}
    sums, rows = jax.jit(learned.evaluate_rows)(params, buffers, batch)
    logits = np.asarray(jax.jit(learned.predict)(params, buffers, batch)["logits"])
    predicted, labels = logits.argmax(-1), np.asarray(batch["segmentation"])
    expected = np.zeros((3, 3), int)
    for image in range(6):
        known = labels[image] >= 0
        np.add.at(expected, (labels[image][known], predicted[image][known]), 1)
        np.testing.assert_array_equal(
            rows["predicted"][image], np.bincount(predicted[image][known], minlength=3)
        )
    np.testing.assert_array_equal(counts(np.asarray(sums["confusion"])), expected)
    np.testing.assert_array_equal(np.asarray(rows["hits"]).sum(0), np.diag(expected))
    np.testing.assert_array_equal(np.asarray(rows["labelled"])[:6].sum(0), expected.sum(1))
    assert not np.asarray(rows["labelled"])[6:].any()
    metrics = learned.summarise(jax.device_get(sums))
    assert metrics.keys() == learned.metric_modes.keys()
    assert metrics["pixel_accuracy"] == pytest.approx(np.trace(expected) / expected.sum())
    known = jnp.where(batch["mask"][:, None, None], batch["segmentation"], -1)
    assert metrics["loss"] == pytest.approx(float(pixel_cross_entropy(logits, known)[0]), rel=1e-5)


def test_windows_slide_over_larger_images():
    learned = objective(cells=4, evaluation="slide", eval_size=(24, 16), stride=(8, 16))
    params, buffers = (randomised(part) for part in jax.eval_shape(learned.init, jax.random.key(0)))
    images = batch_of(2, (24, 16))["image"]
    found = jax.jit(learned.predict)(params, buffers, {"image": images})["logits"]
    assert found.shape == (2, 24, 16, 3)
    whole = jax.jit(objective(cells=4).predict)
    top, bottom = (whole(params, buffers, {"image": images[:, i : i + 16]})["logits"] for i in (0, 8))
    np.testing.assert_allclose(found[:, :8], top[:, :8], atol=1e-5)
    np.testing.assert_allclose(found[:, 8:16], (top[:, 8:] + bottom[:, :8]) / 2, atol=1e-5)
    assert learned.eval_fields["segmentation"].shape == (24, 16)
    assert learned.fields["segmentation"].shape == (16, 16)
    assert learned.output.image_size == (24, 16)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(head="linaer"), "objective.head is 'linaer'.* Did you mean 'linear'"),
        (dict(head="upernet", cells=2), "cells is 2, but objective.head is 'upernet'"),
        (dict(channels=64), "channels is 64, but objective.head is 'linear'"),
        (dict(stride=(4, 4)), "set it to 'slide'"),
        (
            dict(evaluation="slide", eval_size=(8, 16)),
            "eval_size is .8, 16.; for windows of the model's size",
        ),
        (dict(evaluation="slide", stride=(32, 8)), "stride is .32, 8.; for windows of the model's size"),
        (dict(eval_size=(8,)), "two positive integers"),
        (dict(taps=(0.5,)), "a list of integers"),
        (dict(taps=(2,)), "numbers of blocks, 0 to 1"),
        (dict(class_weights=(1.0, 2.0)), "2 numbers for 3 classes"),
        (dict(class_weights=(0.0, 0.0, 0.0)), "not all 0"),
        (dict(class_weights=(0.0, 1.0, 1.0), calibrated=True), "give a number above 0 for each class"),
        (dict(copy_paste=0.5), "copy_paste is 0.5 and objective.pasted .*; give a chance"),
        (dict(pasted=(1,)), "copy_paste is 0.0 and objective.pasted .1,.; give a chance"),
        (dict(copy_paste=1.5, pasted=(1,)), "copy_paste is 1.5"),
        (dict(copy_paste=0.5, pasted=(3,)), "pasted has 3, but the classes are 0 to 2 .sky, road, tree"),
        (dict(calibrated=True), "give a number above 0 for each class"),
    ],
)
def test_what_cannot_be_is_refused(options, message):
    with pytest.raises(ConfigError, match=message):
        objective(**options)
