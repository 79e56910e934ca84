"""Folders of class folders: splits, held-out share, and what is said of wrong ones."""

import pickle

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.folder import FolderSource
from vit_jax.errors import ConfigError, DataError


def write(path, value=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.full((4, 5, 3), value, np.uint8)).save(path)
    return path


def message(error, *args, **kwargs):
    with pytest.raises(error) as caught:
        FolderSource(*args, **kwargs)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def records(source):
    return [source[i]["record"] for i in range(len(source))]


def test_split_folders(tmp_path):
    for split, count in (("train", 2), ("val", 1)):
        for name in ("dog", "cat"):
            for i in range(count):
                write(tmp_path / split / name / f"{i}.png", i)
    (tmp_path / "train" / "cat" / "notes.txt").write_text("not an image")
    (tmp_path / "train" / "cat" / "._0.png").write_text("left by a file manager")
    (tmp_path / "train" / ".cache").mkdir()
    train, val = FolderSource(tmp_path, "train"), FolderSource(tmp_path, "val")
    assert train.class_names == val.class_names == ("cat", "dog")
    assert train.labels.tolist() == [0, 0, 1, 1]
    assert len(val) == 2
    assert train[3] == {
        "image": (tmp_path / "train/dog/1.png").read_bytes(),
        "label": 1,
        "record": str(tmp_path / "train/dog/1.png"),
    }
    assert records(pickle.loads(pickle.dumps(train))) == records(train)


def test_all_extensions_in_any_case(tmp_path):
    for name in ("a.jpg", "b.JPEG", "c.png", "d.webp", "e.bmp", "f.GIF"):
        write(tmp_path / "train" / "x" / name)
    assert len(FolderSource(tmp_path, "train")) == 6


def test_held_out_share_is_stable(tmp_path):
    for i in range(300):
        path = tmp_path / ("cat", "dog")[i % 2] / f"{i}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
    train, test = FolderSource(tmp_path, "train"), FolderSource(tmp_path, "test")
    assert len(train) + len(test) == 300
    assert not set(records(train)) & set(records(test))
    assert 15 <= len(test) <= 45
    for i in range(50):
        (tmp_path / "cat" / f"new{i}.png").write_bytes(b"")
    assert set(records(test)) <= set(records(FolderSource(tmp_path, "test")))
    assert "must be one of train, test" in message(ConfigError, tmp_path, "val")


def test_a_class_may_be_called_like_a_split(tmp_path):
    for i in range(30):
        for name in ("test", "control"):
            write(tmp_path / name / f"{i}.png")
    assert FolderSource(tmp_path, "train").class_names == ("control", "test")


def test_missing_and_empty_folders(tmp_path):
    assert "nowhere', which is not a folder" in message(DataError, tmp_path / "nowhere", "train")
    assert "data.path is '', which is not a folder" in message(DataError, "", "train")
    assert "is empty; put one folder of images per class" in message(DataError, tmp_path, "train")
    (tmp_path / "image.png").write_bytes(b"")
    assert "has no class folders" in message(DataError, tmp_path, "train")


def test_class_without_images(tmp_path):
    write(tmp_path / "train" / "cat" / "0.png")
    (tmp_path / "train" / "dog").mkdir()
    said = message(DataError, tmp_path, "train")
    assert f"class folder {tmp_path / 'train' / 'dog'} has no images (.jpg, .jpeg, .png" in said


def test_missing_split(tmp_path):
    write(tmp_path / "train" / "cat" / "0.png")
    write(tmp_path / "val" / "cat" / "0.png")
    said = message(DataError, tmp_path, "test")
    assert "has no split 'test'; it has train, val" in said
    assert "data.eval_split" in said


def test_splits_with_other_classes(tmp_path):
    write(tmp_path / "train" / "cat" / "0.png")
    write(tmp_path / "test" / "cat" / "0.png")
    write(tmp_path / "test" / "dog" / "0.png")
    said = message(DataError, tmp_path, "test")
    assert f"class 'dog' is in {tmp_path / 'test'} but not in {tmp_path / 'train'} (1 such)" in said
    write(tmp_path / "train" / "dog" / "0.png")
    write(tmp_path / "train" / "eel" / "0.png")
    assert f"class 'eel' is in {tmp_path / 'train'} but not in" in message(DataError, tmp_path, "test")


def test_splits_of_any_name(tmp_path):
    write(tmp_path / "big" / "cat" / "0.png")
    write(tmp_path / "small" / "dog" / "0.png")
    assert FolderSource(tmp_path, "big", reference="big").class_names == ("cat",)
    assert "class 'cat' is in" in message(DataError, tmp_path, "small", reference="big")


def test_too_few_images_to_hold_out(tmp_path):
    write(tmp_path / "eel" / "0.png")
    write(tmp_path / "dog" / "0.png")
    assert "has too few images to hold out any for 'test'" in message(DataError, tmp_path, "test")


def test_class_that_is_held_out_altogether(tmp_path):
    # "lone/1.png" has a checksum divisible by ten, "dog/0.png" has not.
    write(tmp_path / "lone" / "1.png")
    write(tmp_path / "dog" / "0.png")
    assert "all images of class 'lone'" in message(DataError, tmp_path, "train")


def test_unreadable_file_is_named(tmp_path):
    path = write(tmp_path / "train" / "cat" / "0.png")
    source = FolderSource(tmp_path, "train")
    path.unlink()
    with pytest.raises(DataError, match=r"0\.png cannot be read: No such file or directory"):
        source[0]
