"""Outputs are written as Python's own values, come back from JSON, and never name what is not known."""

import json
import pickle
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from vit_jax.errors import ConfigError
from vit_jax.objectives.outputs.base import NOT_FINITE, OUTPUTS, Output, output_from_json, register_output
from vit_jax.objectives.outputs.classes import Classes
from vit_jax.objectives.outputs.values import Values

CLASSES, VALUES = Classes(("cat", "dog", "owl"), top=2), Values(("age", "height"))
EACH = [
    (CLASSES, {"probabilities": np.float32([0.25, 0.25, 0.5])}),
    (VALUES, {"values": np.float32([31.5, 1.8203])}),
]


@pytest.mark.parametrize(("output", "outputs"), EACH, ids=["classes", "values"])
def test_every_output_is_written_in_its_columns_and_comes_back(output, outputs):
    found = output.predicted("a.png", outputs)
    assert (found.image, found.error) == ("a.png", "")
    assert found.record.keys() == output.columns.keys()
    for name, (kind, count) in output.columns.items():
        assert len(found.record[name]) == (count if isinstance(count, int) else len(count))
        assert all(type(one) is kind for one in found.record[name])
    json.dumps(output.line(found.record), allow_nan=False)
    assert output_from_json(json.loads(json.dumps(output.to_json()))) == output
    assert pickle.loads(pickle.dumps(output)) == output
    assert pickle.loads(pickle.dumps(found)) == found


@pytest.mark.parametrize(("output", "outputs"), EACH, ids=["classes", "values"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_says_nothing_else(output, outputs, value):
    (name, array), *_ = outputs.items()
    found = output.predicted("a.png", {name: np.where(np.arange(len(array)) == 1, value, array)})
    assert (found.record, found.error) == ({}, NOT_FINITE)


def test_classes_in_order_and_of_equal_ones_the_first():
    found = CLASSES.predicted("a.png", EACH[0][1])
    assert (found.classes, found.probabilities) == (("owl", "cat"), (0.5, 0.25))
    assert CLASSES.text(found.record) == "owl 50.0%   cat 25.0%"
    assert CLASSES.line(found.record) == {
        "predictions": [{"class": "owl", "probability": 0.5}, {"class": "cat", "probability": 0.25}]
    }
    assert CLASSES.best(np.int64(9)).record(EACH[0][1])["classes"] == ["owl", "cat", "dog"]


def test_evaluated_classes_stand_beside_the_label():
    row = {"label": np.int32(1), "classes": np.int32([2, 0]), "probabilities": np.float32([0.5, 0.25])}
    assert CLASSES.evaluated(row) == {
        "label": "dog",
        "prediction": "owl",
        "probability": 0.5,
        "classes": ["owl", "cat"],
        "probabilities": [0.5, 0.25],
    }
    unknown = CLASSES.evaluated(
        row | {"classes": np.int32([-1, -1]), "probabilities": np.float32([np.nan] * 2)}
    )
    assert unknown == {
        "label": "dog",
        "prediction": None,
        "probability": None,
        "classes": [],
        "probabilities": [],
    }


def test_values_by_name():
    found = VALUES.predicted("a.png", EACH[1][1])
    assert VALUES.text(found.record) == "age 31.5   height 1.8203"
    assert VALUES.text({"values": [20261.25, 1234567.0]}) == "age 20261.2   height 1.23457e+06"
    assert list(VALUES.line(found.record)["values"]) == ["age", "height"]
    with pytest.raises(ConfigError, match="top is 3, but the model predicts values, which are not ranked"):
        VALUES.best(3)


@dataclass(frozen=True)
class Colours(Output):
    """Outputs of another package."""

    kind = "colours"
    columns: ClassVar = {"colour": str}

    def record(self, outputs, size=None, geometry=None):
        return {"colour": "red"}

    def text(self, record):
        return record["colour"]


def test_outputs_of_other_packages(monkeypatch):
    monkeypatch.setitem(OUTPUTS, "colours", "")
    register_output(Colours)
    assert output_from_json(Colours().to_json()) == Colours()


@pytest.mark.parametrize(
    ("described", "message"),
    [
        (
            {"kind": "class"},
            r"outputs are of kind 'class'; known are classes, values.* Did you mean 'classes'",
        ),
        ({}, "outputs are of kind None"),
        ({"kind": "classes", "names": []}, "outputs of kind 'classes' are not described like this"),
    ],
)
def test_descriptions_of_something_else(described, message):
    with pytest.raises(ConfigError, match=message):
        output_from_json(described)
