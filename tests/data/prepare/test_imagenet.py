"""The archives of ILSVRC2012 in miniature: labels as in tfds, damage and absence told."""

import io
import tarfile

import numpy as np
import pytest
import tensorflow_datasets as tfds
from scipy.io import savemat

from tests.data.prepare.pictures import picture, stored
from vit_jax.data.prepare.folders import DEVKIT, TRAIN_TAR, VALIDATION_TAR
from vit_jax.data.prepare.prepare import prepare
from vit_jax.data.sources.tfds_source import TfdsSource
from vit_jax.errors import ConfigError, DataError

# As published, ids do not follow the order of WordNet's; those beyond the classes are inner nodes.
IDS = {"n03000000": 1, "n01000000": 2, "n02000000": 3}
INNER = {"n00000009": 4}
WNIDS = sorted(IDS)
GROUND_TRUTH = [2, 2, 1, 3, 1]


def write_tar(path, files, mode="w"):
    with tarfile.open(path, mode) as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))


def tar_bytes(files):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, data in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(data)
            archive.addfile(entry, io.BytesIO(data))
    return buffer.getvalue()


def meta(ids, inner):
    kinds = [("ILSVRC2012_ID", object), ("WNID", object), ("words", object), ("num_children", object)]
    rows = [(number, wnid, "a thing", 0) for wnid, number in ids.items()]
    rows += [(number, wnid, "a group", 2) for wnid, number in inner.items()]
    buffer = io.BytesIO()
    savemat(buffer, {"synsets": np.array(rows, kinds)})
    return buffer.getvalue()


def write_archives(folder, per_class=4):
    folder.mkdir(parents=True, exist_ok=True)
    train = {
        wnid: {f"{wnid}_{i}.JPEG": picture(100 * IDS[wnid] + i) for i in range(per_class)}
        for wnid in reversed(WNIDS)
    }
    write_tar(folder / TRAIN_TAR, {f"{wnid}.tar": tar_bytes(files) for wnid, files in train.items()})
    # In an order that is not that of the names.
    numbers = [3, 1, 5, 2, 4]
    validation = {f"ILSVRC2012_val_{number:08d}.JPEG": picture(number) for number in numbers}
    write_tar(folder / VALIDATION_TAR, validation)
    write_devkit(folder)
    return train, validation


def write_devkit(folder, truth=tuple(GROUND_TRUTH), **files):
    contents = {
        "ILSVRC2012_devkit_t12/readme.txt": b"",
        "ILSVRC2012_devkit_t12/data/meta.mat": meta(IDS, INNER),
        "ILSVRC2012_devkit_t12/data/ILSVRC2012_validation_ground_truth.txt": "\n".join(
            map(str, truth)
        ).encode(),
    }
    write_tar(folder / DEVKIT, contents | files, "w:gz")


def message(error, *args, **options):
    with pytest.raises(error) as caught:
        prepare(*args, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.fixture(scope="module")
def archives(tmp_path_factory):
    folder = tmp_path_factory.mktemp("archives")
    return folder, *write_archives(folder)


def test_labels_are_sorted_wordnet_ids(archives, tmp_path):
    folder, train, validation = archives
    done = prepare(folder, tmp_path, shards=2)
    assert done.directory == tmp_path / "imagenet2012" / "5.1.0"
    assert done.counts == {"train": 12, "validation": 5}
    assert TfdsSource("", "train", str(done.directory)).class_names == tuple(WNIDS)
    found = stored(done.directory, "train")
    assert {name: data for name, _, data in found} == {
        n: d for files in train.values() for n, d in files.items()
    }
    assert all(WNIDS[label] == name.partition("_")[0] for name, label, _ in found)
    wnid_of = {number: wnid for wnid, number in IDS.items()}
    found = stored(done.directory, "validation")
    assert {name: data for name, _, data in found} == validation
    for name, label, _ in found:
        number = int(name[len("ILSVRC2012_val_") : -len(".JPEG")])
        assert WNIDS[label] == wnid_of[GROUND_TRUTH[number - 1]]


def test_either_split_alone(archives, tmp_path):
    folder, _, validation = archives
    (tmp_path / "some").mkdir()
    (tmp_path / "some" / TRAIN_TAR).symlink_to(folder / TRAIN_TAR)
    assert prepare(tmp_path / "some", tmp_path / "a").counts == {"train": 12}
    assert prepare(folder, tmp_path / "b", splits=["validation"]).counts == {"validation": len(validation)}


def test_all_classes_are_read_by_name(tmp_path):
    """A set with the thousand classes is what tfds's own code of imagenet2012 expects."""
    names = tfds.builder("imagenet2012", data_dir=str(tmp_path / "none")).info.features["label"].names
    image = picture(0, (4, 4))
    write_tar(tmp_path / TRAIN_TAR, {f"{name}.tar": tar_bytes({f"{name}_1.JPEG": image}) for name in names})
    prepare(tmp_path, tmp_path / "out")
    source = TfdsSource("imagenet2012", "train", str(tmp_path / "out"))
    assert source.class_names == tuple(names)
    assert len(source) == 1000
    records = tfds.data_source("imagenet2012", split="train", data_dir=str(tmp_path / "out"))
    assert records[7]["file_name"].decode() == f"{names[source[7]['label']]}_1.JPEG"


def test_what_is_missing_or_damaged_is_named(archives, tmp_path):
    folder, out = tmp_path / "archives", tmp_path / "out"
    write_archives(folder)
    assert "--split is 'test'; archives of ILSVRC2012 have train and validation" in message(
        ConfigError, folder, out, splits=["test"]
    )
    write_devkit(folder, truth=GROUND_TRUTH[:-1])
    assert "has 5 images, but ILSVRC2012_devkit_t12.tar.gz has labels for 4" in message(
        DataError, folder, out
    )
    write_devkit(folder, truth=[1, 2, 3, 4, 1])
    assert "is not the development kit of ILSVRC2012 (KeyError(4))" in message(DataError, folder, out)
    write_devkit(folder, **{"ILSVRC2012_devkit_t12/data/meta.mat": b"MATLAB 5.0"})
    assert "is not the development kit" in message(DataError, folder, out)
    (folder / DEVKIT).write_bytes(b"no archive")
    assert "is not the development kit" in message(DataError, folder, out)
    (folder / DEVKIT).unlink()
    said = message(DataError, folder, out)
    assert "ILSVRC2012_devkit_t12.tar.gz does not exist; put the development kit there" in said
    assert "--split train" in said
    contents = (folder / TRAIN_TAR).read_bytes()
    (folder / TRAIN_TAR).write_bytes(contents[: len(contents) // 2])
    assert "is not a complete tar archive" in message(DataError, folder, out, splits=["train"])
    write_tar(folder / TRAIN_TAR, {"n01000000.tar": b"no archive" * 100})
    assert "(n01000000.tar) is not a complete tar archive" in message(
        DataError, folder, out, splits=["train"]
    )
    write_archives(folder)
    write_tar(folder / TRAIN_TAR, {"n01000000.tar": tar_bytes({"a.JPEG": picture(1)})})
    assert "class n02000000 is not in both" in message(DataError, folder, out)
    (folder / TRAIN_TAR).unlink()
    assert "cannot be read: No such file" in message(DataError, folder, out, splits=["train"])
    assert not out.exists()
