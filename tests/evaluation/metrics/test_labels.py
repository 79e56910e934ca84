"""Average precision, F1 and tuned thresholds: scikit-learn's numbers, unknown labels left out."""

import warnings

import numpy as np
import pytest
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score

from vit_jax.evaluation.metrics.labels import (
    LabelScorer,
    average_precision,
    f1_scores,
    tuned_threshold,
)
from vit_jax.evaluation.reports import counts_of
from vit_jax.objectives.outputs.labels import Labels


@pytest.fixture
def rows():
    """Probabilities of seven classes, with equal ones among them, and labels; nobody has the last class."""
    generator = np.random.default_rng(0)
    probabilities = (np.round(generator.random((200, 7)), 2) * 0.98 + 0.01).astype(np.float32)
    labels = (generator.random((200, 7)) < [0.5, 0.3, 0.1, 0.05, 0.5, 0.02, 0]).astype(np.float32)
    labels[:3] = 0
    probabilities[:2] = 0.1
    return probabilities, labels


def scored(probabilities, labels, thresholds=0.5, batch=33):
    scorer = LabelScorer(thresholds)
    for start in range(0, len(labels), batch):
        rows = slice(start, start + batch)
        scorer.see({"probabilities": probabilities[rows], "labels": labels[rows]})
    return scorer


def test_metrics_are_those_of_scikit_learn(rows):
    probabilities, labels = rows
    scorer = scored(*rows)
    there = labels.any(axis=0)
    expected = average_precision_score(labels[:, there], probabilities[:, there], average=None)
    # Rounding of float64 alone: sums in another order.
    np.testing.assert_allclose(scorer.average_precisions()[there], expected, rtol=1e-12)
    assert np.isnan(scorer.average_precisions()[~there]).all()
    predicted = probabilities >= 0.5
    metrics = scorer.metrics()
    assert metrics["mAP"] == pytest.approx(expected.mean(), rel=1e-12)
    assert metrics["AP_micro"] == pytest.approx(
        average_precision_score(labels, probabilities, average="micro"), rel=1e-12
    )
    for name, empty in (("macro", np.nan), ("micro", np.nan), ("samples", 1.0)):
        expected = f1_score(labels, predicted, average=name, zero_division=empty)
        assert metrics[f"f1_{name}"] == pytest.approx(expected, rel=1e-12)
    np.testing.assert_array_equal(scorer.counts(), labels.sum(axis=0))


def test_unknown_labels_are_left_out(rows):
    probabilities, labels = rows
    unknown = np.random.default_rng(1).random(labels.shape) < 0.3
    known = np.where(unknown, np.nan, labels)
    for number in range(6):
        kept = ~unknown[:, number]
        expected = average_precision_score(labels[kept, number], probabilities[kept, number])
        assert average_precision(probabilities[:, number], known[:, number]) == pytest.approx(expected)
    f1 = f1_scores(probabilities, known, np.full(7, 0.5))
    expected = f1_score(labels[~unknown], probabilities[~unknown] >= 0.5)
    assert f1.micro == pytest.approx(expected)
    # What is said of unknown entries changes nothing.
    other = np.where(unknown, 1 - probabilities, probabilities)
    assert scored(other, known).metrics() == scored(probabilities, known).metrics()


def test_tuned_thresholds_have_the_highest_f1(rows):
    probabilities, labels = rows
    for number in range(6):
        threshold = tuned_threshold(probabilities[:, number], labels[:, number])
        assert threshold not in probabilities[:, number]  # halfway between two
        tuned = f1_score(labels[:, number], probabilities[:, number] >= threshold)
        each = [f1_score(labels[:, number], probabilities[:, number] >= t) for t in np.unique(probabilities)]
        assert tuned == max(each)
    assert tuned_threshold(probabilities[:, 6], labels[:, 6]) == 0.5
    per_class, single = (scored(*rows, thresholds) for thresholds in ("tuned_per_class", "tuned"))
    assert len(set(single.thresholds())) == 1
    plain = scored(*rows).metrics()
    assert per_class.metrics()["f1_macro"] >= single.metrics()["f1_macro"]
    assert single.metrics()["f1_micro"] >= plain["f1_micro"]
    given = scored(*rows, tuple(per_class.thresholds()))
    assert given.metrics() == per_class.metrics()


def test_scores_that_are_no_number_come_last_and_are_not_predicted():
    scores, labels = np.array([np.nan, 0.2, 0.1]), np.array([1, 1, 0.0])
    assert average_precision(scores, labels) == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert f1_scores(scores[:, None], labels[:, None], np.zeros(1)).micro == pytest.approx(0.5)
    assert np.isfinite(tuned_threshold(np.array([np.nan, np.nan]), np.array([1.0, 0.0])))


def test_nothing_known_has_no_score():
    nothing = np.full((2, 3), np.nan)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        metrics = scored(np.full((2, 3), 0.7), nothing).metrics()
    assert {name for name, value in metrics.items() if np.isnan(value)} == {
        "mAP", "AP_micro", "f1_macro", "f1_micro",
    }  # fmt: skip


def test_the_report_says_each_class(rows, tmp_path):
    probabilities, labels = rows
    names = tuple("abcdefg")
    counts = counts_of(Labels(names, (0.5,) * 7))
    for start in range(0, 200, 33):
        part = slice(start, start + 33)
        counts.add({"probabilities": probabilities[part], "labels": labels[part]})
    report = counts.report()
    lines = report.lines()
    assert len(lines) == 8
    assert lines[-1].split()[:3] == ["g", "0", "nan"]  # nobody has it; the others come worst first
    precisions = [float(line.split()[2]) for line in lines[1:-1]]
    assert precisions == sorted(precisions)
    said = report.to_json()["classes"]
    assert [row["class"] for row in said] == list(names)
    assert said[0]["f1"] == pytest.approx(f1_score(labels[:, 0], probabilities[:, 0] >= 0.5))
    assert said[0]["best_threshold"] == tuned_threshold(probabilities[:, 0], labels[:, 0])
    assert said[6]["average_precision"] is None
    report.draw(tmp_path / "report.png", of="200 records")
    with Image.open(tmp_path / "report.png") as picture:
        assert picture.width == 640
