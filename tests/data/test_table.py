"""Tables of paths and labels: what is read of each format, and what is said of wrong ones."""

import importlib.util
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.section import COLUMNS, Part, mixture_parts
from vit_jax.data.sources.opening import open_mixture, open_source
from vit_jax.data.sources.table import Columns, open_table, table_splits
from vit_jax.errors import ConfigError, DataError
from vit_jax.training.config import default_config
from vit_jax.training.config.checks import validate

ROWS = [("a/1.png", "dog"), ("a/2.png", "cat"), ("3.png", "dog"), ("b c/4.png", "eel"), ("5.png", "cat")]
SPLITS = ["train", "train", "train", "train", "val"]


@pytest.fixture
def folder(tmp_path):
    for number, (path, _) in enumerate(ROWS):
        (tmp_path / path).parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((4, 5, 3), number, np.uint8)).save(tmp_path / path)
    return tmp_path


def csv(file, rows=ROWS, header="path,label", separator=","):
    file.write_text("\n".join([header, *(separator.join(map(str, row)) for row in rows)]) + "\n")
    return str(file)


def jsonl(file, rows=ROWS, keys=("path", "label", "split")):
    file.write_text("".join(json.dumps(dict(zip(keys, row))) + "\n\n" for row in rows))
    return str(file)


def with_splits(rows=ROWS):
    return [(*row, split) for row, split in zip(rows, SPLITS)]


def seen(source):
    return [(source[i]["record"], source.class_names[source[i]["label"]]) for i in range(len(source))]


def said(*args, error=DataError, **kwargs):
    with pytest.raises(error) as caught:
        open_table(*args, **kwargs)
    return str(caught.value)


def section(**values):
    empty = dict.fromkeys(("path", "name", *COLUMNS), "")
    return SimpleNamespace(**{**empty, "source": "table", "train_split": "train", **values})


def test_a_column_of_splits(folder):
    header = "path,label,split"
    for path in (
        csv(folder / "a.csv", with_splits(), header),
        csv(folder / "semicolons.csv", with_splits(), "path;label;split", ";"),
        csv(folder / "tabs.tsv", with_splits(), "path\tlabel\tsplit", "\t"),
        csv(folder / "bom.csv", with_splits(), "\ufeff" + header),
        jsonl(folder / "a.jsonl", with_splits()),
    ):
        train, val = open_table(path, "train"), open_table(path, "val")
        assert seen(train) == [(str(folder / file), label) for file, label in ROWS[:4]]
        assert train.class_names == val.class_names == ("cat", "dog", "eel")
        assert seen(val) == [(str(folder / "5.png"), "cat")]
        assert train[3]["image"] == (folder / "b c" / "4.png").read_bytes()
        assert seen(open_table(path, "Validation")) == seen(val)
        assert list(table_splits(path)) == ["train", "val"]
        assert train.named


def test_other_names_of_columns_and_quotes(folder):
    file = folder / "t.csv"
    file.write_text(
        'id, kind , where,file\n1,"big, cat",train, "a/1.png"\n\n2,dog,train,a/2.png\n3,dog,test,3.png\n'
    )
    train = open_table(str(file), "train", columns=Columns("file", "kind", "where"))
    assert seen(train) == [(str(folder / "a/1.png"), "big, cat"), (str(folder / "a/2.png"), "dog")]


def test_a_table_for_each_split(folder):
    csv(folder / "train.csv", ROWS[:4])
    jsonl(folder / "val.jsonl", ROWS[4:])
    train, val = open_table(str(folder), "train"), open_table(str(folder), "validation")
    assert seen(train) == [(str(folder / file), label) for file, label in ROWS[:4]]
    assert (seen(val), val.class_names) == ([(str(folder / "5.png"), "cat")], train.class_names)
    csv(folder / "val.csv", ROWS[4:])
    assert "has val.csv and val.jsonl, which mean the same split" in said(str(folder), "val")


def test_all_of_a_table_without_splits(folder):
    path = csv(folder / "labels.csv")
    assert len(open_table(path, "all")) == len(ROWS)
    assert "all" not in table_splits(path)  # which are checked and prepared, each record once
    jsonl(folder / "labels.jsonl", with_splits())
    with pytest.raises(DataError, match="has no split 'all'; it has train, val"):
        open_table(str(folder / "labels.jsonl"), "all")


def test_without_splits_a_tenth_is_held_out_as_of_folders(folder):
    rows = [(f"cat/{i}.png", "cat") for i in range(200)]
    (folder / "cat").mkdir()
    for path, _ in rows:
        (folder / path).touch()
    from vit_jax.data.sources.folder import FolderSource

    for extra in ("a", "b c"):
        for file in (folder / extra).iterdir():
            file.unlink()
        (folder / extra).rmdir()
    path = csv(folder / "all.csv", rows)
    for split in ("train", "test"):
        expected = {record for record in FolderSource(folder, split).files}
        assert set(open_table(path, split).files) == expected
    assert "has no split 'val'; it has train, test" in said(path, "val")


def test_whole_numbers_are_sorted_as_numbers(folder):
    rows = [(file, label) for (file, _), label in zip(ROWS, ("10", "9", "0", "1", "9"))]
    for path in (
        csv(folder / "n.csv", with_splits(rows), "path,label,split"),
        jsonl(folder / "n.jsonl", [(file, int(label), split) for file, label, split in with_splits(rows)]),
    ):
        source = open_table(path, "train")
        assert source.class_names == ("0", "1", "9", "10")
        assert source.labels.tolist() == [3, 2, 0, 1]
        assert open_table(path, "val").labels.tolist() == [2]
        assert source.named
    counted = csv(
        folder / "c.csv", [(file, i % 3, "train") for i, (file, _) in enumerate(ROWS)], "path,label,split"
    )
    source = open_table(counted, "train")
    assert (source.class_names, source.labels.tolist(), source.named) == (
        ("0", "1", "2"),
        [0, 1, 2, 0, 1],
        False,
    )


def test_paths_may_be_absolute(folder, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "t.csv"
    path = csv(elsewhere, [(folder / file, label, "train") for file, label in ROWS], "path,label,split")
    assert [record for record, _ in seen(open_table(path, "train"))] == [
        str(folder / file) for file, _ in ROWS
    ]


def test_fingerprints_do_not_depend_on_the_place(folder, tmp_path_factory):
    import shutil

    path = csv(folder / "t.csv", with_splits(), "path,label,split")
    copy = tmp_path_factory.mktemp("copy") / "x"
    shutil.copytree(folder, copy)
    known = open_table(path, "train").fingerprint()
    assert open_table(str(copy / "t.csv"), "train").fingerprint() == known
    (copy / "3.png").write_bytes(b"other")
    assert open_table(str(copy / "t.csv"), "train").fingerprint() != known
    rows = [(file, "cat" if file == "3.png" else label) for file, label in ROWS]
    csv(folder / "t.csv", with_splits(rows), "path,label,split")
    assert open_table(path, "train").fingerprint() != known


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,label\n", "t.csv has no rows; give at least one image"),
        (
            "file,label\n3.png,a\n",
            "has no column 'path', it has 'file', 'label'; name its columns with data.image_c",
        ),
        ("path,lable\n3.png,a\n", "has no column 'label', it has 'path', 'lable'"),
        ("path,lable\n3.png,a\n", "Did you mean 'lable'?"),
        ("path,label,label\n3.png,a,b\n", "has two columns 'label'; rename one."),
        ("path,label\n3.png\n", "row 1 of {folder}/t.csv (line 2) has 1 values for 2 columns"),
        ("path,label\n3.png,a\n3.png,a,b\n", "row 2 of {folder}/t.csv (line 3) has 3 values for 2 columns"),
        ('path,label\n"3.png,a\n', "t.csv is not CSV: line 2"),
        ("path,label\n3.png,\n", "row 1 of {folder}/t.csv has no label; give every row"),
        ("path,label\n3.png,NaN\n", "row 1 of {folder}/t.csv has no label"),
        ("path,label\n,a\n", "row 1 of {folder}/t.csv has '' as its path; it must be a string"),
        ("path,label\n3.png,a\n3.png,b\n", "has '3.png' twice, as 'a' and as 'b'; leave one out"),
        ("path,label,split\n3.png,a,\n", "row 1 of {folder}/t.csv has '' as its split"),
        ("path,label,split\nno.png,a,train\n", "{folder}/no.png, the first of split 'train' of"),
        (
            "path,label,split\n3.png,a\x07,train\n",
            "has a class 'a\\x07', which cannot be printed on one line",
        ),
        (
            "path,label,split\n3.png,a,test\n",
            "has no split 'train'; it has test: set data.train_split",
        ),
        ("", "{folder}/t.csv is empty; give columns 'path', 'label' and one row per image"),
        (
            "path,label,Split \n3.png,a,train\n",
            "has a column 'Split' of 'train'; if these are splits, set data.split_column=Split, else leave",
        ),
        (
            "path,label,subset\n3.png,a,train\n5.png,b,Test \n",
            "has a column 'subset' of 'test', 'train'; if these are splits, set data.split_column=subset",
        ),
        ("path,label\n3.png,a\n./3.png,b\n", "has './3.png' twice, as 'a' and as 'b'; leave one out"),
        ("path,label\n3.png,a\n{folder}/3.png,b\n", "3.png' twice, as 'a' and as 'b'; leave one out"),
        (
            "path,label,split\n3.png,a,Train\n3.png,a,training\n",
            "Train and training both mean the split 'train'",
        ),
    ],
)
def test_wrong_tables(folder, text, expected):
    (folder / "t.csv").write_text(text.replace("{folder}", str(folder)))
    message = said(str(folder / "t.csv"), "train")
    assert expected.format(folder=folder) in message
    assert "\n" not in message


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("{", "line 1 of {folder}/t.jsonl is not JSON"),
        ("[1]", "line 1 of {folder}/t.jsonl is '[1]'; it must be an object on one line"),
        ('{"path": "3.png"}', "has no column 'label', it has 'path'"),
        ('{"path": "3.png", "label": null}', "row 1 of {folder}/t.jsonl has no label"),
        ('{"path": "3.png", "label": NaN}', "row 1 of {folder}/t.jsonl has no label"),
        ('{"path": "3.png", "label": 1.5}', "row 1 of {folder}/t.jsonl has label 1.5"),
        (
            '{"path": "3.png", "label": {"a": 1}}',
            "row 1 of {folder}/t.jsonl has label {{'a': 1}}; it must be a string or a whole",
        ),
        ('{"path": 3, "label": "a"}', "row 1 of {folder}/t.jsonl has 3 as its path"),
    ],
)
def test_wrong_lines(folder, line, expected):
    (folder / "t.jsonl").write_text(line + "\n")
    assert expected.format(folder=folder) in said(str(folder / "t.jsonl"), "train")


def test_one_file_is_never_in_two_parts(folder):
    """However rows write it: what is held out is not trained on too."""
    rows = [(f"{at}{n}.png", "a") for n in range(100) for at in ("", "./", f"{folder}/", "a/../")]
    for n in range(100):
        (folder / f"{n}.png").write_bytes(b"")
    path = csv(folder / "t.csv", rows)
    parts = [open_table(path, part).files for part in ("train", "test")]
    files = [{str((folder / file).resolve()) for file in part} for part in parts]
    assert not files[0] & files[1]
    assert [len(part) for part in parts] == [4 * len(part) for part in files]


def test_too_few_rows_to_hold_some_out(folder):
    path = csv(folder / "t.csv", [("3.png", "a"), ("5.png", "b")])
    assert len(open_table(path, "train")) == 2
    assert f"{path} has no column of splits, and too few rows (2) to hold out any as 'test'" in said(
        path, "test"
    )


def test_what_separates_columns_is_not_in_quotes(folder):
    (folder / "t.csv").write_text('"path";"label, of, it";"split"\n3.png;"a;b";train\n5.png;c;train\n')
    source = open_table(str(folder / "t.csv"), "train", columns=Columns(label="label, of, it"))
    assert (source.files, source.class_names) == (["3.png", "5.png"], ("a;b", "c"))


def test_what_is_no_table(folder):
    assert "data.path is 'nowhere.csv', which does not exist" in said("nowhere.csv", "train")
    (folder / "t.txt").write_text("path,label")
    assert "the ending of" in said(str(folder / "t.txt"), "train", error=ConfigError)
    assert "has no table (.csv, .tsv, .jsonl, .parquet)" in said(str(folder), "train")
    (folder / "t.csv").write_bytes(b"path,label\n3.png,\xff\n")
    assert "is not UTF-8 text" in said(str(folder / "t.csv"), "train")


def test_a_class_that_training_lacks(folder):
    rows = [("3.png", "cat", "train"), ("5.png", "dog", "train"), ("3.png", "cot", "val")]
    path = csv(folder / "t.csv", rows, "path,label,split")
    message = said(path, "val")
    assert "record 0 of split 'val' of" in message
    assert "has label 'cot', which is none of the 2 classes (cat, dog). Did you mean 'cat'?" in message


def test_parquet(folder):
    pyarrow = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    columns = {name: list(values) for name, values in zip(("path", "label", "split"), zip(*with_splits()))}
    path = str(folder / "t.parquet")
    columns["label"] = pyarrow.array(columns["label"]).dictionary_encode()
    parquet.write_table(pyarrow.table(columns), path)
    assert seen(open_table(path, "train")) == [(str(folder / file), label) for file, label in ROWS[:4]]
    assert open_table(path, "val").class_names == ("cat", "dog", "eel")
    (folder / "t.parquet").write_bytes(b"PAR1 and no more")
    assert "t.parquet is not Parquet" in said(path, "train")


def test_parquet_without_its_library(folder, monkeypatch):
    (folder / "t.parquet").write_bytes(b"PAR1")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert "is Parquet, which needs pyarrow, and that is not installed; run pip install pyarrow" in said(
        str(folder / "t.parquet"), "train", error=ConfigError
    )


def test_in_configurations_and_mixtures(folder):
    path = csv(folder / "t.csv", with_splits(), "file,label,split")
    data = section(path=path, image_column="file")
    assert len(open_source(data, "train")) == 4
    assert len(open_source(data, "train[:50%]+val")) == 3
    parts = mixture_parts(({"source": "table", "path": path, "image_column": "file"},))
    assert parts == [Part(source="table", path=path, image_column="file")]
    assert open_mixture(parts).class_names == ("cat", "dog", "eel")
    config = default_config()
    config.data.update(source="table", path=path, image_column="file")
    validate(config)
    config.data.update(source="folder")
    with pytest.raises(
        ConfigError, match=r"data.image_column is 'file', but data.source 'folder' has no columns"
    ):
        validate(config)
    config.data.update(source="table", path="", image_column="")
    with pytest.raises(ConfigError, match=r"data.path is empty; data.source 'table' needs it"):
        validate(config)
    with pytest.raises(ConfigError, match=r"data.mixture\[0\]: path is empty; source 'table' needs it"):
        mixture_parts(({"source": "table"},))
