"""Datasets of any fields: checked record by record, prepared, and read again as they were."""

import io
import json

import numpy as np
import pytest
import tensorflow_datasets as tfds
from array_record.python.array_record_module import ArrayRecordWriter
from PIL import Image
from tensorflow_datasets.core.example_serializer import ExampleSerializer

from tests.data.records import SEVERAL, Records, pixels
from tests.runs import run
from vit_jax.data.fields.stored import STORED, Stored
from vit_jax.data.fields.table import read_fields
from vit_jax.data.prepare.check import _check_part, _summary, check
from vit_jax.data.prepare.folders import list_sources
from vit_jax.data.prepare.prepare import _prepare, prepare
from vit_jax.data.prepare.shards import Options
from vit_jax.data.sources.table import Columns, open_table
from vit_jax.data.sources.tfds_source import TfdsSource
from vit_jax.errors import ConfigError, DataError

N, H, W = 5, 12, 16
RNG = np.random.default_rng(0)
ARRAYS = {
    "images": np.stack([pixels(number, H, W) for number in range(N)]),
    "labels": np.arange(N) % 3,
    "segmentation": RNG.integers(-1, 3, (N, H, W)),
    "boxes": np.tile(np.array([[0, 0, 3.25, 4], [2, 2, 16, 12]], np.float32), (N, 1, 1)),
    "classes": np.array([[2, 1], [0, -1], [1, 1], [2, -1], [0, 2]]),
    "crowd": np.tile([False, True], (N, 1)),
    "points": RNG.uniform(0, 12, (N, 4, 2)).astype(np.float32),
    "class_names": np.array(["red", "green", "blue"]),
}


@pytest.fixture(scope="module")
def arrays(tmp_path_factory):
    folder = tmp_path_factory.mktemp("arrays")
    np.savez(folder / "train.npz", **ARRAYS)
    return folder


def test_what_is_prepared_is_what_was_there(arrays, tmp_path):
    done = prepare(arrays, tmp_path, name="several", splits=["train"], kind="arrays", workers=1)
    assert done.counts == {"train": N}
    source = TfdsSource("", "train", str(done.directory))
    assert source.class_names == ("red", "green", "blue")
    assert source.fields == ("image", "label", "segmentation", "boxes", "classes", "crowd", "points")
    assert sorted(source.labels.tolist()) == sorted(ARRAYS["labels"].tolist())
    seen = set()
    for index in range(N):
        record = read_fields(source[index], source)
        number = int(record["record"].rpartition("(")[2][:8])
        seen.add(number)
        kept = ARRAYS["classes"][number] >= 0
        np.testing.assert_array_equal(
            np.asarray(Image.open(io.BytesIO(record["image"]))), ARRAYS["images"][number]
        )
        for name in ("segmentation", "points"):
            np.testing.assert_array_equal(record[name], ARRAYS[name][number], name)
        for name in ("boxes", "classes", "crowd"):
            np.testing.assert_array_equal(record[name], ARRAYS[name][number][kept], name)
        assert record["label"] == ARRAYS["labels"][number]
    assert seen == set(range(N))
    assert not prepare(arrays, tmp_path, name="several", splits=["train"], kind="arrays", workers=1).fresh
    report = check(done.directory)
    assert report.good
    assert report.splits["train"].fields == source.fields
    assert TfdsSource("several", "train[:2]", str(tmp_path)).fields == source.fields


def test_the_order_of_records_does_not_matter_to_any_kind():
    record = {name: value for name, value in SEVERAL.items() if name in STORED}
    source = Records([record])
    example = read_fields(source[0], source)
    encoded = Stored(source.fields, source.class_names, True).encoded(example)
    assert encoded.keys() == record.keys()
    assert json.dumps(
        {
            name: values
            for name, (_, values) in encoded.items()
            if name not in ("image", "segmentation", "masks", "depth")
        }
    )


@pytest.mark.parametrize(
    ("options", "kind", "said"),
    [
        (dict(splits=["train"], short_side=8), ConfigError, "--short-side applies only to images with one label each"),
        (dict(), ConfigError, "--split is not given; name the splits of the source"),
        (dict(splits=["train"], kind="array"), ConfigError, "--source is 'array'"),
    ],
)  # fmt: skip
def test_what_cannot_be_prepared_is_told(arrays, tmp_path, options, kind, said):
    with pytest.raises(kind, match=said):
        prepare(arrays, tmp_path, **{"name": "several", "kind": "arrays", "workers": 1, **options})


def test_what_is_not_stored_is_said():
    with pytest.raises(
        DataError, match="records have id, which is not stored in prepared datasets; stored are"
    ):
        list_sources({"train": Records([{"image": pixels(), "id": 3}])}, "numbered")


def written_and_read(source, folder):
    """A source, and what it is once it was prepared."""
    listing = list_sources({"train": source}, "some")
    done = _prepare(folder, listing, Options(False, len(listing.class_names), 0, 90, "error"), 2, 1, False)
    return TfdsSource("", "train", str(done.directory))


def drawn(random, height, width):
    """A record of any fields."""
    objects = int(random.integers(0, 4))
    low = random.uniform(0, 0.9, (objects, 2)) * (width, height)
    high = low + random.uniform(0.2, 1, (objects, 2)) * ((width, height) - low)
    return {
        "image": random.integers(0, 256, (height, width, 3), np.uint8),
        "label": int(random.integers(3)),
        "labels": random.choice([0, 1, np.nan, 1], 3, p=[0.4, 0.3, 0.2, 0.1]).astype(np.float32),
        "value": np.append(random.normal(0, 1e3), random.choice([np.nan, 0.1], 1)).astype(np.float32),
        "segmentation": random.integers(-1, 3, (height, width)),
        "masks": random.integers(0, 2, (objects, height, width), np.uint8),
        "boxes": np.concatenate([low, high], 1).astype(np.float32),
        "classes": random.integers(-1, 3, objects),
        "crowd": random.integers(0, 2, objects).astype(bool),
        "depth": np.maximum(random.normal(1, 1, (height, width)), 0).astype(np.float32),
        "points": random.normal(0, 5, (int(random.integers(0, 4)), 2)).astype(np.float32),
    }


@pytest.mark.parametrize("seed", range(4))
def test_any_records_are_read_as_they_were(tmp_path, seed):
    random = np.random.default_rng(seed)
    records = [drawn(random, *random.integers(2, 9, 2)) for _ in range(6)]
    for record in records:
        record["labels"][0] = 1
    optional = [name for name in records[0] if name not in ("image", "label")]
    kept = {"image", *(["label"] if seed % 2 else []), *random.permutation(optional)[: 3 * seed]}
    kept = kept if len(kept) > 1 else {*records[0]}
    source = Records([{name: value for name, value in record.items() if name in kept} for record in records])
    again = written_and_read(source, tmp_path)
    assert (again.fields, again.class_names, len(again)) == (source.fields, source.class_names, 6)
    for index in range(6):
        found = read_fields(again[index], again)
        number = int(found["record"].rpartition("(")[2][:8])
        expected = read_fields(source[number], source)
        found["image"] = np.asarray(Image.open(io.BytesIO(found["image"])))
        for name in source.fields:
            assert np.asarray(found[name]).dtype.kind == np.asarray(expected[name]).dtype.kind
            np.testing.assert_array_equal(found[name], expected[name], name)
        for name in {"labels", "value"}.intersection(source.fields):
            row = (
                np.where(np.isnan(expected[name]), -1, expected[name]) if name == "labels" else expected[name]
            )
            np.testing.assert_array_equal(again.known(name)[index], row)


@pytest.mark.parametrize(
    ("header", "rows", "options", "columns"),
    [
        ("path,label", ["a|b", "", "b"], ["--label-separator", "|"], Columns(separator="|")),
        ("path,age,height", ["1.5,2", ",3", "-1e3,0.25"], ["--value-columns", "age, height"],
         Columns(values=("age", "height"))),
        ("path,cat,dog", ["1,0", "0,", "1,1"], ["--label-columns=dog,cat"], Columns(labels=("dog", "cat"))),
    ],
)  # fmt: skip
def test_tables_of_several_labels_and_of_values(tmp_path, header, rows, options, columns):
    for number in range(3):
        Image.fromarray(pixels(number)).save(tmp_path / f"{number}.png")
    table = tmp_path / "t.csv"
    table.write_text("\n".join([f"{header},split", *(f"{n}.png,{row},train" for n, row in enumerate(rows))]))
    outcome = run("data", "prepare", table, "--output", tmp_path / "out", *options)
    assert outcome.status == 0, outcome.err
    source = open_table(str(table), "train", columns=columns)
    again = TfdsSource("t", "train", str(tmp_path / "out"))
    field = "value" if columns.values else "labels"
    assert (again.fields, again.class_names, again.named) == (("image", field), source.class_names, True)
    order = [int(again[index]["record"].rpartition("(")[2][:8]) for index in range(3)]
    np.testing.assert_array_equal(again.known(field), source.known(field)[order])
    for index, number in enumerate(order):
        np.testing.assert_array_equal(again[index][field], source[number][field])
        assert again[index]["image"] == (tmp_path / f"{number}.png").read_bytes()
    assert (
        TfdsSource("t", "train[1:]", str(tmp_path / "out")).known(field).tolist()
        == again.known(field)[1:].tolist()
    )
    checked = run("data", "check", table, *options, "--json").json()
    assert (checked["good"], checked["splits"]["train"]["fields"]) == (True, ["image", field])


def test_columns_of_two_kinds_are_refused(tmp_path):
    for given, said in (
        (["--label-columns=a", "--value-columns=b"], "--label-columns and --value-columns are both given"),
        (
            ["--label-separator=|", "--value-columns=b"],
            "--label-separator is for lists of labels, which --value-col",
        ),
    ):
        outcome = run("data", "check", tmp_path / "t.csv", *given)
        assert (outcome.status, outcome.err.count("\n")) == (2, 1)
        assert said in outcome.err


def entries(records):
    source = Records(records)
    return _summary(source, _check_part(source, 0, len(source), 10**6, lambda done: None))


def test_every_field_of_every_record_is_checked():
    buffer = io.BytesIO()
    Image.fromarray(SEVERAL["image"]).save(buffer, "PNG")
    file = {**SEVERAL, "image": buffer.getvalue()}
    wide = np.zeros((4, 7), int)
    found = entries([SEVERAL, file, {**file, "segmentation": wide}, {**SEVERAL, "classes": [9, 0]}])
    assert found.bad_fields.count == 2
    first, second = found.bad_fields.examples
    assert first.startswith("row 2 has segmentation of 4x7, but an image of 4x6")
    assert second.startswith("row 3: classes has class 9")
    assert found.formats == {"array": 2, "PNG": 2}
    assert found.classes == {"a": 2, "b": 2, "c": 2}
    assert (found.unreadable.count, found.bad_labels.count) == (0, 0)


def test_an_embedded_source_is_checked_by_its_name():
    report = check("digits", "test")
    assert report.good
    assert sum(report.splits["test"].classes.values()) == 360
    with pytest.raises(ConfigError, match="--split is not given; a source 'digits' does not list its splits"):
        check("digits")


@pytest.fixture(scope="module")
def objects(tmp_path_factory):
    """A dataset as tfds stores COCO's."""
    directory = tmp_path_factory.mktemp("tfds") / "things" / "1.0.0"
    directory.mkdir(parents=True)
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(encoding_format="png"),
            "objects": tfds.features.Sequence(
                {
                    "bbox": tfds.features.BBoxFeature(),
                    "label": tfds.features.ClassLabel(names=["cat", "dog"]),
                    "is_crowd": np.bool_,
                }
            ),
        }
    )
    serializer = ExampleSerializer(features.get_serialized_info())
    path = directory / "things-train.array_record-00000-of-00001"
    writer = ArrayRecordWriter(str(path), "group_size:1")
    for boxes in ([(0.25, 0.5, 1.0, 0.75)], []):
        buffer = io.BytesIO()
        Image.fromarray(pixels(0, 8, 12)).save(buffer, "PNG")
        things = [{"bbox": tfds.features.BBox(*box), "label": "dog", "is_crowd": False} for box in boxes]
        example = features.encode_example({"image": buffer.getvalue(), "objects": things})
        writer.write(serializer.serialize_example(example))
    writer.close()
    features.save_config(str(directory))
    split = {
        "name": "train",
        "shardLengths": ["2"],
        "filepathTemplate": "{DATASET}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
    }
    info = {"name": "things", "version": "1.0.0", "fileFormat": "array_record", "splits": [split]}
    (directory / "dataset_info.json").write_text(json.dumps(info))
    return directory


def test_objects_of_tfds_are_boxes_in_pixels(objects):
    source = TfdsSource("", "train", str(objects))
    assert (source.fields, source.class_names) == (("image", "boxes", "classes", "crowd"), ("cat", "dog"))
    first, second = (read_fields(source[index], source) for index in range(2))
    assert first["boxes"].tolist() == [[6, 2, 9, 8]]
    assert (first["classes"].tolist(), first["crowd"].tolist()) == ([1], [False])
    assert second["boxes"].shape == (0, 4)
    assert check(objects).good
