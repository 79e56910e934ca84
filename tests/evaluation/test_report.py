"""Reports: the values of scikit-learn, of any records in any batches; what is not defined is not a number."""

import json

import numpy as np
import pytest
from PIL import Image
from sklearn import metrics

from vit_jax.evaluation import tally as tallies
from vit_jax.evaluation.figure import RIGHT, WRONG
from vit_jax.evaluation.report import Confused, Report
from vit_jax.evaluation.report_figure import BLUE, _shown_classes, draw_report
from vit_jax.evaluation.report_text import report_lines
from vit_jax.evaluation.tally import BINS, Tally


def rows(logits, labels):
    """What an evaluation gives of records with these logits."""
    chances = np.exp(logits - logits.max(axis=1, keepdims=True))
    chances /= chances.sum(axis=1, keepdims=True)
    best = np.argsort(-logits, axis=1, kind="stable")[:, :5]
    finite = np.isfinite(logits).all(axis=1)[:, None]
    return {
        "label": labels.astype(np.int32),
        "classes": np.where(finite, best, -1).astype(np.int32),
        "probabilities": np.where(finite, np.take_along_axis(chances, best, 1), np.nan).astype(np.float32),
    }


def report(given, classes, batch=7):
    tally = Tally(classes)
    for start in range(0, len(given["label"]), batch):
        tally.add({name: values[start : start + batch] for name, values in given.items()})
    return Report.of(tally, [f"class {i}" for i in range(classes)])


def sample(records, classes, labels=None, seed=0, right=2.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, classes, records) if labels is None else np.asarray(labels)
    logits = rng.standard_normal((records, classes))
    logits[np.arange(records), labels] += right
    return rows(logits, labels)


def check(given, classes):
    """Every value is scikit-learn's."""
    ours, label, best = report(given, classes), given["label"], given["classes"][:, 0]
    every = np.arange(classes)
    expected = metrics.precision_recall_fscore_support(label, best, labels=every, zero_division=np.nan)
    for values, score in zip((ours.precision, ours.recall, ours.f1, ours.support), expected):
        np.testing.assert_allclose(
            values, score, rtol=1e-12
        )  # rounding of float64 alone: sums in another order
    for average, weighted in (("macro", False), ("weighted", True)):
        means = metrics.precision_recall_fscore_support(
            label, best, labels=every, average=average, zero_division=np.nan
        )
        for score, mean in zip(("precision", "recall", "f1"), means):
            assert ours.mean(score, weighted=weighted) == pytest.approx(mean, rel=1e-12)
    np.testing.assert_array_equal(
        ours.confusion.toarray()[:, :-1], metrics.confusion_matrix(label, best, labels=every)
    )
    assert ours.accuracy == metrics.accuracy_score(label, best)
    assert ours.records == len(label)
    return ours


@pytest.mark.parametrize("classes", [2, 3, 10, 200])
def test_values_are_those_of_scikit_learn(classes):
    given = sample(300, classes)
    ours = check(given, classes)
    present = np.unique(given["label"])
    kept = np.isin(given["classes"][:, 0], present)
    if kept.all():  # else it warns
        balanced = metrics.balanced_accuracy_score(given["label"], given["classes"][:, 0])
        assert ours.balanced_accuracy == pytest.approx(balanced, rel=1e-12)
    if classes > 5:
        hits = (given["classes"] == given["label"][:, None]).any(axis=1)
        assert ours.top5_accuracy == hits.mean()


@pytest.mark.filterwarnings("ignore::sklearn.exceptions.UndefinedMetricWarning")
def test_classes_without_records_and_classes_never_predicted():
    # Class 0 is right once and wrong once, 1 is never predicted, 2 has no records but is predicted, 3 is nowhere.
    label, best = np.array([0, 0, 1]), np.array([0, 2, 0])
    given = dict(label=label, classes=best[:, None], probabilities=np.full((3, 1), 0.5, np.float32))
    ours = check(given, 4)
    nan = np.nan
    np.testing.assert_array_equal(ours.precision, [0.5, nan, 0, nan])
    np.testing.assert_array_equal(ours.recall, [0.5, 0, nan, nan])
    np.testing.assert_array_equal(ours.f1, [0.5, 0, 0, nan])
    assert ours.balanced_accuracy == 0.25
    said = ours.to_json()
    assert [one["precision"] for one in said["classes"]] == [0.5, None, 0, None]
    assert json.loads(json.dumps(said, allow_nan=False)) == said


def test_one_class_alone_in_the_data():
    ours = check(sample(50, 3, labels=np.ones(50, int)), 3)
    np.testing.assert_array_equal(ours.support, [0, 50, 0])
    assert ours.balanced_accuracy == ours.accuracy == ours.recall[1]
    assert np.isnan(ours.recall[[0, 2]]).all()


def test_logits_that_are_not_finite_are_wrong_and_have_no_confidence():
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((20, 4)), rng.integers(0, 4, 20)
    logits[np.arange(20), labels] += 9  # all right
    logits[3, 1], logits[5] = np.inf, np.nan
    with np.errstate(invalid="ignore"):
        ours = report(rows(logits, labels), 4)
    assert (ours.accuracy, ours.not_finite, ours.records) == (18 / 20, 2, 20)
    assert ours.top5_hits == 18
    assert ours.bin_records.sum() == 18
    np.testing.assert_array_equal(ours.support, np.bincount(labels, minlength=4))
    assert sorted(said[0] for said in ours.to_json()["confusion"] if said[1] is None) == sorted(
        labels[[3, 5]]
    )
    assert np.isfinite(ours.calibration_error)


@pytest.mark.parametrize("spread", [0.1, 1.0, 8.0])
def test_calibration(spread):
    given = sample(500, 6, right=spread)
    ours = report(given, 6)
    chance, hit = given["probabilities"][:, 0].astype(np.float64), given["classes"][:, 0] == given["label"]
    error = 0.0
    for low, high in zip(np.arange(BINS) / BINS, np.arange(1, BINS + 1) / BINS):
        inside = (chance >= low) & ((chance < high) | (high == 1))
        if inside.any():
            error += inside.sum() / 500 * abs(hit[inside].mean() - chance[inside].mean())
    assert ours.calibration_error == pytest.approx(error, rel=1e-12)
    assert ours.bin_records.sum() == 500


def test_certainty_is_in_the_last_bin():
    given = dict(
        label=np.zeros(4, int), classes=np.array([[0], [0], [0], [1]]), probabilities=np.ones((4, 1))
    )
    ours = report(given, 2)
    assert ours.bin_records.tolist() == [0] * (BINS - 1) + [4]
    assert ours.calibration_error == 0.25


def test_most_confused_pairs():
    label = np.array([0] * 10 + [1] * 4 + [2] * 2)
    best = np.array([1, 1, 1] + [0] * 7 + [2, 2, 0, 1] + [0, 0])
    given = dict(label=label, classes=best[:, None], probabilities=np.full((16, 1), 0.9))
    ours = report(given, 3)
    # As many records: the larger share first.
    expected = [
        Confused(0, 1, 3, 0.3),
        Confused(2, 0, 2, 1.0),
        Confused(1, 2, 2, 0.5),
        Confused(1, 0, 1, 0.25),
    ]
    assert ours.confused() == expected
    assert ours.confused(1) == expected[:1]
    assert [pair["label"] for pair in ours.to_json()["most_confused"]] == [f"class {i}" for i in (0, 2, 1, 1)]


@pytest.mark.parametrize("batch", [1, 7, 1000])
def test_batches_do_not_matter(monkeypatch, batch):
    given = sample(300, 10)
    whole = report(given, 10, 300).to_json()
    monkeypatch.setattr(tallies, "_WAITING", 4)
    found = report(given, 10, batch).to_json()
    for one in (found, whole):  # sums of floats, in another order
        for place in one["calibration"]["bins"]:
            place["confidence"] = place["confidence"] and round(place["confidence"], 9)
        one["calibration"]["error"] = round(one["calibration"]["error"], 9)
    assert found == whole


def test_lines_of_many_classes_are_the_worst_ones():
    ours = report(sample(600, 30), 30)
    lines = report_lines(ours)
    listed = [
        line.split("  ")[0].strip() for line in lines if line.startswith("class ") and " as " not in line
    ][1:]
    worst = [ours.class_names[label] for label in np.lexsort((np.arange(30), ours.f1))[:10]]
    assert listed == worst
    assert "the 10 classes with the lowest F1 of 30 (all: --per-class)" in lines
    every = report_lines(ours, per_class=True)
    listed = [
        line.split("  ")[0].strip() for line in every if line.startswith("class ") and " as " not in line
    ][1:]
    assert listed == list(ours.class_names)
    assert not any("--per-class" in line for line in every)


def test_probabilities_of_all_classes():
    rng = np.random.default_rng(0)
    logits, labels = rng.standard_normal((50, 7)), rng.integers(0, 7, 50)
    logits[0] = np.nan
    given = rows(logits, labels)
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    ours = Report.of_probabilities(labels, chances.astype(np.float32), [f"class {i}" for i in range(7)])
    assert ours.to_json() == report(given, 7, 50).to_json()


def coloured(path, colour):
    with Image.open(path) as image:
        return (np.abs(np.asarray(image).astype(int) - colour) < 8).all(-1)


@pytest.mark.parametrize("classes", [2, 3, 10, 100, 1000])
def test_picture(tmp_path, classes):
    ours = report(sample(2000, classes, right=6.0), classes, 2000)
    path = draw_report(ours, tmp_path / "report.png", of="2,000 records of split 'test'")
    with Image.open(path) as image:
        assert image.format == "PNG"
        assert 500 < image.size[0] < 1300
        assert 400 < image.size[1] < 1300
    assert coloured(path, BLUE).sum() > 500  # the diagonal, and the bars of accuracy
    assert coloured(path, RIGHT).sum() > 500  # recall and precision
    assert path.stat().st_size < 300_000


def test_picture_of_classes_without_records_and_of_perfection(tmp_path):
    label = np.array([0, 0, 2])
    given = dict(label=label, classes=label[:, None], probabilities=np.ones((3, 1), np.float32))
    path = draw_report(report(given, 4), tmp_path / "report.png")
    assert not coloured(path, WRONG)[:, : 4 * 64].any()
    # Nothing but logits that are not finite, too.
    given = dict(label=label, classes=label[:, None] * 0 - 1, probabilities=np.full((3, 1), np.nan))
    draw_report(report(given, 4), tmp_path / "report.png")


def test_picture_of_many_classes_shows_the_most_confused_ones():
    label = np.arange(1000).repeat(2)
    best = label.copy()
    best[2 * 777] = 5
    given = dict(label=label, classes=best[:, None], probabilities=np.ones((2000, 1)))
    shown = _shown_classes(report(given, 1000, 2000))
    assert len(shown) == 40
    assert {5, 777} <= set(shown.tolist())


def test_many_classes_take_little_memory():
    """A matrix of all pairs of 21,843 classes would take 3.8 GB."""
    import tracemalloc

    rng = np.random.default_rng(0)
    tally = Tally(21_843)
    tracemalloc.start()
    for _ in range(20):
        label = rng.integers(0, 21_843, 1000)
        best = np.where(rng.random(1000) < 0.8, label, rng.integers(0, 21_843, 1000))
        tally.add(dict(label=label, classes=best[:, None], probabilities=rng.random((1000, 1))))
    ours = Report.of(tally, list(map(str, range(21_843))))
    assert 0.75 < ours.accuracy < 0.85
    assert len(ours.to_json()["classes"]) == 21_843
    assert len(ours.confused()) == 20
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 50e6
