"""Several labels and values of an image: tables, arrays, sequences; names decide, what is unknown or wrong is said."""

import json
from decimal import Decimal

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.cache import Cached
from vit_jax.data.classes import Relabelled, match
from vit_jax.data.fields.several import hot, listed, number_cell, values
from vit_jax.data.pipeline import eval_batches
from vit_jax.data.section import mixture_parts
from vit_jax.data.sources.arrays import open_npz
from vit_jax.data.sources.sequence import as_source, as_sources
from vit_jax.data.sources.table import Columns, open_table
from vit_jax.data.split import open_split
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError, DataError

NAN = np.nan
FILES = ("1.png", "2.png", "3.png", "4.png")


@pytest.fixture
def folder(tmp_path):
    for number, file in enumerate(FILES):
        Image.fromarray(np.full((4, 5, 3), number, np.uint8)).save(tmp_path / file)
    return tmp_path


def csv(file, header, rows):
    file.write_text("\n".join([header, *rows]) + "\n")
    return str(file)


def batch(source):
    """All records as evaluation reads them, with the fields checked."""
    return next(eval_batches(source, parse("decode()|resize((4, 4))"), len(source), num_threads=0))


def test_a_column_of_lists_of_labels(folder):
    rows = ["1.png,dog|cat,train", "2.png,,train", "3.png,eel | cat,train", "4.png,cat,val"]
    expected = [[1, 1, 0], [0, 0, 0], [1, 0, 1]]
    path = csv(folder / "t.csv", "path,label,split", rows)
    columns = Columns(separator="|")
    source = open_table(path, "train", columns=columns)
    assert source.class_names == ("cat", "dog", "eel")
    assert source.fields == ("image", "labels")
    np.testing.assert_array_equal(source.known("labels"), expected)
    np.testing.assert_array_equal(batch(source)["labels"], expected)
    val = open_table(path, "val", columns=columns)  # with the classes of training
    np.testing.assert_array_equal(val[0]["labels"], [1, 0, 0])
    assert val[0]["record"] == f"{folder}/4.png"

    listed_rows = [
        {"path": file, "label": labels} for file, labels in zip(FILES, [["a"], [], ["b", "a"], ["b"]])
    ]
    (folder / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in listed_rows))
    lists = open_table(str(folder / "train.jsonl"), "all")  # lists say themselves that they are several
    np.testing.assert_array_equal(lists.known("labels"), [[1, 0], [0, 0], [1, 1], [0, 1]])
    text = csv(folder / "j.csv", "path,label", ['1.png,"[""a"", ""b""]"', "2.png,[]"])
    np.testing.assert_array_equal(
        open_table(text, "all", columns=Columns(separator="json")).known("labels"), [[1, 1], [0, 0]]
    )


def test_columns_of_classes_and_of_values(folder):
    rows = ["1.png,1,0,,31.5,1.8", "2.png,true,,No,,1.6", "3.png,0,,1,40,"]
    path = csv(folder / "labels.csv", "path,cat,dog,eel,age,height", rows)
    classes = open_table(path, "all", columns=Columns(labels=("eel", "cat", "dog")))
    assert classes.class_names == ("eel", "cat", "dog")
    np.testing.assert_array_equal(batch(classes)["labels"], [[NAN, 1, 0], [0, 1, NAN], [1, 0, NAN]])
    # A table beside its images that is called `labels` is the whole table, not a split.
    for where in (path, str(folder)):
        found = open_table(where, "all", columns=Columns(values=("age", "height")))
        np.testing.assert_allclose(batch(found)["value"], [[31.5, 1.8], [NAN, 1.6], [40, NAN]])
        assert found.class_names == ("age", "height")
    assert open_table(path, "all", columns=Columns(labels=("cat",))).fingerprint() != found.fingerprint()


@pytest.mark.parametrize(
    ("cell", "value"),
    [("1e3", 1000), ("-0.5", -0.5), (" 3 ", 3), ("+.5E-1", 0.05), ("7.", 7), (7, 7), (Decimal("1.5"), 1.5),
     (np.float32(0.5), 0.5), ("", NAN), ("NaN", NAN), ("null", NAN), (None, NAN), (NAN, NAN)],
)  # fmt: skip
def test_cells_of_values(cell, value):
    np.testing.assert_equal(number_cell(cell), value)


@pytest.mark.parametrize(
    "cell",
    ["1_000", "1,5", "inf", "-Infinity", "0x10", "１２", "1e999", "1e", ".", "- 1", "+nan", "tall", True, 10**400,
     1j, b"1", [1], float("inf")],
)  # fmt: skip
def test_cells_that_are_no_finite_decimal_number(cell):
    with pytest.raises(
        DataError, match=r"it must be a finite decimal number, such as -0\.5 or 1e3, or empty"
    ):
        number_cell(cell)


def test_index_maps_carry_targets(folder):
    rows = [
        f"{file},{label},{value},train" for file, label, value in zip(FILES, ("a|b", "b", "", "a"), range(4))
    ]
    path = csv(folder / "t.csv", "path,label,value,split", rows)
    labels = open_split("train", lambda name: open_table(path, name, columns=Columns(separator="|")))
    half = open_split(
        "train[2:]+train[:1]", lambda name: open_table(path, name, columns=Columns(separator="|"))
    )
    own = dict(zip(FILES, [[1, 1], [0, 1], [0, 0], [1, 0]]))
    files = [half.name_of(index).rpartition("/")[2] for index in range(3)]
    np.testing.assert_array_equal(half.known("labels"), [own[file] for file in files])
    np.testing.assert_array_equal(batch(half)["labels"], [own[file] for file in files])
    np.testing.assert_array_equal(Cached(labels).known("labels"), labels.known("labels"))
    assert labels.known("label") is None
    # Of a model with more classes, what the data does not know is unknown, not absent.
    model = ("b", "c", "a")
    found = match(model, labels.class_names, model_named=True, data_named=True)
    relabelled = Relabelled(labels, found.labels, model)
    np.testing.assert_array_equal(batch(relabelled)["labels"][0], [1, NAN, 1])
    value = open_table(path, "train", columns=Columns(values=("value",)))
    assert value.fields == ("image", "value")


def test_values_that_float32_blurs_are_refused():
    apart = 1e9 + np.arange(8) / 10
    with pytest.raises(DataError, match=r"values of the values run from 1000000000 to 1000000000\.7, which"):
        values(apart)
    np.testing.assert_allclose(values(apart - 1e9).values[:, 0], np.arange(8) / 10, rtol=1e-6)
    assert values(np.full(3, 0.1)).values.shape == (3, 1)  # one value, however it is rounded
    values(1.7e9 + 86400 * np.arange(1000))  # days since 1970 stay apart


LISTS, CLASS, NUMBER = Columns(separator="|"), Columns(labels=("z",)), Columns(values=("z",))
WRONG = [
    (CLASS, "1.png,a,-1", "2.png,a,1", "-1.*must be 1, 0, or empty"),
    (Columns(separator="json"), "1.png,[1,x", "2.png,[],x", r"row 1 of .* '\[1' is not JSON"),
    (Columns(separator="json"), '1.png,"{""a"": 1}",x', "2.png,[],x", "row 1 of .* is not a JSON list of labels"),
    (LISTS, "1.png,a|b,x", "1.png,a,x", "has '1.png' twice"),
    (CLASS, "1.png,a,maybe", "2.png,a,0", "row 1 of .* has in column 'z' 'maybe'; it must be 1, 0"),
    (CLASS, "1.png,a,1", "2.png,a,", "row 2 of .* has no value in 'z'; leave it out"),
    (NUMBER, "1.png,a,1", "2.png,a,nan", "row 2 of .* has no value in 'z'; leave it out"),
    (NUMBER, "1.png,a,3 cm", "2.png,a,1", "row 1 of .* has in column 'z' '3 cm'; it must be a finite decimal number"),
    (NUMBER, "1.png,a,1", "2.png,a,inf", "row 2 of .* has in column 'z' 'inf'; it must be a finite decimal number"),
    (NUMBER, "1.png,a,1_000", "2.png,a,1", "row 1 of .* has in column 'z' '1_000'; it must be a finite decimal"),
    (Columns(values=("age",)), "1.png,a,1", "2.png,a,1", "no column 'age', it has .* label_columns or value_columns"),
]  # fmt: skip


@pytest.mark.parametrize(("columns", "first", "second", "message"), WRONG, ids=range(len(WRONG)))
def test_wrong_tables_get_one_line(folder, columns, first, second, message):
    path = csv(folder / "t.csv", "path,label,z", [first, second])
    with pytest.raises(DataError, match=message) as caught:
        open_table(path, "all", columns=columns)
    assert "\n" not in str(caught.value)


def test_labels_that_training_has_not_are_named(folder):
    path = csv(folder / "t.csv", "path,label,split", ["1.png,cat|dog,train", "2.png,cat|bird,val"])
    with pytest.raises(
        DataError, match=r"2.png in .* has label 'bird', which is none of the 2 classes \(cat, dog\)"
    ):
        open_table(path, "val", columns=LISTS)


def test_columns_are_of_one_kind():
    table = {"source": "table", "path": "t.csv"}
    with pytest.raises(ConfigError, match=r"label_columns and .*value_columns are both given"):
        mixture_parts([table | {"label_columns": ("a",), "value_columns": ("b",)}])
    with pytest.raises(ConfigError, match=r"label_separator is '|', but .*value_columns has no lists"):
        mixture_parts([table | {"label_separator": "|", "value_columns": ("b",)}])
    with pytest.raises(ConfigError, match=r"value_columns is .*, but source 'folder' has no columns"):
        mixture_parts([{"source": "folder", "path": "t", "value_columns": ("b",)}])


def test_arrays_of_labels_and_of_values(tmp_path):
    images = np.zeros((3, 4, 4, 3), np.uint8)
    labels = np.array([[1, 0], [0, 1], [NAN, 1]])
    np.savez(tmp_path / "train.npz", images=images, labels=labels, class_names=["a", "b"])
    source = open_npz(str(tmp_path), "train")
    assert (source.fields, source.class_names, source.named) == (("image", "labels"), ("a", "b"), True)
    np.testing.assert_array_equal(source.take(np.arange(3))["labels"], labels)
    np.savez(tmp_path / "train.npz", images=images, values=[1.5, 2, 3])
    source = open_npz(str(tmp_path), "train")
    assert (source.class_names, source.named, source.known("value").tolist()) == (
        ("value",),
        False,
        [[1.5], [2], [3]],
    )
    np.savez(tmp_path / "train.npz", images=images, values=np.eye(3), value_names=["x", "y"])
    with pytest.raises(DataError, match="has 2 names for 3 values"):
        open_npz(str(tmp_path), "train")


def test_sequences_of_records_with_labels_or_values():
    image = np.zeros((4, 4, 3), np.uint8)
    records = [{"image": image, "labels": labels} for labels in (["dog", "cat"], [], ("cat",))]
    train, held_out = as_sources((records, records[:1]))
    np.testing.assert_array_equal(train.known("labels"), [[1, 1], [0, 0], [1, 0]])
    assert held_out.class_names == train.class_names == ("cat", "dog")
    with pytest.raises(
        DataError, match="record 0 of the evaluation records has label 'eel', which is none of the 2"
    ):
        as_sources((records, [{"image": image, "labels": ["eel"]}]))
    value = as_source([{"image": image, "value": x} for x in (1, 2.5, np.float32(3))])
    np.testing.assert_array_equal(batch(value)["value"], [[1], [2.5], [3]])
    both = as_source([image] * 2, [["a"], ["b", "a"]])
    np.testing.assert_array_equal(both.known("labels"), [[1, 0], [1, 1]])
    array = as_source(np.stack([image] * 2), np.array([[0, 1, 1], [1, 0, 0]]), ["x", "y", "z"])
    np.testing.assert_array_equal(array.take(np.arange(2))["labels"], [[0, 1, 1], [1, 0, 0]])

    for wrong, message in (
        ({"image": image}, "record 1 of the images has no 'labels', but record 0 has one"),
        ({"image": image, "labels": None}, "record 1 of the images has no labels; give a list"),
        ({"image": image, "labels": "cat"}, "record 1 of the images has labels 'cat'; give a list"),
        ({"image": image, "labels": [None]}, "record 1 of the images has the label None"),
    ):
        with pytest.raises(DataError, match=message):
            as_source([records[0], wrong])
    for wrong, message in (
        ("tall", "record 1 of the images has value 'tall'; it must be one or several numbers"),
        (NAN, "record 1 of the images has no known target"),
        (float("inf"), "record 1 of the images has the value .*inf.*; it must be finite"),
        ([1, 2], "record 1 of the images has values of shape"),
    ):
        with pytest.raises(DataError, match=message):
            as_source([{"image": image, "value": 1.0}, {"image": image, "value": wrong}])


def test_numbers_are_positions_only_where_there_are_no_names():
    assert listed([[0], [2, 1]]).names == ("0", "1", "2")
    assert not listed([[0], [2, 1]]).named
    np.testing.assert_array_equal(listed([[0], [1, 1]], ["a", "b"]).values, [[1, 0], [0, 1]])
    for wrong, message in (([[3]], "label 3, which is none of the 2"), ([[0, "a"]], "names and numbers")):
        with pytest.raises(DataError, match=message):
            listed(wrong, ["a", "b"])
    with pytest.raises(DataError, match="no record of the labels has a label"):
        listed([[], []])
    with pytest.raises(DataError, match="label 1000000000, but not that many different"):
        listed([[10**9]])
    with pytest.raises(DataError, match="record 1 of the labels has 2 for class 0"):
        hot([[1, 0], [2, 1]])
    with pytest.raises(DataError, match=r"values of the values have shape \(2, 2, 2\)"):
        values(np.zeros((2, 2, 2)))
