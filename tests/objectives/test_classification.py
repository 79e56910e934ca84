"""Classification: weights, targets, exact sums, and what it refuses."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from tests.tiny import labelled, parameters, run, tiny
from vit_jax.errors import ConfigError
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.objectives import losses
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.classification import Classification, build
from vit_jax.objectives.classification import objective as module
from vit_jax.objectives.classification.options import ClassificationOptions
from vit_jax.objectives.images import denormalise, normalise
from vit_jax.training.state import TrainState
from vit_jax.training.step import make_step

MODEL = tiny(num_classes=7, depth=1)
COUNTS = (4, 1, 2, 8, 1, 2, 10)
KEY = jax.random.key(0)


def objective(counts=None, model=MODEL, names=(), **options):
    return build(model, ClassificationOptions(**options), DataInfo(model.num_classes, names, counts))


def batch(size=8, **changes):
    return labelled(size, classes=7) | {"mask": jnp.ones(size, bool)} | changes


class Given(Classification):
    """The objective with logits that the batch gives instead of a model."""

    def logits(self, params, buffers, batch):
        return batch["logits"]


def sums_of(logits, labels, mask=None):
    given = Given(MODEL, ClassificationOptions(), DataInfo(7))
    logits, labels = jnp.asarray(logits, jnp.float32), jnp.asarray(labels, jnp.int32)
    mask = jnp.ones(len(labels), bool) if mask is None else jnp.asarray(mask)
    sums = jax.jit(given.evaluate)({}, {}, {"logits": logits, "label": labels, "mask": mask})
    return {name: float(value) for name, value in sums.items()}


# ---- loss


@pytest.mark.parametrize("name", ["softmax", "sigmoid", "bce"])
def test_the_loss_is_the_weighted_mean_of_the_rows(name):
    ours = objective(COUNTS, loss=name, class_weights="balanced")
    params, prepared = parameters(MODEL), ours.prepare(batch(), KEY)
    logits = run(MODEL, prepared["image"])
    rows = {
        "softmax": losses.softmax_cross_entropy,
        "sigmoid": losses.sigmoid_cross_entropy,
        "bce": partial(losses.thresholded_bce, threshold=0.0),
    }[name](logits, prepared["target"])
    weights = (sum(COUNTS) / (7 * np.asarray(COUNTS)))[batch()["label"]]
    loss, out = jax.jit(ours.loss)(params, {}, prepared, KEY)
    np.testing.assert_allclose(loss, np.average(rows, weights=weights), rtol=1e-5)
    np.testing.assert_allclose(out.weight, weights.sum(), rtol=1e-6)
    np.testing.assert_array_equal(out.metrics["loss"], loss)
    accuracy = np.mean(np.asarray(logits).argmax(axis=1) == np.asarray(batch()["label"]))
    np.testing.assert_allclose(out.metrics["accuracy"], accuracy, rtol=1e-6)
    assert out.buffers == {}


def test_accuracy_of_a_mixed_image_is_that_of_its_larger_share():
    ours = objective()
    params, prepared = parameters(MODEL), ours.prepare(batch(), KEY)
    best = jnp.argmax(run(MODEL, prepared["image"]), axis=1)
    other = jax.nn.one_hot((best + 1) % 7, 7, dtype=jnp.float32)
    for share, accuracy in ((0.6, 1.0), (0.4, 0.0)):
        target = share * jax.nn.one_hot(best, 7, dtype=jnp.float32) + (1 - share) * other
        _, out = ours.loss(params, {}, {"image": prepared["image"], "target": target}, KEY)
        assert float(out.metrics["accuracy"]) == accuracy


def test_balanced_weights_give_every_class_the_same_say():
    weights = objective(COUNTS, class_weights="balanced").class_weights
    np.testing.assert_allclose(weights * COUNTS, sum(COUNTS) / 7, rtol=1e-6)
    np.testing.assert_allclose((weights * COUNTS).sum(), sum(COUNTS), rtol=1e-6)
    assert objective(COUNTS).class_weights is None
    np.testing.assert_array_equal(
        objective(class_weights=(0, 1, 2, 3, 4, 5, 6)).class_weights, np.arange(7.0)
    )


def test_a_mixed_target_weighs_as_the_mixture_of_its_classes():
    ours = objective(class_weights=(1, 2, 3, 4, 5, 6, 7))
    prepared = ours.prepare(batch(), KEY)
    soft = jnp.zeros((8, 7)).at[:, 1].set(0.25).at[:, 5].set(0.75)
    _, out = jax.jit(ours.loss)(parameters(MODEL), {}, dict(prepared, target=soft), KEY)
    np.testing.assert_allclose(out.weight, 8 * (0.25 * 2 + 0.75 * 6), rtol=1e-6)


def test_a_batch_whose_classes_have_no_weight_has_no_loss_and_no_gradient():
    ours = objective(class_weights=(0, 0, 0, 1, 0, 0, 0))
    prepared = ours.prepare(batch(label=jnp.zeros(8, jnp.int32)), KEY)
    gradient, out = jax.jit(jax.grad(ours.loss, has_aux=True))(parameters(MODEL), {}, prepared, KEY)
    assert float(out.metrics["loss"]) == 0
    for leaf in jax.tree.leaves(gradient):
        np.testing.assert_array_equal(leaf, 0)


@pytest.mark.parametrize(
    ("counts", "weights", "message"),
    [
        (None, "balanced", "class_weights is 'balanced', but the number of examples per class is not known"),
        ((4, 0, 2, 8, 1, 2, 10), "balanced", "or some class has none"),
        ((4, 1), "balanced", "class_weights is 'balanced'"),
        (COUNTS, (1.0, 2.0), "class_weights has 2 values; give one for each of the 7 classes"),
    ],
)
def test_wrong_class_weights(counts, weights, message):
    with pytest.raises(ConfigError, match=message):
        objective(counts, class_weights=weights)


@pytest.mark.parametrize(
    ("model", "classes", "message"),
    [
        (MODEL, 10, "model.num_classes is 7 and the data has 10 classes; set model.num_classes=10"),
        (tiny(num_classes=0), 0, "classification needs a head: num_classes is 0"),
        (tiny(pool="none"), 5, "classification needs a head: .* pool is 'none'"),
    ],
)
def test_models_that_cannot_classify_the_data(model, classes, message):
    with pytest.raises(ConfigError, match=message):
        build(model, ClassificationOptions(), DataInfo(classes))


def test_smoothing_that_would_make_every_class_true_is_refused():
    with pytest.raises(
        ConfigError, match=r"label_smoothing is 0.1, which raises all classes above bce_threshold 0"
    ):
        objective(loss="bce", label_smoothing=0.1)
    objective(loss="bce", label_smoothing=0.1, bce_threshold=0.2)
    objective(loss="bce", label_smoothing=0.1, bce_threshold=None)
    objective(loss="softmax", label_smoothing=0.1)


def test_prepare_normalises_smooths_and_mixes():
    plain = objective(label_smoothing=0.1).prepare(batch(), KEY)
    assert (plain["image"].dtype, plain["target"].dtype) == (jnp.float32, jnp.float32)
    np.testing.assert_allclose(plain["image"], np.asarray(batch()["image"]) / 127.5 - 1, atol=1e-6)
    np.testing.assert_allclose(plain["target"], 0.9 * np.eye(7)[batch()["label"]] + 0.1 / 7, atol=1e-6)
    mixed = objective(label_smoothing=0.1, mixup=0.8).prepare(batch(), KEY)
    before, after = plain["image"][0], plain["image"][1]
    own = jnp.vdot(mixed["image"][1] - before, after - before) / jnp.vdot(after - before, after - before)
    assert 0 < own < 1
    np.testing.assert_allclose(mixed["image"][1], own * after + (1 - own) * before, atol=1e-5)
    np.testing.assert_allclose(
        mixed["target"][1], own * plain["target"][1] + (1 - own) * plain["target"][0], atol=1e-5
    )
    assert set(mixed) == {"image", "target"}


HEAVY = dict(
    label_smoothing=0.1, mixup=0.8, cutmix=1.0, mix_mode="elem", mix_partner="flip", erase_probability=0.5
)


def test_prepare_erases_before_it_mixes():
    plain = objective().prepare(batch(), KEY)["image"]
    erasing = dict(erase_probability=1.0, erase_mode="const", erase_area=(0.1, 0.2))
    erased = objective(**erasing).prepare(batch(), KEY)["image"]
    assert 0.05 < float(jnp.mean(erased == 0)) < 0.25
    np.testing.assert_array_equal(jnp.where(erased == 0, plain, erased), plain)
    ours = objective(**erasing, mixup=0.8)
    mixed = ours.prepare(batch(), KEY)
    # The mixture is of erased images, with the same draws as without erasing.
    unerased = objective(mixup=0.8).prepare(batch(), KEY)
    np.testing.assert_array_equal(mixed["target"], unerased["target"])
    before, after = erased, jnp.roll(erased, 1, axis=0)
    own = jnp.vdot(mixed["image"] - after, before - after) / jnp.vdot(before - after, before - after)
    np.testing.assert_allclose(mixed["image"], own * before + (1 - own) * after, atol=1e-5)


def test_every_option_reaches_its_function(monkeypatch):
    seen = {}
    monkeypatch.setattr(module, "erase", lambda images, key, **options: seen.update(options) or images)
    monkeypatch.setattr(module, "mix", lambda *batch, **options: seen.update(options) or batch[:2])
    erasing = dict(erase_probability=0.3, erase_mode="rand", erase_area=(0.1, 0.2), erase_aspect=0.4)
    mixing = dict(
        mixup=0.1, cutmix=0.2, cutmix_minmax=(0.3, 0.4), mix_probability=0.5, cutmix_probability=0.6
    )
    modes = dict(mix_mode="pair", mix_partner="flip", mix_dominant=True, cutmix_corrected=False)
    objective(**erasing, erase_count=(1, 2), **mixing, **modes).prepare(batch(), KEY)
    assert seen.pop("probability") == 0.5
    assert seen.pop("others") is None  # an image is erased before another sees it
    assert seen == dict(
        mode="pair", area=(0.1, 0.2), aspect=0.4, count=(1, 2), mixup_alpha=0.1, cutmix_alpha=0.2,
        cutmix_minmax=(0.3, 0.4), cutmix_probability=0.6, partner="flip", dominant=True, corrected=False,
    )  # fmt: skip


def test_targets_of_mixed_images_are_those_of_timm():
    """`mixup_target`: smoothed targets, on and off, weighted by their images' shares."""
    ours = objective(**HEAVY)
    soft = np.asarray(ours.prepare(batch(), KEY)["target"])
    label = np.asarray(batch()["label"])
    off = 0.1 / 7
    one_hot = np.where(np.eye(7, dtype=bool)[label], 1 - 0.1 + off, off)
    for row, (own, other) in enumerate(zip(one_hot, one_hot[::-1])):
        if label[row] != label[7 - row]:
            share = (soft[row, label[row]] - off) / (1 - 0.1)
            np.testing.assert_allclose(soft[row], share * own + (1 - share) * other, atol=1e-6)
    np.testing.assert_allclose(soft.sum(axis=1), 1, atol=1e-6)


def test_microbatches_are_mixed_and_erased_as_one_batch():
    ours = objective(**HEAVY)
    params = parameters(MODEL)
    optimizer = optax.sgd(1.0)
    state = TrainState(jnp.int32(3), params, {}, optimizer.init(params), None)
    updated = []
    for accumulation in (1, 4):
        step = make_step(ours, optimizer, lambda _: 1.0, seed=0, accumulation=accumulation)
        updated.append(jax.jit(step)(state, batch())[0].params)
    for one, other in zip(*map(jax.tree.leaves, updated)):
        np.testing.assert_allclose(one, other, atol=1e-5)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_normalise_and_back(channels):
    preprocessing = Preprocessing(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    images = labelled(2, channels=channels)["image"]
    ours = normalise(images, preprocessing)
    mean, std = (
        (preprocessing.mean, preprocessing.std)
        if channels == 3
        else ([0.2] * channels, [0.875 / 3] * channels)
    )
    np.testing.assert_allclose(ours, (np.asarray(images) / 255 - mean) / std, rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(normalise(images.astype(jnp.float32), preprocessing), ours)
    np.testing.assert_array_equal(denormalise(ours, preprocessing), images)


# ---- evaluation


def test_sums_of_known_logits():
    # True class first, second, fifth, sixth of seven.
    logits = [[9, 5, 4, 3, 2, 1, 0], [5, 9, 4, 3, 2, 1, 0], [5, 6, 7, 8, 4.5, 1, 0], [5, 6, 7, 8, 9, 4.5, 0]]
    labels = [0, 0, 4, 5]
    sums = sums_of(logits, labels)
    assert (sums["accuracy"], sums["top5_accuracy"], sums["count"]) == (1, 3, 4)
    wide = np.asarray(logits, np.float64)
    expected = np.log(np.exp(wide).sum(1)) - wide[np.arange(4), labels]
    np.testing.assert_allclose(sums["loss"], expected.sum(), rtol=1e-6)


def test_padding_rows_do_not_count_whatever_they_hold():
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((6, 7)), np.asarray([0, 1, 2, 3, 4, 5])
    alone = sums_of(logits[:4], labels[:4])
    for garbage in (0.0, np.nan, np.inf, -np.inf):
        logits[4:] = garbage
        labels[4:] = (-1, 99)
        assert sums_of(logits, labels, [True] * 4 + [False] * 2) == pytest.approx(alone, rel=1e-6)
    assert sums_of(logits, labels, [False] * 6) == dict(loss=0, accuracy=0, top5_accuracy=0, count=0)


def test_logits_that_are_not_finite_are_wrong():
    logits = np.zeros((3, 7))
    logits[:, 1] = 1
    logits[0, 3] = np.nan
    logits[1] = np.nan
    sums = sums_of(logits, [1, 1, 1])
    assert (sums["accuracy"], sums["top5_accuracy"], sums["count"]) == (1, 1, 3)
    assert np.isnan(sums["loss"])


def test_equal_logits_are_right_for_the_first_class_only():
    sums = sums_of(np.zeros((7, 7)), np.arange(7))
    assert (sums["accuracy"], sums["top5_accuracy"]) == (1, 5)


def test_evaluate_is_predict_on_raw_images():
    ours, data = objective(), batch()
    params = parameters(MODEL)
    logits = jax.jit(ours.logits)(params, {}, data)
    np.testing.assert_allclose(logits, run(MODEL, normalise(data["image"], MODEL.preprocessing)), atol=1e-6)
    sums = jax.jit(ours.evaluate)(params, {}, data)
    assert float(sums["accuracy"]) == int((jnp.argmax(logits, 1) == data["label"]).sum())
    targets = jnp.eye(7)[data["label"]]
    np.testing.assert_allclose(sums["loss"], losses.softmax_cross_entropy(logits, targets).sum(), rtol=1e-5)


def test_top5_only_where_it_says_something():
    def names(classes):
        ours = objective(model=tiny(num_classes=classes, depth=1))
        return set(jax.eval_shape(ours.evaluate, parameters(ours.model), {}, batch()))

    assert names(5) == {"loss", "accuracy", "count"}
    assert names(6) == {"loss", "accuracy", "top5_accuracy", "count"}


# ---- pictures


@pytest.mark.parametrize(
    "changes",
    [{}, dict(pool="mean", class_token=False, register_tokens=1, in_channels=1, image_size=(8, 16))],
)
def test_illustrate_shows_each_image_with_its_prediction_and_attention(changes):
    model = tiny(num_classes=7, depth=1, **changes)
    names = tuple("abcdefg")
    ours = objective(model=model, names=names)
    height, width = model.image_size
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, height, width, model.in_channels), dtype=np.uint8)
    params = parameters(model)
    best = np.argmax(jax.jit(ours.logits)(params, {}, {"image": jnp.asarray(images)}), axis=1)
    data = {"image": images, "label": np.asarray([(best[0] + 1) % 7, best[1], best[2]], np.int32)}
    picture = ours.illustrate(params, {}, data, ["a.png", "b.png", "c.png"])
    assert len(picture.columns) == 2
    assert [example.record for example in picture.examples] == ["a.png", "b.png", "c.png"]
    factor = 112 // width
    for index, example in enumerate(picture.examples):
        image, overlay = example.images
        np.testing.assert_array_equal(image, images[index])
        assert (overlay.shape, overlay.dtype) == ((height * factor, width * factor, 3), np.uint8)
        assert example.caption.startswith(names[best[index]])
        assert example.right is (index > 0)
        verdict = "right" if index else f"WRONG, it is {names[data['label'][0]]}"
        assert example.caption.endswith(verdict)


def test_illustrations_are_the_same_in_pieces(monkeypatch):
    ours, params = objective(), parameters(MODEL)
    data = {name: np.asarray(rows) for name, rows in batch().items()}
    records = [f"{index}.png" for index in range(len(data["label"]))]
    whole = ours.illustrate(params, {}, data, records).examples
    monkeypatch.setattr(module, "AT_ONCE", 3)
    pieces = ours.illustrate(params, {}, data, records).examples
    assert [(x.caption, x.record, x.right) for x in pieces] == [(x.caption, x.record, x.right) for x in whole]


# ---- rows of a report


def rows_of(logits, labels, loss="softmax"):
    """Sums and rows of given logits."""
    given = Given(
        tiny(num_classes=len(logits[0]), depth=1), ClassificationOptions(loss=loss), DataInfo(len(logits[0]))
    )
    data = {
        "logits": jnp.asarray(logits, jnp.float32),
        "label": jnp.asarray(labels, jnp.int32),
        "mask": jnp.ones(len(labels), bool),
    }
    return jax.device_get(jax.jit(given.evaluate_rows)({}, {}, data))


@pytest.mark.parametrize("loss", ["softmax", "sigmoid", "bce"])
def test_rows_are_the_five_best_with_what_their_logits_mean(loss):
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((9, 7)).astype(np.float32), rng.integers(0, 7, 9)
    sums, rows = rows_of(logits, labels, loss)
    best = np.argsort(-logits, axis=1)[:, :5]
    np.testing.assert_array_equal(rows["classes"], best)
    odds = np.exp(logits.astype(np.float64))
    chances = odds / odds.sum(1, keepdims=True) if loss == "softmax" else odds / (1 + odds)
    np.testing.assert_allclose(rows["probabilities"], np.take_along_axis(chances, best, 1), rtol=1e-5)
    assert sums["accuracy"] == (rows["classes"][:, 0] == labels).sum()
    assert sums["top5_accuracy"] == (rows["classes"] == labels[:, None]).sum()


def test_rows_of_equal_logits_and_of_such_that_are_not_finite():
    logits = np.zeros((3, 7))
    logits[1, 6], logits[2, 6] = np.nan, np.inf
    sums, rows = rows_of(logits, [0, 0, 6])
    np.testing.assert_array_equal(rows["classes"], [range(5), [-1] * 5, [-1] * 5])
    assert np.isnan(rows["probabilities"][1:]).all()
    assert sums["accuracy"] == (rows["classes"][:, 0] == [0, 0, 6]).sum() == 1


def test_fewer_classes_than_five_have_fewer_rows():
    assert rows_of([[1.0, 2.0, 3.0]], [0])[1]["classes"].tolist() == [[2, 1, 0]]
