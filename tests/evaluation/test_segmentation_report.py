"""The report on label maps: pixels added up, each class, and what many classes leave out."""

import json

import numpy as np
from PIL import Image

from vit_jax.evaluation.reports import counts_of
from vit_jax.objectives.outputs.segmentation import Segmentation


def report_of(names, *rows):
    counts = counts_of(Segmentation(names, (8, 8)))
    for labelled, predicted, hits in rows:
        counts.add(
            {"labelled": np.int32([labelled]), "predicted": np.int32([predicted]), "hits": np.int32([hits])}
        )
    return counts.report()


def test_classes_of_all_pixels(tmp_path):
    report = report_of(
        ("sky", "road", "tree"), ([6, 2, 0], [5, 3, 0], [5, 2, 0]), ([2, 0, 0], [0, 2, 0], [0, 0, 0])
    )
    np.testing.assert_allclose(report.iou, [5 / 8, 2 / 5, np.nan])
    np.testing.assert_allclose(report.accuracy, [5 / 8, 1, np.nan])
    lines = report.lines()
    assert lines[0].split() == ["class", "pixels", "IoU", "accuracy"]
    assert lines[1].split() == ["sky", "80.00%", "0.6250", "0.6250"]
    assert lines[3].split() == ["tree", "0.00%", "-", "-"]
    found = json.loads(json.dumps(report.to_json(), allow_nan=False))
    assert found["classes"][1] == {"class": "road", "pixels": 2, "predicted": 5, "iou": 0.4, "accuracy": 1.0}
    assert found["classes"][2]["iou"] is None
    report.draw(tmp_path / "report.png", "three streets")
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.size[1] > 100


def test_of_many_classes_the_worst():
    count = 40
    hits = np.arange(count)
    report = report_of(tuple(f"c{i}" for i in range(count)), ([50] * count, [50] * count, hits))
    lines = report.lines()
    assert lines[0] == "the 20 classes with the lowest IoU of 40 (all: --per-class)"
    assert [line.split()[0] for line in lines[2:]] == [f"c{i}" for i in range(20)]
    assert len(report.lines(everything=True)) == count + 1
