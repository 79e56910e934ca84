"""A report as lines of text."""

from typing import Any

import numpy as np

from vit_jax.evaluation.report import Report

LISTED, WORST, PAIRS = 20, 10, 5  # classes that are all listed, classes listed of more, pairs


def report_lines(report: Report, *, per_class: bool = False) -> list[str]:
    """Return scores over all classes, of each class, and the pairs that are confused most often.

    Args:
      report: what to say.
      per_class: list all classes; otherwise, of more than 20, the 10 with the lowest F1.
    """
    overall = {
        "balanced_accuracy": report.balanced_accuracy,
        "macro_f1": report.mean("f1"),
        "calibration_error": report.calibration_error,
    }
    lines = [f"{name:<18} {value:.6g}" for name, value in overall.items()]
    if report.not_finite:
        lines.append(f"{report.not_finite:,} records have logits that are not finite; they count as wrong")
    return [*lines, "", *_table(report, per_class), *_confused(report)]


def _table(report: Report, per_class: bool) -> list[str]:
    classes = np.arange(len(report.class_names))
    title = ""
    if len(classes) > LISTED and not per_class:
        # Those without a value, which have neither records nor predictions, are not the worst.
        order = np.lexsort((classes, np.nan_to_num(report.f1, nan=2.0)))
        title = f"the {WORST} classes with the lowest F1 of {len(classes):,} (all: --per-class)"
        classes = order[:WORST]
    precision, recall, f1 = report.precision, report.recall, report.f1
    rows: list[tuple[Any, ...]] = [
        (report.class_names[label], int(report.support[label]), precision[label], recall[label], f1[label])
        for label in classes
    ]
    for name, weighted in (("mean of classes", False), ("mean of records", True)):
        means = [report.mean(score, weighted=weighted) for score in ("precision", "recall", "f1")]
        rows.append((name, report.records, *means))
    width = max(len(row[0]) for row in rows)
    head = f"{'class':<{width}}  {'records':>9}  {'precision':>9}  {'recall':>9}  {'f1':>9}"
    body = [
        f"{name:<{width}}  {records:>9,}  " + "  ".join(f"{_score(value):>9}" for value in values)
        for name, records, *values in rows
    ]
    return [*([title] if title else []), head, *body]


def _confused(report: Report) -> list[str]:
    pairs = report.confused(PAIRS)
    if not pairs:
        return []
    named = [
        (f"{report.class_names[pair.label]} as {report.class_names[pair.prediction]}", pair) for pair in pairs
    ]
    width = max(len(name) for name, _ in named)
    return [
        "",
        "most confused",
        *(f"{name:<{width}}  {pair.records:>9,}  {pair.share:>9.1%}" for name, pair in named),
    ]


def _score(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4f}"
