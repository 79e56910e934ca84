"""Datasets of Hugging Face's library: with a stand-in for it, and with the library where it is installed."""

import importlib.util
import io
import sys
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.section import COLUMNS
from vit_jax.data.sources import huggingface
from vit_jax.data.sources.huggingface import DatasetSource, as_dataset, open_saved
from vit_jax.data.sources.opening import open_source
from vit_jax.data.sources.sequence import as_source
from vit_jax.data.sources.table import Columns
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError, DataError

PIXELS = np.random.default_rng(0).integers(0, 256, (5, 4, 3, 3), dtype=np.uint8)
NAMES = ["cat", "dog", "eel"]
LABELS = [1, 0, 2, 1, 0]


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


FILES = [{"bytes": png(pixels), "path": None} for pixels in PIXELS]


class ImageFeature:
    """Called as that of the library is."""

    def __init__(self, decode=True):
        self.decode = decode


ImageFeature.__name__ = "Image"


class StandIn:
    """As much of `datasets.Dataset` as is used."""

    __module__ = "datasets.arrow_dataset"

    def __init__(self, columns, features, format="", split=None):
        self.columns, self.features, self.format, self.split = (
            columns,
            features,
            {"type": format or None},
            split,
        )

    def __len__(self):
        return len(next(iter(self.columns.values())))

    def __getitem__(self, which):
        row = {name: values[which] for name, values in self.columns.items()}
        for feature in self.features.values():
            if isinstance(feature, ImageFeature) and feature.decode:
                raise AssertionError("the library decodes images otherwise")
        return row

    def with_format(self, format):
        return StandIn(self.columns, self.features, format)

    def select_columns(self, names):
        return StandIn(
            {name: self.columns[name] for name in names}, {name: self.features[name] for name in names}
        )

    def cast_column(self, name, feature):
        return StandIn(self.columns, self.features | {name: feature})


def stand_in(labels=LABELS, names=NAMES, images=FILES, feature=None, **options):
    features = {
        "image": ImageFeature() if feature is None else feature,
        "label": SimpleNamespace(names=names) if names else SimpleNamespace(),
        "other": SimpleNamespace(),
    }
    return StandIn({"image": images, "label": labels, "other": labels}, features, **options)


def images(source):
    decode = parse("decode")[0]
    return [decode(source[i], np.random.default_rng(0))["image"] for i in range(len(source))]


def test_class_labels_have_names():
    for source in (DatasetSource(stand_in()), as_source(stand_in(), name="the dataset")):
        assert (source.class_names, source.named) == (("cat", "dog", "eel"), True)
        assert source.labels.tolist() == LABELS
        assert source[2] == {"image": FILES[2]["bytes"], "label": 2, "record": "record 2 of the dataset"}
        for found, expected in zip(images(source), PIXELS):
            np.testing.assert_array_equal(found, expected)


def targets(**columns):
    """Pictures with such columns, given as their feature and values."""
    values = {name: cells for name, (_, cells) in columns.items()}
    features = {name: feature for name, (feature, _) in columns.items()}
    return StandIn({"image": FILES, **values}, {"image": ImageFeature(), **features})


NUMBERED = [[1, 0], [], [2], [0], [1]]
NAMED = [[NAMES[label] for label in row] for row in NUMBERED]
CLASSES, PLAIN = SimpleNamespace(names=NAMES), SimpleNamespace()


@pytest.mark.parametrize(
    ("feature", "cells", "separator"),
    [
        (SimpleNamespace(feature=CLASSES), NUMBERED, ""),
        ([CLASSES], NUMBERED, ""),
        (SimpleNamespace(feature=PLAIN), NAMED, ""),
        (PLAIN, ["|".join(row) for row in NAMED], "|"),
    ],
)
def test_several_labels(feature, cells, separator):
    source = as_dataset(targets(label=(feature, cells)), Columns(separator=separator))
    assert (source.fields, source.class_names, source.named) == (("image", "labels"), tuple(NAMES), True)
    hot = [[float(label in row) for label in range(3)] for row in NUMBERED]
    assert [source[index]["labels"].tolist() for index in range(5)] == hot
    assert source[2]["image"] == FILES[2]["bytes"]
    assert source.known("labels").tolist() == hot
    if not separator:
        assert as_source(targets(label=(feature, cells))).fingerprint() == source.fingerprint()


def test_columns_of_classes_and_of_values():
    dataset = targets(
        old=(PLAIN, [True, False, None, True, False]),
        new=(PLAIN, [0, 1, 1, 1, 0]),
        age=(PLAIN, [1, 2.5, None, 4, 5]),
        place=(SimpleNamespace(feature=PLAIN), [[index, -index] for index in range(5)]),
    )
    labels = as_dataset(dataset, Columns(labels=("new", "old")))
    assert (labels.fields, labels.class_names) == (("image", "labels"), ("new", "old"))
    assert labels.known("labels").tolist() == [[0, 1], [1, 0], [1, -1], [1, 1], [0, 0]]
    values = as_dataset(dataset, Columns(values=("place", "age")))
    assert (values.fields, values.class_names) == (("image", "value"), ("place_0", "place_1", "age"))
    assert values[3]["value"].tolist() == [3, -3, 4]
    assert np.isnan(values[2]["value"]).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("feature", "cells", "columns", "said"),
    [
        (
            SimpleNamespace(feature=CLASSES),
            [[3], [], [], [], []],
            {},
            "record 0 of the dataset has label 3, which",
        ),
        (
            SimpleNamespace(feature=CLASSES),
            [[0], None, [], [], []],
            {},
            "record 1 of the dataset has no labels",
        ),
        (
            PLAIN,
            [1, 2, 0, 1, 0],
            {"labels": ("label",)},
            "record 1 of the dataset has in column 'label' 2; it must",
        ),
        (
            PLAIN,
            [1, "x", 0, 1, 0],
            {"values": ("label",)},
            "record 1 of the dataset has in column 'label' 'x'; it must be a finite decimal",
        ),
        (
            PLAIN,
            [[1], [2], [1, 2], [0], [1]],
            {"values": ("label",)},
            "record 2 of the dataset has 2 values in column",
        ),
        (
            PLAIN,
            [1, None, 1, 1, 1],
            {"values": ("label",)},
            "record 1 of the dataset has no known target",
        ),
        (PLAIN, LABELS, {"values": ("labels",)}, "no column 'labels', it has image, label"),
    ],
)
def test_wrong_targets(feature, cells, columns, said):
    with pytest.raises(DataError) as caught:
        as_dataset(targets(label=(feature, cells)), Columns(**columns))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_labels_are_sorted(tmp_path):
    texts = DatasetSource(stand_in(["b", "a", "c", "b", "a"], None))
    assert (texts.class_names, texts.labels.tolist()) == (("a", "b", "c"), [1, 0, 2, 1, 0])
    numbers = DatasetSource(stand_in([10, 9, 2, 9, 2], None))
    assert (numbers.class_names, numbers.labels.tolist()) == (("2", "9", "10"), [2, 1, 0, 1, 0])
    assert as_source(stand_in(["b", "a", "a", "b", "a"], None), class_names=["b", "a"]).labels.tolist() == [
        0,
        1,
        1,
        0,
        1,
    ]


def test_images_of_other_columns(tmp_path):
    (tmp_path / "1.png").write_bytes(png(PIXELS[0]))
    kinds = {
        "paths": [str(tmp_path / "1.png")] * 5,
        "files": [{"bytes": None, "path": str(tmp_path / "1.png")}] * 5,
        "bytes": [png(PIXELS[0])] * 5,
        "lists": [PIXELS[0].tolist()] * 5,
    }
    for values in kinds.values():
        source = DatasetSource(stand_in(images=values, feature=SimpleNamespace()))
        np.testing.assert_array_equal(images(source)[1], PIXELS[0])
    other = StandIn(
        {"picture": FILES, "kind": LABELS}, {"picture": ImageFeature(), "kind": SimpleNamespace(names=NAMES)}
    )
    assert DatasetSource(other, Columns("picture", "kind"))[0]["label"] == 1


@pytest.mark.parametrize(
    ("dataset", "said"),
    [
        ({"train": stand_in()}, "the dataset has the splits train; give one of them: dataset['train']"),
        (
            SimpleNamespace(features={}),
            "is a SimpleNamespace, which has no random access; load it without streaming",
        ),
        (stand_in(format="custom"), "has its own transform, but transforms are set in data.train_transforms"),
        (
            StandIn({"img": FILES}, {"img": ImageFeature(), "label": 0}),
            "has no column 'image', it has img, label; name",
        ),
        (stand_in([], images=[]), "the dataset is empty"),
        (
            stand_in([1, -1, 0, 0, 0]),
            "record 1 of the dataset has no label; labels must be from 0 to 2 (3 classes)",
        ),
        (stand_in([1, None, 0, 0, 0]), "record 1 of the dataset has no label"),
        (stand_in([1, 3, 0, 0, 0]), "record 1 of the dataset has label 3; labels must be from 0 to 2"),
        (
            stand_in(["a", None, "a", "a", "a"], None),
            "record 1 of the dataset has no label; give every record a whole number",
        ),
        (
            stand_in([0.5] * 5, None),
            "record 0 of the dataset has label 0.5; give every record a whole number",
        ),
        (stand_in(names=["a\n", "b", "c"]), "has a class 'a\\n', which cannot be printed on one line"),
        (
            stand_in(images=[None] * 5, feature=SimpleNamespace()),
            "the image of record 0 of the dataset is NoneType",
        ),
        (
            stand_in(images=[[[1], [2, 3]]] * 5, feature=SimpleNamespace()),
            "the image of record 0 of the dataset is not an array",
        ),
    ],
)
def test_wrong_datasets(dataset, said):
    with pytest.raises(DataError) as caught:
        DatasetSource(dataset)[0]
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_fingerprints():
    known = DatasetSource(stand_in()).fingerprint()
    assert DatasetSource(stand_in(list(LABELS))).fingerprint() == known
    assert DatasetSource(stand_in(LABELS[::-1])).fingerprint() != known
    assert DatasetSource(stand_in(images=FILES[::-1])).fingerprint() != known


@pytest.fixture
def library(monkeypatch, tmp_path):
    """A stand-in for the library, with the folder of a dataset of two splits."""
    splits = {
        "train": stand_in(["b", "a", "c", "b", "a"], None),
        "validation": stand_in(["a", "a", "a", "b", "a"], None),
    }

    def load_dataset(name, configuration):
        return {"train": stand_in([0, 1, 2, 0, 0], [name, str(configuration), "c"])}

    fake = SimpleNamespace(__version__="4.1.0", load_from_disk=lambda path: splits, load_dataset=load_dataset)
    monkeypatch.setitem(sys.modules, "datasets", fake)
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: True)
    (tmp_path / "dataset_dict.json").write_text("{}")
    fake.folder = str(tmp_path)
    return fake


def section(**values):
    empty = dict.fromkeys(("path", "name", *COLUMNS), "")
    return SimpleNamespace(**{**empty, "source": "huggingface", "train_split": "train", **values})


def test_saved_datasets(library):
    data = section(path=library.folder)
    train, val = open_source(data, "train"), open_source(data, "val")
    assert val.class_names == train.class_names == ("a", "b", "c")  # those of training
    assert len(open_source(data, "train[:2]+validation")) == 7
    assert val.name_of(1) == f"record 1 of split 'validation' of {library.folder}"
    with pytest.raises(
        DataError, match=r"has no split 'test'; it has train, validation: set data.train_split"
    ):
        open_source(data, "test")
    library.load_from_disk = lambda path: stand_in()
    assert len(open_source(data, "train")) == 5


def test_datasets_of_the_hub(library):
    assert open_source(section(name="me/pets"), "train").class_names == ("me/pets", "None", "c")
    assert open_source(section(name="me/pets:small"), "train").class_names == ("me/pets", "small", "c")
    library.__version__ = "3.6.0"
    with pytest.raises(ConfigError, match="would run code from the hub; install datasets 4 or later"):
        open_source(section(name="me/pets"), "train")


def test_what_is_no_saved_dataset(library, tmp_path):
    with pytest.raises(DataError, match="nowhere', which is not a folder written by save_to_disk"):
        open_source(section(path="nowhere"), "train")
    with pytest.raises(ConfigError, match="give either the name of a dataset on the hub, or the folder"):
        open_source(section(path="a", name="b"), "train")
    with pytest.raises(
        ConfigError, match=r"data.split_column is 'x', but Hugging Face datasets have their own splits"
    ):
        open_source(section(path="a", split_column="x"), "train")

    def broken(path):
        raise ValueError("damaged\nfile")

    library.load_from_disk = broken
    with pytest.raises(DataError, match=r"cannot be opened: damaged$"):
        open_source(section(path=library.folder), "train")


def test_without_the_library(monkeypatch):
    monkeypatch.setattr(huggingface.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        ConfigError, match="needs the library datasets, which is not installed; install it with pip"
    ):
        open_source(section(path="a"), "train")


def test_the_library_itself(tmp_path):
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=NAMES)})
    whole = datasets.Dataset.from_dict({"image": FILES, "label": LABELS}, features=features)
    datasets.DatasetDict({"train": whole, "test": whole.select([3, 1])}).save_to_disk(str(tmp_path / "saved"))
    train = open_saved(str(tmp_path / "saved"), "train", "train")
    test = open_saved(str(tmp_path / "saved"), "test", "train")
    for source in (train, as_source(whole)):
        assert (source.class_names, source.labels.tolist()) == (("cat", "dog", "eel"), LABELS)
        assert [source[i]["image"] for i in range(5)] == [file["bytes"] for file in FILES]
        assert source.fingerprint() == train.fingerprint()
    assert [test[i]["image"] for i in range(2)] == [FILES[3]["bytes"], FILES[1]["bytes"]]
    assert test.labels.tolist() == [1, 0]
    with pytest.raises(DataError, match="has its own transform"):
        as_source(whole.with_transform(lambda batch: batch))
    with pytest.raises(DataError, match="has the splits train; give one of them"):
        as_source(datasets.DatasetDict({"train": whole}))
    with pytest.raises(DataError, match="which has no random access"):
        as_source(whole.to_iterable_dataset())
