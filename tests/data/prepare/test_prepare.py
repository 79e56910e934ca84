"""Folders become sets that tfds and we read: the same bytes, the same order however they were made."""

import json
import os
import signal
import subprocess
import sys

import filelock
import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image
from tensorflow_datasets.core.hashing import Hasher

from tests.data.prepare.pictures import CLASSES, contents, picture, stored, write_pictures
from vit_jax.data.base import balanced
from vit_jax.data.images.decode import decode
from vit_jax.data.prepare.listing import Record, cut, shard_count, shuffled
from vit_jax.data.prepare.prepare import prepare
from vit_jax.data.sources.folder import FolderSource
from vit_jax.data.sources.tfds_source import TfdsSource
from vit_jax.errors import ConfigError, DataError, ResourceError

KILLED = """
import os, signal, sys
from vit_jax.data.prepare import parallel, prepare

whole, calls = parallel.write_shard, []

def write(shard, options, report):
    calls.append(shard)
    def kill(count):
        os.kill(os.getpid(), signal.SIGKILL)
    whole(shard, options, kill if len(calls) == 3 else report)

parallel.write_shard = write
prepare.prepare(sys.argv[1], sys.argv[2], shards=4, workers=1)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("sources") / "My insects-2"
    files = {"train": write_pictures(root / "train"), "val": write_pictures(root / "val", (2, 2, 2), 50)}
    return root, files


@pytest.fixture(scope="module")
def prepared(folder, tmp_path_factory):
    return prepare(folder[0], tmp_path_factory.mktemp("prepared"), shards=4, workers=1)


def message(error, *args, **options):
    with pytest.raises(error) as caught:
        prepare(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_records_are_the_files(folder, prepared):
    _, files = folder
    assert prepared.directory.parts[-2:] == ("my_insects_2", "1.0.0")
    assert prepared.counts == {"train": 18, "val": 6}
    for split in ("train", "val"):
        found = stored(prepared.directory, split)
        assert {name: data for name, _, data in found} == files[split]
        assert all(CLASSES[label] == name.partition("/")[0] for name, label, _ in found)
        assert len(found) == len(files[split])
    assert "tensorflow" not in sys.modules
    assert not (prepared.directory / "unfinished").exists()


def test_our_source_reads_it_with_labels_known_in_advance(prepared):
    source = TfdsSource("", "train", str(prepared.directory))
    found = stored(prepared.directory, "train")
    assert source.class_names == CLASSES
    assert [(source[i]["label"], source[i]["image"]) for i in range(18)] == [entry[1:] for entry in found]
    labels = np.load(prepared.directory / "my_insects_2-train.labels.npy")
    assert labels.dtype == np.int32
    assert labels.tolist() == [label for _, label, _ in found]
    assert len(balanced(TfdsSource("", "train", str(prepared.directory)))) == 3 * 7


def test_by_name_in_a_data_dir(prepared):
    source = TfdsSource("my_insects_2", "val[:50%]", str(prepared.directory.parent.parent))
    assert len(source) == 3


def test_order_is_that_of_tfds(prepared):
    names = [name for name, _, _ in stored(prepared.directory, "train")]
    hasher = Hasher("train")
    assert names == sorted(names, key=hasher.hash_key)
    assert names != sorted(names)


def test_any_number_of_processes_writes_the_same(folder, prepared, tmp_path):
    prepare(folder[0], tmp_path, shards=4, workers=3)
    assert contents(tmp_path / "my_insects_2") == contents(prepared.directory.parent)


def test_killed_and_resumed_is_uninterrupted(folder, prepared, tmp_path):
    path = os.pathsep.join(map(os.path.abspath, filter(None, sys.path)))
    command = [sys.executable, "-c", KILLED, folder[0], tmp_path]
    killed = subprocess.run(command, env=os.environ | {"PYTHONPATH": path}, check=False)
    assert killed.returncode == -signal.SIGKILL
    directory = tmp_path / "my_insects_2" / "1.0.0"
    shards = sorted(directory.glob("*.array_record-*-of-00004"))
    assert len(shards) == 2
    assert len(list(directory.glob("*.partial"))) == 1
    assert not (directory / "dataset_info.json").exists()
    written = [shard.stat().st_mtime_ns for shard in shards]

    said = message(DataError, folder[0], tmp_path, shards=3)
    assert (
        f"{directory} was started with shards 4, but it is now 3; choose another --output or --name" in said
    )
    done = prepare(folder[0], tmp_path, shards=4, workers=1)
    assert done.fresh
    assert [shard.stat().st_mtime_ns for shard in shards] == written
    assert not list(directory.glob("*.partial"))
    assert contents(directory) == contents(prepared.directory)


def test_again_does_nothing_and_other_inputs_are_refused(folder, tmp_path):
    root = tmp_path / "insects"
    write_pictures(root)
    first = prepare(root, tmp_path / "out")
    before = contents(tmp_path / "out")
    again = prepare(root, tmp_path / "out")
    assert not again.fresh
    assert (again.counts, again.bytes, again.bad) == (first.counts, first.bytes, first.bad)
    assert "was started with short-side 0, but it is now 16" in message(
        DataError, root, tmp_path / "out", short_side=16
    )
    (root / "bee" / "new.jpg").write_bytes(picture(1))
    assert "was started with other inputs" in message(DataError, root, tmp_path / "out")
    (tmp_path / "out/insects/1.0.0/prepare.json").write_text("{")
    assert "prepare.json is damaged" in message(DataError, root, tmp_path / "out")
    (tmp_path / "out/insects/1.0.0/prepare.json").unlink()
    assert "was not prepared by this command" in message(DataError, root, tmp_path / "out")
    del before["insects/1.0.0/prepare.json"]
    assert contents(tmp_path / "out") == before


def test_without_split_folders_the_same_are_held_out_as_of_a_folder(tmp_path):
    write_pictures(tmp_path / "insects", (40, 30, 30))
    done = prepare(tmp_path / "insects", tmp_path / "out")
    for split in ("train", "test"):
        names = {name for name, _, _ in stored(done.directory, split)}
        assert names == set(FolderSource(tmp_path / "insects", split).files)


def test_splits_can_be_chosen_and_renamed(folder, tmp_path):
    root, files = folder
    done = prepare(root, tmp_path, name="imagenet2012", splits=["validation=val"])
    assert done.directory == tmp_path / "imagenet2012" / "5.1.0"
    assert list(done.counts) == ["validation"]
    assert {name for name, _, _ in stored(done.directory, "validation")} == set(files["val"])


def test_shrinking(tmp_path):
    root = tmp_path / "insects" / "train"
    (root / "ant").mkdir(parents=True)
    smooth = np.linspace(0, 255, 60 * 90 * 3).reshape(60, 90, 3).astype(np.uint8)
    Image.fromarray(smooth).save(root / "ant" / "large.png")
    (root / "ant" / "small.png").write_bytes(picture(1, (24, 80), "PNG"))
    rotated = Image.Exif()
    rotated[0x0112] = 6
    Image.fromarray(smooth).save(root / "ant" / "rotated.jpg", exif=rotated)
    done = prepare(root.parent, tmp_path / "out", short_side=24, quality=95)
    found = {name: data for name, _, data in stored(done.directory, "train")}
    assert found["ant/small.png"] == (root / "ant/small.png").read_bytes()
    assert found["ant/large.png"].startswith(b"\xff\xd8")
    large = decode(found["ant/large.png"])
    assert large.shape == (24, 36, 3)
    expected = np.asarray(Image.fromarray(smooth).resize((36, 24), Image.Resampling.BOX))
    assert np.abs(large.astype(int) - expected).mean() < 2
    assert decode(found["ant/rotated.jpg"]).shape == (36, 24, 3)
    lower = prepare(root.parent, tmp_path / "low", short_side=24, quality=30)
    assert lower.bytes < done.bytes


def test_only_one_process_at_a_time(folder, tmp_path):
    with filelock.FileLock(tmp_path / ".my_insects_2.lock"):
        assert "is being prepared by another process" in message(ResourceError, folder[0], tmp_path)


def test_bad_files_are_named_and_can_be_left_out(tmp_path):
    root = tmp_path / "insects"
    files = write_pictures(root / "train")
    (root / "train/bee/2.jpg").write_bytes(b"no image")
    (root / "train/cat/3.jpg").write_bytes(files["cat/3.jpg"][:-40])
    (root / "train/cat/4.jpg").write_bytes(b"")
    said = message(DataError, root, tmp_path / "out")
    assert "Repair or remove it, or leave such files out with --bad skip." in said
    assert any(f"{root}/train/{name}.jpg: " in said for name in ("bee/2", "cat/3", "cat/4"))
    done = prepare(root, tmp_path / "out", bad="skip")
    assert sorted(where for where, _ in done.bad) == [
        f"{root}/train/{n}.jpg" for n in ("bee/2", "cat/3", "cat/4")
    ]
    assert done.counts == {"train": 15}
    assert len(TfdsSource("", "train", str(done.directory)).labels) == 15
    assert json.loads((done.directory / "prepare.json").read_text())["bad"] == [
        list(entry) for entry in done.bad
    ]
    assert prepare(root, tmp_path / "out").bad == done.bad


def test_nothing_but_bad_files(tmp_path):
    (tmp_path / "insects/train/ant").mkdir(parents=True)
    (tmp_path / "insects/train/ant/1.jpg").write_bytes(b"no image")
    said = message(DataError, tmp_path / "insects", tmp_path / "out", bad="skip")
    assert said.startswith("no record of split 'train' can be read; the first: ")


def test_a_file_that_changes_meanwhile(folder, tmp_path, monkeypatch):
    root = tmp_path / "insects"
    write_pictures(root / "train")
    whole = os.stat

    def longer(path, *args, **options):
        found = whole(path, *args, **options)
        return (
            os.stat_result((*found[:6], found.st_size + 1, *found[7:]))
            if str(path).endswith("bee/3.jpg")
            else found
        )

    monkeypatch.setattr(os, "stat", longer)
    assert "bee/3.jpg: the file has shrunk since it was listed" in message(DataError, root, tmp_path / "out")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"shards": -1}, "--shards is -1; it must be at least 0."),
        ({"workers": -2}, "--workers is -2; it must be at least 0."),
        ({"short_side": -1}, "--short-side is -1"),
        ({"quality": 101, "short_side": 9}, "--quality is 101; it must be from 1 to 100."),
        ({"bad": "ignore"}, "--bad is 'ignore'; it must be one of error, skip."),
        ({"name": "My set"}, "--name is 'My set'; it must be lower-case letters, digits and _"),
        ({"splits": ["train", "train"]}, "--split is 'train'; give each split once"),
        ({"splits": ["all"]}, "--split is 'all'"),
        ({"splits": ["a b"]}, "--split is 'a b'"),
    ],
)
def test_mistakes(folder, tmp_path, options, expected):
    assert expected in message(ConfigError, folder[0], tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_sources_that_are_none(folder, tmp_path):
    assert "'cifar_10' is neither a folder nor a dataset of tfds" in message(DataError, "cifar_10", tmp_path)
    assert "Did you mean 'cifar10'" in message(DataError, "cifar_10", tmp_path)
    (tmp_path / "empty").mkdir()
    assert "empty is empty; put one folder of images per class" in message(
        DataError, tmp_path / "empty", tmp_path / "out"
    )
    assert "has no split 'tests'" in message(DataError, folder[0], tmp_path / "out", splits=["tests"])
    write_pictures(tmp_path / "odd" / "train")
    write_pictures(tmp_path / "odd" / "test")
    (tmp_path / "odd" / "test" / "ant").rename(tmp_path / "odd" / "test" / "ants")
    assert "class 'ants' is in" in message(DataError, tmp_path / "odd", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_output_that_cannot_be_written(folder, tmp_path):
    (tmp_path / "file").write_text("")
    said = message(ResourceError, folder[0], tmp_path / "file")
    assert "cannot be written" in said
    assert "choose another --output" in said


def test_shards_without_a_disk_to_write_to(folder, tmp_path, monkeypatch):
    from vit_jax.data.prepare import shards

    class Full:
        def __init__(self, path, options):
            self.path = path

        def write(self, record):
            raise RuntimeError("write() failed: No space left on device")

        def close(self):
            pass

    monkeypatch.setattr(shards, "ArrayRecordWriter", Full)
    assert "No space left on device; free space and run the command again" in message(
        ResourceError, folder[0], tmp_path
    )


def test_cutting_into_shards():
    assert shard_count(10, 5) == 1
    assert shard_count(3 * (64 << 20), 1000) == 3
    assert shard_count(10 << 30, 20) == 20
    assert shard_count(140 * 10**9, 1_281_167) == 1024
    assert shard_count(4000 << 30, 10**8) == 4000
    for count in (1, 3, 7):
        parts = list(cut(list(range(20)), count))
        assert [number for part in parts for number in part] == list(range(20))
        assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_names_are_unique():
    with pytest.raises(DataError, match="two records of split 'train' are both named 'a'"):
        shuffled([Record("a", 0, "x", 0, 1), Record("b", 0, "x", 0, 1), Record("a", 1, "y", 0, 1)], "train")


def test_features_are_those_of_images(prepared):
    features = tfds.builder_from_directory(str(prepared.directory)).info.features
    assert features["label"].names == list(CLASSES)
    assert isinstance(features["image"], tfds.features.Image)
