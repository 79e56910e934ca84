"""Sources in memory: digits, arrays, npz, noise; class balance; what wrong ones are told."""

import hashlib
import pickle
import subprocess
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

from vit_jax.data.holdout import stratified_split
from vit_jax.data.sources import digits
from vit_jax.data.sources.arrays import ArraySource, open_npz
from vit_jax.data.sources.digits import open_digits
from vit_jax.data.sources.opening import Selection, balanced, open_source
from vit_jax.data.sources.synthetic import SyntheticSource
from vit_jax.errors import ConfigError, DataError


def section(**values):
    return SimpleNamespace(**{"path": "", "name": "", "size": 1024, "train_split": "train", **values})


def pixels(source):
    return source.take(np.arange(len(source)))["image"]


def message(error, function, *args, **kwargs):
    with pytest.raises(error) as caught:
        function(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def digest(source):
    return hashlib.sha256(pixels(source).tobytes() + source.labels.tobytes()).hexdigest()


def test_digits_are_split_once_and_for_all():
    train, test = open_digits("train"), open_digits("test")
    assert (len(train), len(test)) == (1437, 360)
    assert digest(train) == "6612d0a064c751fd7079814cd865c2d615efca2a3c305c612a4b5f50d85d97ad"
    assert digest(test) == "eb33daa4a6fa9662340916fc06c6496d7fcc2d666ea677c26e4ccd0a62cbdc8c"


def test_digits_hold_every_image_once_and_every_class_alike():
    train, test = open_digits("train"), open_digits("test")
    scaled = np.rint(load_digits().data * (255 / 16)).astype(np.uint8)
    together = np.concatenate([pixels(train), pixels(test)]).reshape(-1, 64)
    # Every image is unique, so equal sorted sets mean no overlap and nothing lost.
    assert len(np.unique(scaled, axis=0)) == 1797
    assert np.array_equal(np.unique(together, axis=0), np.unique(scaled, axis=0))
    shares = np.bincount(test.labels) / (np.bincount(test.labels) + np.bincount(train.labels))
    assert np.all(np.abs(shares - 0.2) < 0.005)


def test_digits_look_as_promised():
    source = open_digits("train")
    assert source.image_shape == (8, 8, 1)
    assert pixels(source).dtype == np.uint8
    assert (pixels(source).min(), pixels(source).max()) == (0, 255)
    assert source.class_names == tuple("0123456789")
    assert source.labels.dtype == np.int32


def test_records_and_batches_agree():
    for source in (open_digits("test"), SyntheticSource(20, (4, 6, 3), 5)):
        batch = source.take(np.array([3, 0, 3]))
        for row, index in enumerate((3, 0, 3)):
            example = source[index]
            assert np.array_equal(example["image"], batch["image"][row])
            assert example["label"] == batch["label"][row]
            assert f"record {index}" in example["record"]


def test_arrays_without_channels_get_one():
    source = ArraySource(np.zeros((3, 4, 5), np.uint8), [0, 1, 1])
    assert source.image_shape == (4, 5, 1)
    assert source.num_classes == 2
    assert source.class_names == ("0", "1")


def test_arrays_may_be_float_up_to_255():
    source = ArraySource(np.full((2, 3, 3, 1), 254.5), [0, 0], class_names=["only"])
    assert pixels(source).dtype == np.float32
    assert source.class_names == ("only",)


IMAGES = np.zeros((3, 4, 4, 3), np.uint8)


@pytest.mark.parametrize(
    ("images", "labels", "options", "said"),
    [
        (IMAGES[0, 0], [0], {}, "have shape (4, 3); it must be (n, h, w, c)"),
        (IMAGES[:0], [], {}, "have shape (0, 4, 4, 3)"),
        (IMAGES.astype(np.int64), [0, 0, 0], {}, "have type int64; it must be uint8"),
        (IMAGES + np.float32(0.5), [0, 0, 0], {}, "from 0.5 to 0.5; they must be from 0 to 255: multiply"),
        (
            np.stack([IMAGES[0] + 9.0, IMAGES[0] + np.nan]),
            [0, 0],
            {},
            "record 1 of the arrays has the value nan",
        ),
        (
            np.stack([IMAGES[0] + 9.0, IMAGES[0] - 3.0]),
            [0, 0],
            {},
            "record 1 of the arrays has the value -3.0",
        ),
        (IMAGES, [0, 1], {}, "labels of the arrays have shape (2,); it must be (3,)"),
        (IMAGES, [[0], [1], [2]], {}, "labels of the arrays have shape (3, 1)"),
        (IMAGES, [0.0, 1.0, 2.0], {}, "have type float64"),
        (IMAGES, [0.0, 1.0, np.nan], {}, "record 2 of the arrays has label nan; give it a class"),
        (IMAGES, ["cat", "dog", "cat"], {}, "they must be integers from 0; convert them with np.unique"),
        (
            IMAGES,
            [0, 1, -1],
            {},
            "record 2 of the arrays has label -1; labels must be from 0 to 1 (2 classes)",
        ),
        (
            IMAGES,
            [0, 7, 1],
            {"num_classes": 2},
            "record 1 of the arrays has label 7; labels must be from 0 to 1",
        ),
        (IMAGES, [0, 3, 1], {"class_names": ["a", "b"]}, "record 1 of the arrays has label 3"),
        (IMAGES, [0, 1, 1], {"class_names": ["a"], "num_classes": 2}, "has 1 class names for 2 classes"),
    ],
)
def test_wrong_arrays_are_refused(images, labels, options, said):
    assert said in message(DataError, ArraySource, images, labels, **options)


def test_npz_files(tmp_path):
    np.savez(tmp_path / "train.npz", images=IMAGES + 5, labels=[1, 0, 1], class_names=["cat", "dog"])
    source = open_source(section(source="arrays", path=str(tmp_path)), "train")
    assert source.class_names == ("cat", "dog")
    assert np.array_equal(pixels(source), IMAGES + 5)


def test_wrong_npz_files(tmp_path):
    assert "test.npz does not exist" in message(DataError, open_npz, str(tmp_path), "test")
    np.savez(tmp_path / "a.npz", images=IMAGES)
    assert "has no array 'labels', it has images" in message(DataError, open_npz, str(tmp_path), "a")
    (tmp_path / "b.npz").write_bytes(b"PK\x03\x04 not a zip file")
    assert "cannot be read as npz" in message(DataError, open_npz, str(tmp_path), "b")
    (tmp_path / "d.npz").write_bytes((tmp_path / "a.npz").read_bytes()[:100])
    assert "cannot be read as npz" in message(DataError, open_npz, str(tmp_path), "d")
    np.savez(tmp_path / "c.npz", images=np.array([{}], object), labels=[0])
    assert "cannot be read as npz" in message(DataError, open_npz, str(tmp_path), "c")


def test_synthetic_images_follow_from_the_index():
    a, b = SyntheticSource(5000, (8, 8, 3), 10, seed=1), SyntheticSource(5000, (8, 8, 3), 10, seed=1)
    assert np.array_equal(pixels(a), pixels(b))
    assert np.array_equal(a.labels, np.arange(5000) % 10)
    assert not np.array_equal(pixels(a), pixels(SyntheticSource(5000, (8, 8, 3), 10, seed=2)))
    assert len(np.unique(pixels(a).reshape(5000, -1), axis=0)) == 4096


def test_open_source_gives_synthetic_images_the_size_asked_for():
    data = section(source="synthetic", size=7)
    source = open_source(data, "train", image_size=(4, 6), channels=2, num_classes=3)
    assert (len(source), source.image_shape, source.num_classes) == (7, (4, 6, 2), 3)
    assert open_source(data, "train").image_shape == (224, 224, 3)
    other = open_source(data, "test", image_size=(4, 6), channels=2, num_classes=3)
    assert not np.array_equal(pixels(source), pixels(other))


def test_open_source_names_the_nearest_source_and_split():
    said = message(ConfigError, open_source, section(source="digit"), "train")
    assert "data.source is 'digit'" in said
    assert "Did you mean 'digits'" in said
    assert "it must be one of train, test" in message(
        ConfigError, open_source, section(source="digits"), "tset"
    )
    assert "data.size is 0" in message(ConfigError, open_source, section(source="synthetic", size=0), "train")


@pytest.mark.parametrize("source", [open_digits("test"), SyntheticSource(9, (4, 4, 3), 3)])
def test_sources_survive_pickling(source):
    copy = pickle.loads(pickle.dumps(source))
    assert np.array_equal(pixels(copy), pixels(source))
    assert copy.class_names == source.class_names


def test_selection_follows_its_indices():
    source = ArraySource(np.arange(1, 5, dtype=np.uint8).reshape(4, 1, 1, 1), [0, 1, 2, 0])
    chosen = Selection(source, [2, 2, 0])
    assert chosen.labels.tolist() == [2, 2, 0]
    assert pixels(chosen).reshape(-1).tolist() == [3, 3, 1]
    assert chosen[0]["record"] == "record 2 of the arrays"
    assert len(chosen) == 3


def test_balanced_classes_come_in_turn_and_equally_often():
    labels = [0] * 7 + [1] * 2 + [2] * 3
    source = ArraySource(np.arange(12, dtype=np.uint8).reshape(12, 1, 1, 1) + 1, labels)
    even = balanced(source)
    assert len(even) == 3 * 7
    assert even.labels.tolist() == [0, 1, 2] * 7
    times = np.bincount(pixels(even).reshape(-1) - 1, minlength=12)
    assert times[:7].tolist() == [1] * 7
    assert sorted(times[7:9]) == [3, 4]
    assert sorted(times[9:]) == [2, 2, 3]


def test_balancing_needs_labels_of_every_class():
    source = ArraySource(IMAGES, [0, 0, 2], class_names=["ant", "bee", "cat"])
    assert "class 'bee' has no record" in message(DataError, balanced, source)


@pytest.mark.parametrize(("seed", "share"), [(0, 0.2), (3, 0.37)])
def test_the_split_is_that_of_scikit_learn(seed, share):
    labels = np.random.default_rng(seed).choice(4, size=101, p=[0.5, 0.25, 0.2, 0.05])
    expected = train_test_split(np.arange(101), test_size=share, random_state=seed, stratify=labels)
    for ours, theirs in zip(stratified_split(labels, share, seed), expected, strict=True):
        assert np.array_equal(ours, theirs)


def test_digits_are_read_without_scikit_learn():
    command = """import sys
from vit_jax.data.sources.digits import open_digits
open_digits("test")
assert "sklearn" not in sys.modules
"""
    subprocess.run([sys.executable, "-c", command], check=True, timeout=60)


def test_digits_need_scikit_learns_file(monkeypatch):
    monkeypatch.setattr(digits, "find_spec", lambda name: None)
    with pytest.raises(DataError, match=r"^the digits come with scikit-learn, which is not installed;"):
        open_digits("test")
    elsewhere = SimpleNamespace(origin="/nowhere/sklearn/__init__.py")
    monkeypatch.setattr(digits, "find_spec", lambda name: elsewhere)
    with pytest.raises(DataError, match=r"^/nowhere/sklearn/datasets/data/digits.csv.gz cannot be read: "):
        open_digits("test")
