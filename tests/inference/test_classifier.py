"""The classifier object: learns, predicts, and is the same after a trip to the disk."""

import numpy as np
import pytest
from PIL import Image

from vit_jax.errors import CheckpointError, ConfigError, DataError
from vit_jax.inference.classifier import Classifier
from vit_jax.inference.predictor import Predictor
from vit_jax.inference.workdir import find

OPTIONS = dict(width=16, depth=1, heads=2, mlp_dim=32, unroll=1, in_channels=1)


def classifier(**options):
    return Classifier(
        "vit_mu_patch4_8", epochs=8, batch_size=16, learning_rate=1e-2, progress=False, **(OPTIONS | options)
    )


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
    """Every tenth image was held out; their loss is that of the probabilities."""
    ours, _ = fitted
    held_out = np.arange(60) % 10 == 9
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
    "too few": ((IMAGES[:9], LABELS[:9]), {}, DataError, "fit got 9 images, too few to hold some out"),
    "too few labels": (
        (IMAGES, LABELS[:9]),
        {},
        DataError,
        r"labels of the training images have shape \(9,\)",
    ),
    "text": ((IMAGES, [*"ab"] * 30), {}, DataError, "have type <U1 .*they must be integers"),
    "dtype": ((IMAGES.astype(int), LABELS), {}, DataError, "images of the training images have type int64"),
    "names": (
        (IMAGES, LABELS),
        {"class_names": ["a"]},
        DataError,
        "record 30 of the training images has label 1",
    ),
    "validation": (
        (IMAGES, LABELS),
        {"validation": (IMAGES[:1], [2])},
        DataError,
        "record 0 of the validation images has label 2; labels must be from 0 to 1",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_refused(case):
    arguments, options, kind, message = REFUSED[case]
    with pytest.raises(kind, match=message):
        classifier().fit(*arguments, **options)


def test_arguments_are_checked_at_once(tmp_path):
    with pytest.raises(ConfigError, match=r"'widht' is not a model option. Did you mean 'width'"):
        classifier(widht=3)
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
