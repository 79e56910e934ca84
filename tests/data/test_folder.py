"""Folders of class folders: splits, held-out share, and what is said of wrong ones."""

import os
import pickle
import zlib

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.base import Selection
from vit_jax.data.cache import Cached
from vit_jax.data.images.image_files import image_files, left_out_text
from vit_jax.data.mixture import Mixture
from vit_jax.data.sources.folder import FolderSource
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
    names = [
        "a.jpg",
        "b.JPEG",
        "c.png",
        "d.webp",
        "e.bmp",
        "f.GIF",
        "g.jpe",
        "h.JFIF",
        "i.tif",
        "j.TIFF",
        "k.JpG",
    ]
    for name in names:
        path = tmp_path / "train" / "x" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")
    source = FolderSource(tmp_path, "train")
    assert source.files == [f"x/{name}" for name in names]
    assert not source.left_out


def test_images_at_every_depth(tmp_path):
    for name in ("b.png", "a.png", "z/0.png", "m/n/1.png", "m/0.png", "m.png/2.png"):
        write(tmp_path / "train" / "cat" / name)
    write(tmp_path / "train" / "dog" / "deep" / "0.png")
    source = FolderSource(tmp_path, "train")
    files = ["a.png", "b.png", "m/0.png", "m/n/1.png", "m.png/2.png", "z/0.png"]
    assert source.files == [*(f"cat/{name}" for name in files), "dog/deep/0.png"]
    assert source.labels.tolist() == [0] * 6 + [1]
    assert all(image_files(tmp_path / "train" / "cat").files[i] == name for i, name in enumerate(files))
    # As torchvision and timm list them, but for the order.
    walked = [os.path.join(folder, name) for folder, _, names in os.walk(tmp_path) for name in names]
    assert sorted(records(source)) == sorted(walked)


def test_nested_images_are_held_out_by_their_name(tmp_path):
    names = [f"{name}/{i % 3}/{i}.png" for i in range(60) for name in ("cat", "dog")]
    for name in names:
        write(tmp_path / name)
    train, test = FolderSource(tmp_path, "train"), FolderSource(tmp_path, "test")
    assert sorted(train.files + test.files) == sorted(names)
    assert sorted(test.files) == sorted(name for name in names if zlib.crc32(name.encode()) % 10 == 0)


def test_what_is_left_out_is_counted(tmp_path):
    write(tmp_path / "train" / "cat" / "0.png")
    for name in ("a.txt", "in/b.TXT", "in/c.heic", "README", ".hidden.png", ".ipynb_checkpoints/0.png"):
        path = tmp_path / "train" / "cat" / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"?")
    write(tmp_path / "train" / "1.png")
    write(tmp_path / "other" / "dog" / "1.png")
    source = FolderSource(tmp_path, "train")
    assert len(source) == 1
    assert source.left_out == {
        ".txt": 2,
        ".heic": 1,
        "files without an extension": 1,
        "hidden files": 1,
        "hidden folders": 1,
        "images in no class folder": 1,
        "folders beside the split folders": 1,
    }
    said = left_out_text(source.left_out)
    assert said.startswith(
        "left out: .txt 2, .heic 1, files without an extension 1, folders beside the split fol"
    )
    assert said.endswith(", others 1")
    chosen = Selection(source, [0])
    assert chosen.left_out == Cached(chosen).left_out == source.left_out
    assert Mixture([source, chosen], [1, 1]).left_out[".txt"] == 4
    assert left_out_text({}) == ""
    (tmp_path / "train" / "cat" / "0.png").unlink()
    assert "has no images" in message(DataError, tmp_path, "train")
    assert "(left out: .txt 2, " in message(DataError, tmp_path, "train")


def test_links_are_followed_once_and_never_around(tmp_path):
    elsewhere = tmp_path / "elsewhere"
    write(elsewhere / "0.png")
    write(tmp_path / "data" / "train" / "cat" / "b" / "1.png")
    write(tmp_path / "data" / "train" / "dog" / "2.png")
    cat = tmp_path / "data" / "train" / "cat"
    for link, target in (
        ("a", "b"),
        ("around", ".."),
        ("b/self", "."),
        ("b/up", "../.."),
        ("out", elsewhere),
    ):
        (cat / link).symlink_to(target, target_is_directory=True)
    (elsewhere / "back").symlink_to(cat, target_is_directory=True)
    (cat / "broken").symlink_to("nowhere")
    (cat / "loop").symlink_to("loop")
    source = FolderSource(tmp_path / "data", "train")
    assert source.files == ["cat/b/1.png", "cat/out/0.png", "dog/2.png"]
    assert source.left_out == {"links to folders that are there already": 5, "files without an extension": 2}


@pytest.mark.parametrize(
    ("folder", "split"),
    [
        *(("Train", "train"), ("TRAINING", "train"), ("train", "Training"), ("Val", "val"), ("valid", "val")),
        *(
            ("Validation", "val"),
            ("val", "validation"),
            ("Testing", "test"),
            ("test", "testing"),
            ("Fold1", "fold1"),
        ),
    ],
)
def test_split_folders_in_any_case_and_form(tmp_path, folder, split):
    write(tmp_path / folder / "cat" / "0.png")
    source = FolderSource(tmp_path, split)
    assert records(source) == [str(tmp_path / folder / "cat" / "0.png")]
    assert source.class_names == ("cat",)


def test_classes_of_splits_are_compared_in_any_form(tmp_path):
    write(tmp_path / "Training" / "cat" / "0.png")
    write(tmp_path / "Testing" / "dog" / "0.png")
    said = message(DataError, tmp_path, "test")
    assert f"class 'dog' is in {tmp_path / 'Testing'} but not in {tmp_path / 'Training'}" in said


@pytest.mark.parametrize(("names", "split"), [(("val", "validation"), "val"), (("Test", "test"), "test")])
def test_two_folders_of_one_split(tmp_path, names, split):
    write(tmp_path / "train" / "cat" / "0.png")
    for name in names:
        write(tmp_path / name / "cat" / "0.png")
    said = message(DataError, tmp_path, split)
    assert f"has {names[0]} and {names[1]}, which both mean the split {split!r}" in said
    assert len(FolderSource(tmp_path, "train")) == 1
    (tmp_path / names[1] / "cat" / "0.png").unlink()
    (tmp_path / names[1] / "cat").rmdir()
    (tmp_path / names[1]).rmdir()
    (tmp_path / names[1]).symlink_to(names[0], target_is_directory=True)
    assert len(FolderSource(tmp_path, split)) == 1


def test_a_split_of_another_name_is_no_class(tmp_path):
    for split in ("train_set", "test_set"):
        for name in ("cat", "dog"):
            write(tmp_path / split / name / "0.png")
    said = message(DataError, tmp_path, "train")
    assert f"{tmp_path / 'test_set'} has folders but no images, so it looks like a split" in said
    assert FolderSource(tmp_path, "train_set", reference="train_set").class_names == ("cat", "dog")


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
    assert f"class folder {tmp_path / 'train' / 'dog'} has no images (.jpg, .jpeg, .jpe, .jfif, .png" in said


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
    assert f"class 'dog' is in {tmp_path / 'test'} but not in {tmp_path / 'train'} (1 such classes)" in said
    write(tmp_path / "train" / "dog" / "0.png")
    write(tmp_path / "train" / "ant" / "0.png")
    assert FolderSource(tmp_path, "test").class_names == ("cat", "dog")  # some of them: matched by name


def test_splits_of_any_name(tmp_path):
    write(tmp_path / "big" / "cat" / "0.png")
    write(tmp_path / "small" / "dog" / "0.png")
    assert FolderSource(tmp_path, "big", reference="big").class_names == ("cat",)
    assert "class 'dog' is in" in message(DataError, tmp_path, "small", reference="big")


def test_too_few_images_to_hold_out(tmp_path):
    write(tmp_path / "eel" / "0.png")
    write(tmp_path / "dog" / "0.png")
    said = message(DataError, tmp_path, "test")
    assert "has too few images to hold out any for 'test'" in said
    assert said.endswith("data.eval_split=all.")
    assert len(FolderSource(tmp_path, "all")) == 2


def test_all_images_without_split_folders(tmp_path):
    for i in range(30):
        write(tmp_path / "plain" / "cat" / f"{i}.png")
        write(tmp_path / "split" / "train" / "cat" / f"{i}.png")
    parts = [records(FolderSource(tmp_path / "plain", split)) for split in ("train", "test")]
    assert all(parts)
    assert sorted(parts[0] + parts[1]) == sorted(records(FolderSource(tmp_path / "plain", "all")))
    assert "has no split 'all'; it has train" in message(DataError, tmp_path / "split", "all")


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
