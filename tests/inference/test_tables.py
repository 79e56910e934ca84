"""Tables: what is written is what is read, in every format; whole or not at all."""

import csv
import json
import subprocess
import sys

import pytest

from vit_jax.errors import ConfigError, ResourceError
from vit_jax.inference import tables
from vit_jax.inference.tables import check_table, open_table

COLUMNS = {"record": str, "label": int, "probability": float, "classes": (str, 3), "chances": (float, 3)}
ROWS = [
    dict(record='a, "b"\nc.png', label=3, probability=0.1, classes=["x", "y", "z"], chances=[0.1, 1e-9, 0.0]),
    dict(record="ü/雪.png", label=None, probability=float("nan"), classes=["x"], chances=[0.5]),
    dict(record="broken\udcff.png"),
]


def write(path, rows=ROWS, columns=COLUMNS):
    with open_table(path, columns) as table:
        for row in rows:
            table.write(row)
    return path


def test_csv(tmp_path):
    with open(write(tmp_path / "table.csv"), encoding="utf-8", newline="") as file:
        header, *rows = csv.reader(file)
    spread = ["classes_1", "classes_2", "classes_3", "chances_1", "chances_2", "chances_3"]
    assert header == ["record", "label", "probability", *spread]
    assert rows[0] == ['a, "b"\nc.png', "3", "0.1", "x", "y", "z", "0.1", "1e-09", "0.0"]
    assert rows[1] == ["ü/雪.png", "", "nan", "x", "", "", "0.5", "", ""]
    assert rows[2] == ["broken\\udcff.png", *[""] * 8]


NAMED = ("age", "a, b\udcff", "=x")


@pytest.mark.parametrize(
    ("columns", "header"),
    [
        ({"values": (float, NAMED)}, ["age", "a, b\\udcff", "=x"]),
        (
            {"truth": (float, ("truth_age", "truth_b")), "values": (float, ("age", "b"))},
            ["truth_age", "truth_b", "age", "b"],
        ),
        *[({"values": (float, taken)}, ["values_1", "values_2"]) for taken in (("a", "a"), ("a", "record"))],
        (
            {"values": (float, ("classes_1", "b")), "classes": (str, 1)},
            ["values_1", "values_2", "classes_1"],
        ),
    ],
)
def test_lists_with_names_are_csv_columns_of_these_names_unless_two_are_the_same(tmp_path, columns, header):
    lists = {
        name: [float(i) for i in range(len(kind[1]))] for name, kind in columns.items() if name != "classes"
    }
    path = write(tmp_path / "table.csv", [{"record": "a.png", **lists}], {"record": str, **columns})
    with open(path, encoding="utf-8", newline="") as file:
        (found, row) = csv.reader(file)
    assert found == ["record", *header]
    numbers = [str(value) for values in lists.values() for value in values]
    assert row == ["a.png", *numbers, *[""] * (len(header) - len(numbers))]
    with pytest.raises(ValueError, match="a row has 9 values of 'values'; the limit is"):
        write(path, [{"values": [0.0] * 9}], columns)


def test_jsonl(tmp_path):
    text = write(tmp_path / "table.JSONL").read_text(encoding="utf-8")
    assert "雪" in text
    rows = [json.loads(line) for line in text.splitlines()]
    assert rows[0] == ROWS[0]
    assert rows[1] == ROWS[1] | {"probability": None}
    assert rows[2] == dict.fromkeys(COLUMNS) | {"record": "broken\\udcff.png"}


@pytest.mark.parametrize("copies", [0, 1, 3])
def test_parquet(tmp_path, monkeypatch, copies):
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(tables, "_ROWS", 2)
    table = parquet.read_table(write(tmp_path / "table.parquet", ROWS * copies))
    assert table.column_names == list(COLUMNS)
    rows = table.to_pylist()
    assert len(rows) == 3 * copies
    for row in rows[::3]:
        assert row == ROWS[0]
    for row in rows[2::3]:
        assert row == dict.fromkeys(COLUMNS) | {"record": "broken\\udcff.png"}


@pytest.mark.parametrize("ending", ["csv", "jsonl"])
def test_a_table_without_rows_and_one_that_failed(tmp_path, ending):
    path = write(tmp_path / f"empty.{ending}", [])
    assert path.exists()
    failed = tmp_path / f"failed.{ending}"
    failed.write_text("what was there")
    with pytest.raises(ValueError, match="odd"):
        write(failed, [ROWS[0], {"odd": 1}])
    assert failed.read_text() == "what was there"
    assert sorted(x.name for x in tmp_path.iterdir()) == [f"empty.{ending}", f"failed.{ending}"]


def test_rows_of_other_columns(tmp_path):
    for row, message in (({"recrod": "a"}, "'recrod'"), ({"classes": list("abcd")}, "the limit is 3")):
        with pytest.raises(ValueError, match=message), open_table(tmp_path / "t.csv", COLUMNS) as table:
            table.write(row)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("table.xlsx", r"it must end with \.csv, \.jsonl, \.parquet"),
        ("table", "it must end with"),
        ("folder.csv", "which is a folder"),
    ],
)
def test_names_that_no_table_can_have(tmp_path, name, message):
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ConfigError, match=message):
        check_table(tmp_path / name)


def test_parquet_without_its_library(monkeypatch):
    monkeypatch.setattr(tables.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="needs pyarrow, which is not installed; run"):
        check_table("table.parquet")
    assert check_table("table.csv").name == "table.csv"


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot be written"):
        write(tmp_path / "file" / "table.csv")


def test_memory_does_not_grow_with_rows(tmp_path):
    code = """
import resource, sys
from vit_jax.inference.tables import open_table
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with open_table(sys.argv[1], {"record": str, "chances": (float, 5)}) as table:
    for index in range(100_000):
        if index == 10_000: before = peak()
        table.write({"record": "x" * 1000, "chances": [0.2] * 5})
sys.exit(peak() - before > 20_000)  # kB, of 100 MB written
"""
    assert subprocess.run([sys.executable, "-c", code, tmp_path / "t.jsonl"], check=False).returncode == 0
