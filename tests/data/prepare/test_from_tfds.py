"""What tfds prepared as TFRecord, or can build, becomes ArrayRecord without TensorFlow."""

import io
import json
import random
import shutil
import struct
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_data_source import ArrayRecordDataSource
from tensorboardX.crc32c import crc32c as plain_crc32c
from tensorflow_datasets.core.hashing import Hasher
from tensorflow_datasets.core.utils import lazy_imports_utils

from tests.data.prepare.pictures import contents, picture
from vit_jax.data.images.decode import decode
from vit_jax.data.prepare import tfrecord
from vit_jax.data.prepare.crc32c import crc32c, masked_crc32c
from vit_jax.data.prepare.gfile import file_functions
from vit_jax.data.prepare.prepare import prepare
from vit_jax.data.sources.tfds_source import TfdsSource
from vit_jax.errors import ConfigError, DataError

CLASSES = ["ant", "bee", "cat"]


class CodedPictures(tfds.core.GeneratorBasedBuilder):
    """One split of files and one of arrays."""

    VERSION = tfds.core.Version("2.0.0")
    code_path = Path(__file__)
    url_infos: dict = {}  # noqa: RUF012 - tfds would look for them with a package it does not depend on
    trouble: Exception | None = None

    def _info(self):
        features = {
            "id": tfds.features.Text(),
            "image": tfds.features.Image(shape=(8, 6, 3)),
            "label": tfds.features.ClassLabel(names=CLASSES),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(9, True), "test": self._generate_examples(4, False)}

    def _generate_examples(self, count, arrays):
        for number in range(count):
            image = array(number) if arrays else io.BytesIO(picture(number, (8, 6)))
            yield number, {"id": f"picture {number}", "image": image, "label": number % 3}
        if self.trouble:
            raise self.trouble


def array(number):
    return np.random.default_rng(number).integers(0, 255, (8, 6, 3), np.uint8)


def message(error, *args, **options):
    with pytest.raises(error) as caught:
        prepare(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def write_tfrecords(directory, records):
    """A dataset as TensorFlow prepares it, two shards a split, from records in ArrayRecord."""
    info = json.loads((directory / "dataset_info.json").read_text())
    info["fileFormat"] = "tfrecord"
    for split in info["splits"]:
        split["filepathTemplate"] = "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}"
        half = len(records[split["name"]]) // 2
        split["shardLengths"] = [str(half), str(len(records[split["name"]]) - half)]
        for index, part in enumerate((records[split["name"]][:half], records[split["name"]][half:])):
            with (directory / f"{info['name']}-{split['name']}.tfrecord-{index:05d}-of-00002").open(
                "wb"
            ) as file:
                for record in part:
                    length = struct.pack("<Q", len(record))
                    file.write(
                        length
                        + struct.pack("<I", masked(length))
                        + record
                        + struct.pack("<I", masked(record))
                    )
    (directory / "dataset_info.json").write_text(json.dumps(info))


def masked(data):
    crc = plain_crc32c(data)
    return ((crc >> 15) | (crc << 17)) + 0xA282EAD8 & 0xFFFFFFFF


@pytest.fixture(scope="module")
def generated(tmp_path_factory):
    root = tmp_path_factory.mktemp("generated")
    return prepare("coded_pictures", root / "out", data_dir=str(root / "data_dir"))


@pytest.fixture(scope="module")
def as_tfrecord(generated, tmp_path_factory):
    """The directory of a TFRecord dataset, and its records."""
    directory = tmp_path_factory.mktemp("tfrecord") / "coded_pictures" / "2.0.0"
    shutil.copytree(
        generated.directory, directory, ignore=shutil.ignore_patterns("*array_record*", "prepare.json")
    )
    records = {}
    for split in ("train", "test"):
        source = ArrayRecordDataSource(
            [str(f) for f in sorted(generated.directory.glob(f"*-{split}.array_record*"))]
        )
        records[split] = [source[index] for index in range(len(source))]
    write_tfrecords(directory, records)
    return directory, records


def read_all(path):
    with path.open("rb") as file:
        return [tfrecord.read(file, *at) for at in tfrecord.scan(path)]


def test_checksums():
    assert crc32c(b"123456789") == 0xE3069283
    rng = random.Random(0)
    for length in (0, 1, 7, 1000, 4095, *range(4096, 4130), 8191, 8192, 8193, 16384, 70001):
        data = rng.randbytes(length)
        assert crc32c(data) == plain_crc32c(data), length
    assert masked_crc32c(b"abc") == masked(b"abc")


def test_frames(tmp_path):
    records = [b"", b"a", random.Random(1).randbytes(5000)]
    with (tmp_path / "some").open("wb") as file:
        for record in records:
            tfrecord.write(file, record)
    assert read_all(tmp_path / "some") == records


def test_every_flipped_byte_is_found(tmp_path):
    path = tmp_path / "some"
    with path.open("wb") as file:
        tfrecord.write(file, b"abcdefg" * 20)
        tfrecord.write(file, b"hij")
    whole = path.read_bytes()
    for position in range(len(whole)):
        path.write_bytes(whole[:position] + bytes([whole[position] ^ 4]) + whole[position + 1 :])
        with pytest.raises(DataError):
            read_all(path)
    for length in range(1, len(whole)):
        path.write_bytes(whole[:length])
        if length != len(whole) - 19:  # where the second record begins
            with pytest.raises(DataError, match="ends within a record"):
                list(tfrecord.scan(path))


def test_a_builder_runs_and_its_arrays_become_png(generated):
    assert generated.counts == {"train": 9, "test": 4}
    assert generated.directory.parts[-2:] == ("coded_pictures", "2.0.0")
    train = TfdsSource("", "train", str(generated.directory))
    assert train.class_names == tuple(CLASSES)
    order = sorted(range(9), key=Hasher("train").hash_key)
    for index, number in enumerate(order):
        assert train[index]["image"].startswith(b"\x89PNG")
        np.testing.assert_array_equal(decode(train[index]["image"]), array(number))
        assert train[index]["label"] == number % 3
    test = TfdsSource("coded_pictures", "test", str(generated.directory.parent.parent))
    assert {test[i]["image"] for i in range(4)} == {picture(number, (8, 6)) for number in range(4)}
    assert train.labels.tolist() == [number % 3 for number in order]
    assert "tensorflow" not in sys.modules


def test_what_a_builder_yielded_is_kept_when_writing_fails(tmp_path, monkeypatch):
    from vit_jax.data.prepare import prepare as module

    def fail(*args):
        raise DataError("stopped")

    monkeypatch.setattr(module, "write_shards", fail)
    message(DataError, "coded_pictures", tmp_path, data_dir=str(tmp_path / "d"))
    monkeypatch.undo()
    monkeypatch.setattr(CodedPictures, "trouble", ValueError("asked again"))
    done = prepare("coded_pictures", tmp_path, data_dir=str(tmp_path / "d"))
    assert done.counts == {"train": 9, "test": 4}
    assert not (done.directory / "unfinished").exists()
    again = prepare("coded_pictures", tmp_path, data_dir=str(tmp_path / "d"))
    assert (again.fresh, again.counts) == (False, done.counts)
    assert not (done.directory / "unfinished").exists()
    assert "was started with other inputs" in message(
        DataError, "coded_pictures", tmp_path, data_dir=str(tmp_path / "d"), splits=["train"]
    )


def test_a_builder_of_the_catalogue_unpacks_its_archive(tmp_path, monkeypatch):
    """Its code and tfds's open files with TensorFlow's functions, and need nothing else of it."""
    classes = ("daisy", "dandelion", "roses", "sunflowers", "tulips")
    files = {f"flower_photos/{name}/{i}.jpg": picture(i) for name in classes for i in range(3)}
    with tarfile.open(tmp_path / "photos.tgz", "w:gz") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    monkeypatch.setattr(tfds.download.DownloadManager, "download", lambda self, url: tmp_path / "photos.tgz")
    monkeypatch.setattr(tfds.builder_cls("tf_flowers"), "url_infos", {})
    done = prepare("tf_flowers", tmp_path / "out", data_dir=str(tmp_path / "d"))
    source = TfdsSource("", "train", str(done.directory))
    found = [source[index] for index in range(len(source))]
    assert sorted((source.class_names[one["label"]], one["image"]) for one in found) == sorted(
        (name.split("/")[1], data) for name, data in files.items()
    )
    assert "tensorflow" not in sys.modules
    with pytest.raises(ImportError, match="tensorflow"):
        _ = lazy_imports_utils.tensorflow.io


def test_what_else_of_tensorflow_is_missing_is_told():
    with file_functions():
        assert lazy_imports_utils.tensorflow.io.gfile.exists(__file__)
        assert lazy_imports_utils.tensorflow.io.gfile.glob(__file__) == [__file__]
        with pytest.raises(ImportError, match="image is not of its file functions") as caught:
            lazy_imports_utils.tensorflow.image.decode_image  # noqa: B018
    assert caught.value.name == "tensorflow"


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        (ModuleNotFoundError("No module named 'tensorflow'", name="tensorflow"), "it needs tensorflow"),
        (AssertionError("Manual data are missing.\nPut them there."), "Manual data are missing."),
        (OSError("no network"), "no network"),
    ],
)
def test_a_builder_that_cannot_run(tmp_path, monkeypatch, trouble, said):
    monkeypatch.setattr(CodedPictures, "trouble", trouble)
    found = message(DataError, "coded_pictures", tmp_path, data_dir=str(tmp_path / "d"))
    assert found.startswith(
        f"tfds's builder of 'coded_pictures' cannot run here ({said}); prepare the dataset with"
    )


def test_tfrecord_is_copied_record_by_record(as_tfrecord, tmp_path):
    directory, records = as_tfrecord
    done = prepare(directory, tmp_path)
    assert done.directory == tmp_path / "coded_pictures" / "2.0.0"
    for split in ("train", "test"):
        files = sorted(done.directory.glob(f"*-{split}.array_record*"))
        assert [file.name[-14:] for file in files] == ["00000-of-00002", "00001-of-00002"]
        source = ArrayRecordDataSource([str(file) for file in files])
        assert [source[index] for index in range(len(source))] == records[split]
    source = TfdsSource("", "train", str(done.directory))
    assert [source[index]["label"] for index in range(9)] == source.labels.tolist()
    by_name = prepare("coded_pictures", tmp_path / "again", data_dir=str(directory.parent.parent))
    found, expected = contents(by_name.directory), contents(done.directory)
    del found["dataset_info.json"], expected["dataset_info.json"]  # code says more than the directory
    assert found == expected


def test_tfrecord_can_be_shrunk(as_tfrecord, tmp_path):
    done = prepare(as_tfrecord[0], tmp_path, splits=["test"], short_side=4, quality=80)
    source = TfdsSource("", "test", str(done.directory))
    assert [decode(source[index]["image"]).shape for index in range(4)] == [(5, 4, 3)] * 4
    assert source.labels.tolist() == [source[index]["label"] for index in range(4)]


def test_damage_and_absence_in_tfrecord_are_named(as_tfrecord, tmp_path):
    directory, out = tmp_path / "damaged", tmp_path / "out"
    shutil.copytree(as_tfrecord[0], directory)
    shard = directory / "coded_pictures-train.tfrecord-00001-of-00002"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:100] + b"?" + whole[101:])
    said = message(DataError, directory, out)
    assert "train.tfrecord-00001-of-00002:0 in" in said
    assert "the data does not match its checksum" in said
    done = prepare(directory, tmp_path / "skipped", bad="skip")
    assert (done.counts["train"], len(done.bad)) == (8, 1)
    shard.write_bytes(whole[:-30])
    assert f"{shard} ends within a record" in message(DataError, directory, out)
    shard.write_bytes(b"?" * 50)
    assert f"{shard} is not a TFRecord file or is damaged at byte 0" in message(DataError, directory, out)
    shard.write_bytes(b"")
    assert f"{shard} has 0 records instead of 5" in message(DataError, directory, out)
    shard.unlink()
    assert "is incomplete: coded_pictures-train.tfrecord-00001-of-00002 is missing" in message(
        DataError, directory, out
    )
    assert "has no split 'tests'; it has" in message(DataError, directory, out, splits=["tests"])
    assert "--name is 'other', but a tfds dataset keeps its own name" in message(
        ConfigError, directory, out, name="other"
    )


def test_array_record_needs_no_conversion(generated, tmp_path):
    said = message(DataError, generated.directory, tmp_path)
    assert "is stored as array_record; only tfrecord is converted; array_record can be read directly" in said


def test_a_split_that_the_builder_has_not(tmp_path):
    said = message(DataError, "coded_pictures", tmp_path, data_dir=str(tmp_path / "d"), splits=["val"])
    assert "tfds's coded_pictures has no split 'val'; it has train, test." in said
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


def test_labels_out_of_range(tmp_path, monkeypatch):
    monkeypatch.setattr(CodedPictures, "trouble", None)
    names = tfds.features.ClassLabel(names=CLASSES)
    monkeypatch.setattr(type(names), "encode_example", lambda self, label: label + 2)
    said = message(DataError, "coded_pictures", tmp_path, data_dir=str(tmp_path / "d"))
    assert "the label is 3; it must be below 3." in said or "the label is 4; it must be below 3." in said
    done = prepare("coded_pictures", tmp_path, data_dir=str(tmp_path / "d"), bad="skip")
    assert done.counts == {"train": 3, "test": 2}  # only what was 0 before
