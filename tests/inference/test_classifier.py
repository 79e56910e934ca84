"""The classifier object: learns, predicts, and is the same after a trip to the disk."""

import copy
import os
import pickle
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from vit_jax.data.holdout import stratified_split
from vit_jax.errors import CheckpointError, ConfigError, DataError
from vit_jax.inference.classifier.classifier import Classifier, _with_channels
from vit_jax.inference.classifier.records import of_folder, of_images
from vit_jax.inference.predictor import Predictor
from vit_jax.inference.workdir import find

OPTIONS = dict(width=16, depth=1, heads=2, mlp_dim=32, unroll=1, in_channels=1)


def classifier(**options):
    settings = dict(epochs=8, batch_size=16, learning_rate=1e-2, progress=False)
    return Classifier("vit_mu_patch4_8", **(settings | OPTIONS | options))


def bright_and_dark(count=60, size=8):
    """Images that anything can tell apart, sorted by class."""
    rng = np.random.default_rng(0)
    labels = (np.arange(count) >= count // 2).astype(int)
    return (rng.integers(0, 60, (count, size, size)) + 190 * labels[:, None, None]).astype(np.uint8), labels


# Larger than the model's images: training resizes them, and prediction has to do just the same.
IMAGES, LABELS = bright_and_dark(size=12)


@pytest.fixture(scope="module")
def fitted(compile_cache, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("fitted")
    ours = classifier().fit(IMAGES, LABELS, class_names=("dark", "bright"), workdir=workdir)
    return ours, workdir


def test_it_learns(fitted):
    ours, _ = fitted
    assert ours.class_names == ("dark", "bright")
    assert ours.score(IMAGES, LABELS) == 1
    assert ours.metrics["accuracy"] == 1
    np.testing.assert_array_equal(ours.predict(IMAGES), LABELS)
    probabilities = ours.predict_proba(IMAGES)
    assert (probabilities.shape, probabilities.dtype) == ((60, 2), np.float32)


def test_predictions_are_those_of_the_evaluation(fitted):
    """A tenth of each class was held out; their loss is that of the probabilities."""
    ours, _ = fitted
    held_out = stratified_split(LABELS, 0.1, 0)[1]
    assert np.bincount(LABELS[held_out]).tolist() == [3, 3]
    chances = ours.predict_proba(IMAGES[held_out])[np.arange(6), LABELS[held_out]]
    assert ours.metrics["loss"] == pytest.approx(-np.log(chances.astype(np.float64)).mean(), rel=1e-4)


def test_grey_stacks_channels_and_single_images(fitted):
    ours, _ = fitted
    expected = ours.predict_proba(IMAGES)
    np.testing.assert_array_equal(ours.predict_proba(IMAGES[..., None]), expected)
    alone = ours.predict_proba(IMAGES[3:4])
    np.testing.assert_array_equal(ours.predict_proba(IMAGES[3][..., None]), alone)
    # One image is computed by a program of its own, which may round differently.
    np.testing.assert_allclose(alone, expected[3:4], rtol=2e-6)


def test_channels_first_are_not_three_grey_images():
    for shape, channels, becomes in [
        ((3, 8, 9), 3, (3, 8, 9)),  # who knows: predictions refuse it
        ((3, 8, 9), 1, (3, 8, 9, 1)),
        ((4, 8, 9), 3, (4, 8, 9, 1)),
    ]:
        assert _with_channels(np.zeros(shape, np.uint8), channels).shape == becomes


def test_what_cannot_be_scored(fitted):
    ours, _ = fitted
    for score in (ours.score, ours.report):
        with pytest.raises(DataError, match="got no images; give at least one"):
            score([], [])
        with pytest.raises(ConfigError, match="has not been trained"):
            getattr(classifier(), score.__name__)(IMAGES, LABELS)
    with pytest.raises(DataError, match=r"score got 60 images and sample_weight of shape \(3,\)"):
        ours.score(IMAGES, LABELS, sample_weight=np.ones(3))


def test_numbers_that_searches_draw():
    ours = classifier(batch_size=np.int64(8), learning_rate=np.float32(0.5), depth=np.int64(2))
    assert (ours.config.data.batch_size, ours.config.model.depth) == (8, 2)
    assert type(ours.get_params()["batch_size"]) is np.int64  # as they were given
    ours.set_params(epochs=np.int64(3))
    assert ours.config.duration == "3 epochs"


def test_saved_and_loaded_it_is_the_same(fitted, tmp_path):
    ours, workdir = fitted
    ours.save(tmp_path / "model")
    expected = ours.predict_proba(IMAGES)
    for path in (tmp_path / "model", workdir):
        loaded = Classifier.load(path)
        np.testing.assert_array_equal(loaded.predict_proba(IMAGES), expected)
        assert loaded.class_names == ours.class_names
        assert loaded.metrics == ours.metrics
    np.testing.assert_array_equal(
        Predictor.load(tmp_path / "model").probabilities(IMAGES[..., None]), expected
    )
    with pytest.raises(ConfigError, match="already holds a model"):
        ours.save(tmp_path / "model")
    Classifier.load(tmp_path / "model").save(tmp_path / "again")
    assert find(tmp_path / "again").class_names == ours.class_names


def test_a_folder_of_class_folders(compile_cache, tmp_path):
    images, labels = bright_and_dark(count=40)
    for index, (image, label) in enumerate(zip(images, labels)):
        folder = tmp_path / "images" / ("dark", "bright")[label]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image).save(folder / f"{index}.png")
    ours = classifier().fit(tmp_path / "images")
    assert ours.class_names == ("bright", "dark")
    paths = sorted((tmp_path / "images" / "dark").iterdir())
    assert ours.score(paths, np.ones(len(paths), int)) == 1
    names = {path.name for path in tmp_path.iterdir()}
    assert names == {"images"}  # the run was kept nowhere


REFUSED = {
    "labels missing": ((IMAGES,), {}, ConfigError, "fit got images without labels"),
    "a folder and labels": (("x", LABELS), {}, ConfigError, "fit got a folder and also labels or validation"),
    "a folder and names": (("x",), {"class_names": ["a"]}, ConfigError, "a folder and also class_names"),
    "no folder": (("nowhere",), {}, DataError, "data.path is 'nowhere', which is not a folder"),
    "too few": ((IMAGES[:9], LABELS[:9]), {}, DataError, "fit got 9 images, too few to hold any out"),
    "too few labels": (
        (IMAGES, LABELS[:9]),
        {},
        DataError,
        r"labels of the training images have shape \(9,\)",
    ),
    "mixed labels": (
        (IMAGES, [0, "b"] * 30),
        {},
        DataError,
        "record 0 of the training images has label 0; give",
    ),
    "missing labels": (
        (IMAGES, ["b", None] * 30),
        {},
        DataError,
        "record 1 of the training images has no label",
    ),
    "halves": (
        (IMAGES, LABELS / 2),
        {},
        DataError,
        r"record 0 of the training images has label 0\.0; give every record",
    ),
    "several labels": (
        (IMAGES, np.eye(2, dtype=int)[LABELS]),
        {},
        DataError,
        r"several per image, \(60, 2\); give one per image, .* objective 'multi_label'",
    ),
    "several names": ((IMAGES, [["a", "b"]] * 60), {}, DataError, "several per image; give one"),
    "a split of images": (
        (IMAGES, LABELS),
        {"split": "val"},
        ConfigError,
        "which only folders have; pass validation",
    ),
    "dtype": ((IMAGES.astype(int), LABELS), {}, DataError, "images of the training images have type int64"),
    "names": (
        (IMAGES, LABELS),
        {"class_names": ["a"]},
        DataError,
        "record 30 of the training images has label 1",
    ),
    "labels by number": (
        (IMAGES, dict(enumerate(LABELS))),
        {},
        DataError,
        "of the training images are {0: ",
    ),
    "no names": ((IMAGES, LABELS), {"class_names": []}, DataError, "label 0; labels must be from 0 to -1"),
    "validation of three": (
        (IMAGES, LABELS),
        {"validation": (IMAGES, LABELS, LABELS)},
        DataError,
        r"validation is of type tuple; give a pair, images and labels: \(images, labels\)",
    ),
    "a share": ((IMAGES, LABELS), {"validation": 0.1}, DataError, "validation is of type float; give a pair"),
    "validation missing": (
        (IMAGES, LABELS),
        {"validation": (IMAGES[:1], [None])},
        DataError,
        "record 0 of the validation images has no label; labels must be classes",
    ),
    "validation unhashable": (
        (IMAGES, LABELS),
        {"validation": (IMAGES[:1], [{}])},
        DataError,
        "record 0 of the validation images has label {}; labels must be classes",
    ),
    "validation": (
        (IMAGES, LABELS),
        {"validation": (IMAGES[:1], [2])},
        DataError,
        "record 0 of the validation images has label 2; labels must be classes that the model was trained on: 0, 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    arguments, options, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        classifier().fit(*arguments, **options)


def test_classes_of_a_librarys_labels_are_numbers():
    for labels in (jnp.asarray(LABELS), list(jnp.asarray(LABELS))):
        assert of_images(IMAGES, labels, None, None, 0).classes.tolist() == [0, 1]
    named = of_images(IMAGES, LABELS, None, np.array(["dark", "bright"]), 0)
    assert named.sources[0].class_names == ("dark", "bright")


def test_arguments_are_checked_at_once(tmp_path):
    with pytest.raises(
        ConfigError, match=r"neither an argument of Classifier nor a model option. Did you mean 'width'"
    ):
        classifier(widht=3)
    with pytest.raises(ConfigError, match="Did you mean 'epochs'"):
        classifier(epoch=3)
    with pytest.raises(ConfigError, match="Did you mean 'learning_rate'"):
        classifier().set_params(learning_rte=3)
    with pytest.raises(ConfigError, match="image_size has height 9, not divisible by patch size 4"):
        classifier(image_size=9)
    with pytest.raises(ConfigError, match=r"optimizer.learning_rate is -1"):
        Classifier(learning_rate=-1.0)
    for method in ("predict", "predict_proba"):
        with pytest.raises(ConfigError, match=r"has not been trained; call fit, or Classifier.load"):
            getattr(classifier(), method)(IMAGES)
    with pytest.raises(ConfigError, match="has not been trained"):
        classifier().save(tmp_path)
    with pytest.raises(CheckpointError, match="does not exist"):
        Classifier.load(tmp_path / "none")


def test_a_class_in_every_tenth_place_is_learned(compile_cache):
    """Labels in turn: whatever is held out by position would be a whole class."""
    labels = np.arange(60) % 10 // 9
    images = np.random.default_rng(0).integers(0, 60, (60, 8, 8)) + 190 * labels[:, None, None]
    ours = classifier(epochs=20).fit(images.astype(np.uint8), labels)
    assert ours.score(images[labels == 1].astype(np.uint8), labels[labels == 1]) == 1


NAMES = np.array(["dark", "bright"])[LABELS]


@pytest.fixture(scope="module")
def named(compile_cache):
    """Fitted on names, which sort in the other order than the numbers above."""
    return classifier().fit(list(IMAGES), list(NAMES))


def test_names_as_labels(named, tmp_path):
    assert named.classes_.tolist() == ["bright", "dark"]
    assert named.class_names == ("bright", "dark")
    np.testing.assert_array_equal(named.predict(IMAGES), NAMES)
    np.testing.assert_array_equal(named.predict_proba(IMAGES).argmax(1), (NAMES == "dark").astype(int))
    assert named.score(IMAGES, NAMES) == 1
    assert named.score(IMAGES, NAMES[::-1]) == 0
    assert named.score(IMAGES, NAMES, sample_weight=np.arange(60)) == 1
    with pytest.raises(DataError, match=r"record 1 of the images has label 'Dark'; .* Did you mean 'dark'"):
        named.score(IMAGES[:2], ["dark", "Dark"])
    with pytest.raises(
        DataError, match="has label 0; labels must be classes that the model was trained on: 'bright'"
    ):
        named.score(IMAGES, LABELS)
    with pytest.raises(DataError, match="score got 60 images and 59 labels"):
        named.score(IMAGES, NAMES[:-1])
    report = named.report(IMAGES, NAMES)
    assert (report.accuracy, report.records, report.class_names) == (1, 60, ("bright", "dark"))
    assert (report.recall == 1).all()
    wrong = named.report(IMAGES, np.where(NAMES == "dark", "bright", "dark"))
    assert [(pair.label, pair.prediction, pair.records) for pair in wrong.confused()] == [
        (0, 1, 30),
        (1, 0, 30),
    ]
    assert str(wrong).startswith("accuracy           0\n")
    assert repr(report) == "<Report: accuracy 1.0000, 60 records, 2 classes>"
    with pytest.raises(DataError, match="report got 60 images and 59 labels"):
        named.report(IMAGES, NAMES[:-1])
    named.save(tmp_path / "named")
    again = Classifier.load(tmp_path / "named")
    np.testing.assert_array_equal(again.predict(IMAGES), NAMES)


def test_scores_by_name_where_labels_were_numbers(fitted):
    ours, _ = fitted
    assert ours.classes_.tolist() == [0, 1]
    assert ours.score(IMAGES, NAMES) == 1
    with pytest.raises(
        DataError, match="has label 2; labels must be classes that the model was trained on: 0, 1"
    ):
        ours.score(IMAGES[:1], [2])


def test_history_is_that_of_the_run(fitted, tmp_path):
    ours, workdir = fitted
    assert [row["step"] for row in ours.history_ if "eval/accuracy" in row][-1] == 27
    assert any("train/loss" in row for row in ours.history_)
    assert ours.history_[-1] | ours.history_[-2] == Classifier.load(workdir).history_[-1] | ours.history_[-2]
    ours.save(tmp_path / "alone")
    assert Classifier.load(tmp_path / "alone").history_ == []


def test_labels_that_begin_anywhere_and_have_gaps():
    records = of_images(IMAGES, LABELS * 5 + 2, None, None, 0)
    assert records.classes.tolist() == [2, 7]
    assert records.sources[0].class_names == ("2", "7")
    assert records.sources[0].named
    truths = of_images(IMAGES, LABELS.astype(bool), None, None, 0)
    assert truths.classes.tolist() == [False, True]
    plain = of_images(IMAGES, LABELS, None, None, 0).sources[0]
    assert (plain.class_names, plain.named) == (("0", "1"), False)


def test_what_images_and_labels_may_be(tmp_path):
    """Lists of paths, of arrays of several sizes and of Pillow's images; anything with an order for labels."""

    class Column:
        """As pandas' are: an order and values, and an index that does not begin at 0."""

        def __init__(self, values):
            self.values = list(values)
            self.shape = (len(self.values),)

        def __iter__(self):
            return iter(self.values)

        def __len__(self):
            return len(self.values)

        def __getitem__(self, key):
            raise KeyError(key)

    several = [image[: 6 + index % 3] for index, image in enumerate(IMAGES)]
    paths = []
    for index, image in enumerate(IMAGES):
        paths.append(tmp_path / f"{index}.png")
        Image.fromarray(image).save(paths[-1])
    for images in (several, paths, list(map(str, paths)), [Image.fromarray(image) for image in IMAGES]):
        for given in (images, Column(images)):
            train, held_out = of_images(given, Column(NAMES), None, None, 0).sources
            assert (len(train), len(held_out)) == (54, 6)
            assert train.class_names == held_out.class_names == ("bright", "dark")
            assert {train[i]["label"] for i in range(54)} == {0, 1}


def test_split_folders_under_any_name(tmp_path):
    def folder(name, *splits):
        for split in splits:
            for label in ("bright", "dark"):
                place = tmp_path / name / split / label
                place.mkdir(parents=True)
                for index in range(6):
                    Image.fromarray(IMAGES[index]).save(place / f"{index}.png")
        return tmp_path / name

    for index, (splits, found) in enumerate(
        (
            (("train", "val", "test"), "val"),
            (("Train", "Validation"), "val"),
            (("training", "valid"), "val"),
            (("train", "Testing"), "test"),
        )
    ):
        records = of_folder(folder(str(index), *splits), None, 0)
        assert (records.sources, records.section["eval_split"]) == (None, found)
    assert of_folder(tmp_path / "0", "test", 0).section["eval_split"] == "test"
    alone = of_folder(folder("alone", "train"), None, 0)
    assert list(map(len, alone.sources)) == [10, 2]
    # No split folders: the folder's own tenth, which the command line knows too.
    flat = of_folder(tmp_path / "alone" / "train", None, 0)
    assert (flat.sources, flat.section["eval_split"]) == (None, "test")


def test_arguments_reach_the_configuration():
    ours = classifier(layer_decay=0.5, lora=2, train_transforms="flip_lr", eval_transforms="decode(1)")
    config = ours.config
    assert (config.optimizer.layer_decay, config.lora.rank) == (0.5, 2)
    assert (config.data.train_transforms, config.data.eval_transforms) == ("flip_lr", "decode(1)")
    ours.config.optimizer.clip_norm = 3.0
    assert ours.set_params(epochs=3, width=32).config.optimizer.clip_norm == 3
    assert (ours.config.duration, ours.config.model.width) == ("3 epochs", 32)
    before = str(ours)
    with pytest.raises(ConfigError, match=r"'widht' is neither an argument of .* Did you mean 'width'"):
        ours.set_params(widht=3, epochs=7)
    with pytest.raises(ConfigError, match=r"optimizer.learning_rate is -1"):
        ours.set_params(learning_rate=-1.0)
    assert str(ours) == before
    assert ours.config.duration == "3 epochs"
    assert repr(Classifier()) == "Classifier()"


def test_scikit_learn_takes_it(compile_cache):
    from sklearn.base import clone, is_classifier
    from sklearn.model_selection import GridSearchCV, cross_val_score

    ours = classifier(epochs=4)
    other = clone(ours)
    assert other is not ours
    assert other.get_params() == ours.get_params()
    assert ours.get_params()["width"] == 16
    assert is_classifier(ours)
    assert not hasattr(ours, "classes_")
    halves = [(np.arange(0, 60, 2), np.arange(1, 60, 2))]
    (score,) = cross_val_score(ours, IMAGES, NAMES, cv=halves)
    assert score > 0.8
    grid = {"learning_rate": [1e-6, 1e-2]}
    search = GridSearchCV(ours, grid, cv=halves, scoring="neg_log_loss").fit(IMAGES, NAMES)
    assert search.best_params_ == {"learning_rate": 1e-2}
    assert search.best_estimator_.score(IMAGES, NAMES) == 1


def test_pickled_it_predicts_the_same_in_another_process(named, tmp_path):
    ours = pickle.loads(pickle.dumps(classifier()))
    assert ours.get_params() == classifier().get_params()
    np.testing.assert_array_equal(copy.deepcopy(named).predict_proba(IMAGES), named.predict_proba(IMAGES))
    (tmp_path / "named.pickle").write_bytes(pickle.dumps(named))
    np.save(tmp_path / "images.npy", IMAGES)
    code = (
        "import pickle, numpy as np; c = pickle.load(open('named.pickle', 'rb')); x = np.load('images.npy'); "
        "np.savez('out', p=c.predict_proba(x), c=c.predict(x), n=str(c))"
    )
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True)
    with np.load(tmp_path / "out.npz") as out:
        np.testing.assert_allclose(out["p"], named.predict_proba(IMAGES), rtol=1e-5)
        np.testing.assert_array_equal(out["c"], NAMES)
        assert str(out["n"]) == str(named)


def test_callbacks_are_told(compile_cache):
    class Told:
        def __init__(self):
            self.steps = []

        def on_evaluation(self, step, metrics):
            self.steps.append(step)

    told = Told()
    classifier(epochs=1).fit(IMAGES, LABELS, callbacks=[told])
    assert told.steps[-1] == 3


def test_a_loaded_one_knows_its_arguments(named, tmp_path):
    named.save(tmp_path / "named")
    again = Classifier.load(tmp_path / "named")
    assert again.get_params() == named.get_params() | {"layer_decay": 1.0}
    assert again.set_params(epochs=2).config.duration == "2 epochs"
    assert again.config.optimizer.learning_rate == 1e-2
