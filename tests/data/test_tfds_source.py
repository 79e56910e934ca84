"""Reading prepared tfds datasets without TensorFlow, and what is said of others."""

import io
import json
import pickle
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from vit_jax.data.pipeline import eval_batches
from vit_jax.data.section import Part, check_source
from vit_jax.data.sources.opening import balanced, open_source
from vit_jax.data.sources.table import Columns
from vit_jax.data.sources.tfds_source import TfdsSource
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError, DataError


def jpeg(value):
    buffer = io.BytesIO()
    Image.fromarray(np.full((10, 12, 3), value, np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


class TinyPictures(tfds.core.GeneratorBasedBuilder):
    VERSION = tfds.core.Version("1.0.0")
    # tfds would look for it with importlib_resources, which it does not depend on.
    code_path = Path(__file__)

    def _info(self):
        names = ["ant", "bee", "cat"]
        features = {"image": tfds.features.Image(), "label": tfds.features.ClassLabel(names=names)}
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(7), "test": self._generate_examples(3)}

    def _generate_examples(self, count):
        for i in range(count):
            yield i, {"image": io.BytesIO(jpeg(20 * i)), "label": i % 3}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("tfds")
    tfds.disable_progress_bar()
    TinyPictures(data_dir=path, file_format="array_record").download_and_prepare()
    return str(path)


def message(*args):
    with pytest.raises(DataError) as caught:
        TfdsSource(*args)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def altered(data_dir, tmp_path, file, **values):
    """Return a copy of the dataset with other values in a metadata file."""
    copy = tmp_path / "copy"
    shutil.copytree(f"{data_dir}/tiny_pictures/1.0.0", copy)
    contents = json.loads((copy / file).read_text())
    (copy / file).write_text(json.dumps({**contents, **values}))
    return str(copy)


def test_sums_of_slices_and_splits(data_dir):
    sizes = {"train[:2]+train[4:]": 5, "train+test": 10, "train[:1]+test[1:]+train[6:]": 4}
    for split, size in sizes.items():
        assert len(TfdsSource("tiny_pictures", split, data_dir)) == size
    for split in ("train+train", "train[:50%]+train[3:]", "test+train[:1]+test[2:]"):
        assert "twice; its parts must not overlap" in message("tiny_pictures", split, data_dir)


def test_fingerprint(data_dir, tmp_path):
    known = TfdsSource("tiny_pictures", "train", data_dir).fingerprint()
    copy = altered(data_dir, tmp_path, "dataset_info.json")
    assert TfdsSource("", "train", copy).fingerprint() == known
    parts = [
        TfdsSource("", split, copy).fingerprint() for split in ("test", "train[:3]", "train[3:]", "train[:4]")
    ]
    shard = next(Path(copy).glob("*train*array_record*"))
    shard.write_bytes(shard.read_bytes() + b"more")
    parts.append(fingerprint_of_sizes := TfdsSource("", "test", copy).fingerprint())
    assert fingerprint_of_sizes == parts[0]
    assert len({known, *parts}) == 5


def test_records_are_the_stored_bytes(data_dir):
    source = TfdsSource("tiny_pictures", "train", data_dir)
    assert len(source) == 7
    assert source.class_names == ("ant", "bee", "cat")
    assert (source.image_shape, source.labels) == (None, None)
    found = {source[i]["image"]: source[i]["label"] for i in range(7)}
    assert found == {jpeg(20 * i): i % 3 for i in range(7)}
    assert source[2]["record"] == "record 2 of tiny_pictures/1.0.0 train"
    assert "tensorflow" not in sys.modules


def test_directory_instead_of_a_name_and_parts_of_splits(data_dir):
    directory = f"{data_dir}/tiny_pictures/1.0.0"
    assert len(TfdsSource("", "test", directory)) == 3
    assert len(TfdsSource("tiny_pictures:1.0.0", "train[:4]", data_dir)) == 4
    assert len(open_source(Part(source="tfds", path=directory), "train")) == 7


def test_sources_survive_pickling(data_dir):
    source = TfdsSource("tiny_pictures", "test", data_dir)
    copy = pickle.loads(pickle.dumps(source))
    assert copy[1] == source[1]
    assert copy.class_names == source.class_names


def test_batches(data_dir):
    source = TfdsSource("tiny_pictures", "train", data_dir)
    batches = list(eval_batches(source, parse("decode|resize(8)"), 4))
    assert [batch["image"].shape for batch in batches] == [(4, 8, 8, 3)] * 2
    labels = np.concatenate([batch["label"][batch["mask"]] for batch in batches])
    assert sorted(labels) == [0, 0, 0, 1, 1, 2, 2]


def labels_of(source):
    return [source[index]["label"] for index in range(len(source))]


def test_labels_are_read_to_balance_them(data_dir):
    source = TfdsSource("tiny_pictures", "train", data_dir)
    assert source.labels is None
    assert np.bincount(labels_of(balanced(source))).tolist() == [3, 3, 3]


def test_labels_beside_the_records(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path / "copy")
    (version,) = (tmp_path / "copy" / "tiny_pictures").iterdir()
    labels = labels_of(TfdsSource("tiny_pictures", "train", data_dir))
    np.save(version / "tiny_pictures-train.labels.npy", np.array(labels, np.int32))
    for split in ("train", "train[2:5]", "train[:50%]", "train[-2:]+train[:1]"):
        source = TfdsSource("tiny_pictures", split, str(tmp_path / "copy"))
        assert source.labels.tolist() == labels_of(source)
    assert TfdsSource("tiny_pictures", "train+test", str(tmp_path / "copy")).labels is None
    np.save(version / "tiny_pictures-train.labels.npy", np.array(labels[1:], np.int32))
    assert "tiny_pictures-train.labels.npy has shape (6,)" in message(
        "tiny_pictures", "train", str(tmp_path / "copy")
    )


def test_unknown_names(data_dir, tmp_path):
    assert "data.source 'tfds' needs data.name" in message("", "train", "")
    said = message("cifar_10", "train", data_dir)
    assert "tfds dataset 'cifar_10' cannot be opened: Dataset cifar_10 not found" in said
    assert "Did you mean 'cifar10'" in said
    assert "cannot be opened: " in message("not a name", "train", data_dir)
    assert "cannot be loaded at version 9.9.9" in message("mnist:9.9.9", "train", data_dir)
    assert f"tfds directory {str(tmp_path)!r} cannot be opened" in message("", "train", str(tmp_path))


def test_unknown_splits(data_dir):
    said = message("tiny_pictures", "tests", data_dir)
    assert "has no split 'tests'; it has train, test" in said
    assert "Did you mean 'test'" in said
    assert "cannot be read as split 'train[:'" in message("tiny_pictures", "train[:", data_dir)
    assert "has no records in split 'train[:0]'" in message("tiny_pictures", "train[:0]", data_dir)


def test_not_prepared(tmp_path):
    said = message("mnist", "train", str(tmp_path))
    assert "tfds dataset mnist/3.0.1 in" in said
    assert "is not prepared; set data.path" in said
    assert "or prepare it: `vit-jax data prepare mnist --output DIR`." in said


def test_prepared_for_tensorflow(data_dir, tmp_path):
    said = message("", "train", altered(data_dir, tmp_path, "dataset_info.json", fileFormat="tfrecord"))
    assert "is stored as tfrecord, which has no random access; convert it: `vit-jax data prepare /" in said


def test_other_features(data_dir, tmp_path):
    features = {
        "pythonClassName": "tensorflow_datasets.core.features.features_dict.FeaturesDict",
        "featuresDict": {
            "features": {
                "text": {
                    "pythonClassName": "tensorflow_datasets.core.features.text_feature.Text",
                    "text": {},
                }
            }
        },
    }
    said = message("", "train", altered(data_dir, tmp_path, "features.json", **features))
    assert "has the features text; it needs an `image` and a class `label`" in said


def test_records_are_those_of_tfds(data_dir):
    builder = tfds.builder_from_directory(f"{data_dir}/tiny_pictures/1.0.0")
    expected = builder.as_data_source("train", decoders={"image": tfds.decode.SkipDecoding()})
    source = TfdsSource("", "train", f"{data_dir}/tiny_pictures/1.0.0")
    assert len(source) == len(expected) == 7
    for index in range(7):
        found = source[index]
        assert (found["image"], found["label"]) == (expected[index]["image"], expected[index]["label"])
        assert type(found["label"]) is int


def test_damaged_records_are_named(data_dir, tmp_path):
    shutil.copytree(data_dir, tmp_path / "copy")
    (shard,) = (tmp_path / "copy").rglob("*train.array_record*")
    data = bytearray(shard.read_bytes())
    data[200:400] = bytes(200)
    shard.write_bytes(data)
    source = TfdsSource("tiny_pictures", "train", str(tmp_path / "copy"))
    said = []
    for index in range(7):
        try:
            source[index]
        except DataError as error:
            said.append(str(error))
    assert said
    assert all("of tiny_pictures/1.0.0 train is damaged (" in line and "\n" not in line for line in said)


class TinyTargets(TinyPictures):
    """Pictures with several classes, values and yes or no, of which some are inside another feature."""

    def _info(self):
        kinds, names = tfds.features, ["ant", "bee", "cat"]
        features = {
            "image": kinds.Image(),
            "kinds": kinds.Sequence(kinds.ClassLabel(names=names)),
            "coarse": kinds.ClassLabel(names=["wild", "tame"]),
            "angle": kinds.Scalar(np.float64),
            "pose": kinds.Tensor(shape=(2,), dtype=np.float32),
            "box": kinds.BBoxFeature(),
            "says": {"furry": np.bool_, "old": np.bool_, "name": kinds.Text()},
        }
        return tfds.core.DatasetInfo(builder=self, features=kinds.FeaturesDict(features))

    def _generate_examples(self, count):
        for i in range(count):
            says = {"furry": i % 2 == 0, "old": i == 1, "name": str(i)}
            box = tfds.features.BBox(0.0, 0.0, 1.0, 1.0)
            values = {
                "coarse": i % 2,
                "angle": i + 0.5,
                "pose": np.float32([i, -i]),
                "box": box,
                "says": says,
            }
            yield i, {"image": io.BytesIO(jpeg(20 * i)), "kinds": [*range(i % 4)], **values}


@pytest.fixture(scope="module")
def targets(tmp_path_factory):
    path = tmp_path_factory.mktemp("targets")
    TinyTargets(data_dir=path, file_format="array_record").download_and_prepare()
    return str(path / "tiny_targets" / "1.0.0")


# What the picture of number i has, by the keys that choose it.
CHOICES = {
    "kinds": (
        dict(label_column="kinds"),
        ("ant", "bee", "cat"),
        lambda i: [float(j < i % 4) for j in range(3)],
    ),
    "coarse": (dict(label_column="coarse"), ("wild", "tame"), lambda i: i % 2),
    "values": (
        dict(value_columns=("pose", "angle")),
        ("pose_0", "pose_1", "angle"),
        lambda i: [i, -i, i + 0.5],
    ),
    "columns": (
        dict(label_columns=("says/old", "says/furry")),
        ("says/old", "says/furry"),
        lambda i: [float(i == 1), float(i % 2 == 0)],
    ),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_targets_are_chosen(targets, choice):
    chosen, names, expected = CHOICES[choice]
    source = open_source(Part(source="tfds", path=targets, **chosen), "train")
    field = {"kinds": "labels", "coarse": "label", "values": "value", "columns": "labels"}[choice]
    assert (source.fields, source.class_names, len(source)) == (("image", field), names, 7)
    numbers = {jpeg(20 * i): i for i in range(7)}
    (batch,) = eval_batches(source, parse("decode|resize(8)"), 7)
    assert batch[field].dtype == (np.int32 if field == "label" else np.float32)
    assert batch[field].tolist() == [expected(numbers[source[index]["image"]]) for index in range(7)]
    copy = pickle.loads(pickle.dumps(source))
    assert copy.fingerprint() == source.fingerprint()
    assert "tensorflow" not in sys.modules


def test_a_target_is_named_where_there_are_several(targets):
    parts = [Part(source="tfds", path=targets, **chosen) for chosen, _, _ in CHOICES.values()]
    assert len({open_source(part, "train").fingerprint() for part in parts}) == len(parts)
    said = "'angle' (value), 'coarse' (label), 'kinds' (labels), 'pose' (value); choose among them: data.label_column"
    assert said in message("", "train", targets)
    for columns, said in (
        (Columns(label="kind"), "data.label_column has 'kind', but tfds dataset"),
        (Columns(label="kind"), "Did you mean 'kinds'?"),
        (Columns(label="angle"), "which in tfds dataset tiny_targets/1.0.0"),
        (Columns(label="angle"), "is not a class (ClassLabel) or several classes"),
        (Columns(values=("coarse",)), "is not values (floats of a fixed number)"),
        (Columns(values=("box",)), "data.value_columns has 'box', which"),
        (Columns(labels=("says/name",)), "is not 1 or 0 (a bool)"),
    ):
        assert said in message("", "train", targets, columns)


def test_the_only_target_needs_no_name(targets, tmp_path):
    shutil.copytree(targets, tmp_path / "copy")
    file = tmp_path / "copy" / "features.json"
    features = json.loads(file.read_text())
    known = features["featuresDict"]["features"]

    def of(**kept):
        features["featuresDict"]["features"] = {"image": known["image"], **kept}
        file.write_text(json.dumps(features))
        return TfdsSource("", "train", str(tmp_path / "copy"))

    source = of(angle=known["angle"])
    assert (source.fields, source.class_names) == (("image", "value"), ("angle",))
    assert sorted(float(source[i]["value"][0]) for i in range(7)) == [i + 0.5 for i in range(7)]
    assert of(kinds=known["kinds"]).fields == ("image", "labels")
    with pytest.raises(DataError, match=r"^record 0 of tiny_targets/1.0.0 train is damaged \('size'\); prep"):
        of(size=known["angle"])[0]
    with pytest.raises(DataError, match=r"is damaged \(pose has 2 numbers, not 1\); prepare"):
        of(pose=known["angle"])[0]
    with pytest.raises(
        DataError, match=r"a class `label`, several labels \(Sequence of ClassLabel\), values \(floats"
    ):
        of(box=known["box"])


def test_columns_that_features_have_not():
    with pytest.raises(ConfigError, match=r"but data.source 'tfds' takes only label_column, label_columns"):
        check_source("tfds", vars(Part(path="x", split_column="part")))
