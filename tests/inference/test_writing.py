"""Predictions go to lines, tables or folders of files, named like the images that they are of."""

import json
from dataclasses import dataclass

import numpy as np
import pytest

from vit_jax.errors import ConfigError
from vit_jax.inference.tables import check_target, is_folder
from vit_jax.inference.writing import TABLE, stems_of, write_to
from vit_jax.objectives.outputs.base import Output, Prediction
from vit_jax.objectives.outputs.classes import Classes
from vit_jax.objectives.outputs.values import Values


@dataclass(frozen=True)
class Thumbnail(Output):
    """Files for each image: its size, and the sum of the outputs."""

    kind = "thumbnail"

    @property
    def columns(self):
        return {"sum": int}

    def record(self, outputs, size=None, geometry=None):
        return {"sum": int(outputs["map"].sum())}

    def text(self, record):
        return str(record["sum"])

    def files(self, outputs, stem, image, geometry=None):
        return {f"{stem}.txt": f"{image.shape} {outputs['map'].sum()}".encode()}


def original(path):
    return np.zeros((4, 6, 3), np.uint8)


def test_a_folder_has_the_files_and_a_table(tmp_path):
    output = Thumbnail()
    images = [str(tmp_path / "in" / name) for name in ("a.png", "deep/b.png", "bad.png")]
    found = [
        output.predicted(images[0], {"map": np.full((2, 2), 1)}),
        output.predicted(images[1], {"map": np.full((2, 2), 2)}),
        Prediction(images[2], {}, "cannot be read"),
    ]
    folder = tmp_path / "out"
    with write_to(str(folder), output, images, original, errors=True, as_json=False) as write:
        for one in found:
            write(one)
    assert (folder / "a.txt").read_text() == "(4, 6, 3) 4"
    assert (folder / "deep" / "b.txt").read_text() == "(4, 6, 3) 8"
    rows = [json.loads(line) for line in (folder / TABLE).read_text().splitlines()]
    assert [row["sum"] for row in rows] == [4, 8, None]
    assert rows[2]["error"] == "cannot be read"
    assert sorted(path.name for path in folder.iterdir()) == ["a.txt", "deep", TABLE]


def test_what_a_table_holds_is_no_folder(tmp_path):
    with (
        pytest.raises(
            ConfigError, match=r"a folder, but the model predicts classes, which go into a table; name"
        ),
        write_to(str(tmp_path), Classes(("a",)), [], original, errors=False, as_json=False),
    ):
        pass


def test_values_are_columns_of_their_names(tmp_path):
    output, path = Values(("age", "height")), tmp_path / "t.csv"
    found = [
        output.predicted("a.png", {"values": np.float32([31.5, 1.75])}),
        Prediction("bad.png", {}, "why"),
    ]
    with write_to(str(path), output, ["a.png"], original, errors=True, as_json=False) as write:
        for one in found:
            write(one)
    assert path.read_text() == "image,age,height,error\na.png,31.5,1.75,\nbad.png,,,why\n"


def test_names_without_an_ending_are_folders(tmp_path):
    assert is_folder("masks")
    assert is_folder(str(tmp_path))
    assert not is_folder("table.csv")
    check_target("masks")
    with pytest.raises(ConfigError, match=r"it must end with .csv, .jsonl, .parquet"):
        check_target("table.xlsx")


def test_files_are_named_from_the_folder_that_all_lie_in():
    assert stems_of([]) == []
    assert stems_of(["x/a.png"]) == ["a"]
    assert stems_of(["x/a.png", "x/y/a.png", "x/b.tar.png"]) == ["a", "y/a", "b.tar"]
    assert stems_of(["x/a.png", "x/a.jpg", "x/b.jpg"]) == ["a.png", "a.jpg", "b"]
