"""How good a classifier is, class by class, and how much its probabilities can be believed.

A value that is not defined is NaN, and null in JSON: the precision of a class that was never predicted, the recall of
one without records. Means over classes are over those that have a value, as scikit-learn's with `zero_division=nan`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse

from vit_jax.evaluation.finite import finite
from vit_jax.evaluation.tally import BINS, Tally
from vit_jax.objectives.outputs.classes import Classes

PAIRS = 20  # of classes, the most confused ones


@dataclass(frozen=True)
class Confused:
    """Two classes, one taken for the other.

    Attributes:
      label, prediction: numbers of the classes.
      records: how many.
      share: of the records with this label.
    """

    label: int
    prediction: int
    records: int
    share: float


@dataclass(frozen=True, eq=False)
class Report:
    """Precision, recall and F1 of each class, what is confused with what, and calibration.

    Attributes:
      class_names: in order of label.
      confusion: records of each label (row) with each prediction (column), sparse `(c, c + 1)`; the last column are
        records whose logits are not finite, which count as wrong.
      top5_hits: records whose label is among the five most probable classes.
      bin_records, bin_hits: of each of `BINS` bins of confidence, `(BINS,)`: how many predictions and how many right.
      bin_confidence: mean confidence of each bin, NaN where it is empty, `(BINS,)`.
    """

    class_names: tuple[str, ...]
    confusion: sparse.csr_array
    top5_hits: int
    bin_records: np.ndarray
    bin_hits: np.ndarray
    bin_confidence: np.ndarray

    @classmethod
    def of(cls, tally: Tally, class_names: Sequence[str]) -> "Report":
        """Return the report of what was added up."""
        confidence = _divided(tally.bin_confidence, tally.bin_records)
        counts = tally.confusion(), tally.top5_hits, tally.bin_records, tally.bin_hits
        return cls(tuple(class_names), *counts, confidence)

    @classmethod
    def of_probabilities(
        cls, labels: np.ndarray, probabilities: np.ndarray, class_names: Sequence[str]
    ) -> "Report":
        """Return the report on probabilities of all classes.

        Args:
          labels: integers `(n,)`.
          probabilities: `(n, c)`.
          class_names: `(c,)`.
        """
        # Of equal ones the first class is taken.
        best = np.argsort(-probabilities, axis=1, kind="stable")[:, :5]
        known = np.isfinite(probabilities).all(axis=1, keepdims=True)
        tally = Tally(len(class_names))
        chances = np.take_along_axis(probabilities, best, axis=1)
        tally.add({"label": labels, "classes": np.where(known, best, -1), "probabilities": chances})
        return cls.of(tally, class_names)

    def __str__(self) -> str:
        return "\n".join([f"{'accuracy':<18} {self.accuracy:.6g}", *self.lines()])

    @property
    def about(self) -> str:
        """What it is a report on, in words."""
        return f"{len(self.class_names):,} classes"

    def lines(self, *, everything: bool = False) -> list[str]:
        """Return it as text; of many classes the worst, unless `everything` is asked for."""
        from vit_jax.evaluation.report_text import report_lines

        return report_lines(self, per_class=everything)

    def draw(self, path: str | Path, of: str) -> None:
        """Draw it as a PNG; `of` says what was evaluated."""
        from vit_jax.evaluation.report_figure import draw_report

        draw_report(self, path, of=of)

    def __repr__(self) -> str:
        return (
            f"<Report: accuracy {self.accuracy:.4f}, {self.records} records, {len(self.class_names)} classes>"
        )

    @property
    def records(self) -> int:
        """How many records there are."""
        return int(self.support.sum())

    @property
    def not_finite(self) -> int:
        """How many records have logits that are not finite."""
        return int(self.predicted[-1])

    @cached_property
    def support(self) -> np.ndarray:
        """How many records each class has, `(c,)`."""
        return np.asarray(self.confusion.sum(axis=1))

    @cached_property
    def predicted(self) -> np.ndarray:
        """How many records were taken for each class, and for none, `(c + 1,)`."""
        return np.asarray(self.confusion.sum(axis=0))

    @cached_property
    def hits(self) -> np.ndarray:
        """How many records of each class were recognised, `(c,)`."""
        return self.confusion.diagonal()

    @property
    def accuracy(self) -> float:
        """Share of all records whose most probable class is their label."""
        return float(_divided(self.hits.sum(), self.records))

    @property
    def top5_accuracy(self) -> float:
        """Share of all records whose label is among the five most probable classes."""
        return float(_divided(self.top5_hits, self.records))

    @property
    def balanced_accuracy(self) -> float:
        """Mean recall of the classes that have records."""
        return self.mean("recall")

    @property
    def precision(self) -> np.ndarray:
        """Of what was taken for each class, the share that is of it, `(c,)`."""
        return _divided(self.hits, self.predicted[:-1])

    @property
    def recall(self) -> np.ndarray:
        """Of each class, the share that was recognised, `(c,)`."""
        return _divided(self.hits, self.support)

    @property
    def f1(self) -> np.ndarray:
        """Harmonic mean of precision and recall, `(c,)`; 0 where one is 0 and the other not defined."""
        return _divided(2 * self.hits, self.support + self.predicted[:-1])

    def mean(self, score: str, *, weighted: bool = False) -> float:
        """Return the mean of `precision`, `recall` or `f1` over the classes where it is defined.

        Args:
          score: which.
          weighted: by the number of records of each class.
        """
        values: np.ndarray = getattr(self, score)
        defined = ~np.isnan(values)
        weights = self.support[defined] if weighted else np.ones(defined.sum())
        return float(_divided((values[defined] * weights).sum(), weights.sum()))

    @property
    def calibration_error(self) -> float:
        """Expected calibration error: how far confidence is from accuracy, over the bins (Guo et al. 2017).

        Confidence is the probability of the most probable class: by softmax, or by the sigmoid of that class.
        """
        filled = self.bin_records > 0
        apart = np.abs(self.bin_accuracy[filled] - self.bin_confidence[filled])
        return float(_divided((apart * self.bin_records[filled]).sum(), self.bin_records.sum()))

    @property
    def bin_accuracy(self) -> np.ndarray:
        """Share of right predictions in each bin of confidence, NaN where it is empty, `(BINS,)`."""
        return _divided(self.bin_hits, self.bin_records)

    def confused(self, count: int = PAIRS) -> list[Confused]:
        """Return the pairs of classes that are confused most often, by records and then by share.

        Args:
          count: how many at most.
        """
        places = self.confusion.tocoo()
        label, prediction = places.coords
        wrong = (label != prediction) & (prediction < len(self.class_names)) & (places.data > 0)
        label, prediction, records = label[wrong], prediction[wrong], places.data[wrong]
        share = _divided(records, self.support[label])
        order = np.lexsort((prediction, label, -share, np.negative(records)))[:count]
        values = (label[order], prediction[order], records[order], share[order])
        return [Confused(int(a), int(b), int(n), float(s)) for a, b, n, s in zip(*values)]

    def to_json(self) -> dict[str, Any]:
        """Return everything as JSON can hold it.

        Classes are objects in order of label; `confusion` are triples of label, prediction and number of records, the
        prediction null where logits are not finite.
        """
        classes = len(self.class_names)
        scores = [self.support, self.predicted[:-1], self.precision, self.recall, self.f1]
        names = ("records", "predicted", "precision", "recall", "f1")
        places = self.confusion.tocoo()
        triples = np.stack([*places.coords, places.data], axis=1)[places.data > 0].tolist()
        edges = np.linspace(0, 1, BINS + 1).round(6).tolist()
        bins = zip(
            edges[:-1], edges[1:], self.bin_records.tolist(), self.bin_confidence.tolist(), self.bin_accuracy.tolist()
        )  # fmt: skip
        found = {
            "records": self.records,
            "not_finite": self.not_finite,
            "accuracy": self.accuracy,
            **({"top5_accuracy": self.top5_accuracy} if classes > 5 else {}),
            "balanced_accuracy": self.balanced_accuracy,
            "macro": {name: self.mean(name) for name in names[2:]},
            "weighted": {name: self.mean(name, weighted=True) for name in names[2:]},
            "calibration": {
                "error": self.calibration_error,
                "bins": [dict(zip(("from", "to", "records", "confidence", "accuracy"), one)) for one in bins],
            },
            "classes": [
                {"class": name, **dict(zip(names, values))}
                for name, *values in zip(self.class_names, *(score.tolist() for score in scores))
            ],
            "most_confused": [
                {
                    "label": self.class_names[pair.label],
                    "prediction": self.class_names[pair.prediction],
                    "records": pair.records,
                    "share": pair.share,
                }
                for pair in self.confused()
            ],
            "confusion": [[a, None if b == classes else b, n] for a, b, n in triples],
        }
        return finite(found)


class ClassCounts(Tally):
    """Counts that make a report, see `evaluation.reports`."""

    def __init__(self, output: Classes):
        super().__init__(len(output.class_names))
        self._names = output.class_names

    def report(self) -> Report:
        """Return the report on all records that were added."""
        return Report.of(self, self._names)


def _divided(above: Any, below: Any) -> np.ndarray:
    """Return the quotient, NaN where nothing is divided."""
    above, below = np.asarray(above, np.float64), np.asarray(below, np.float64)
    return np.divide(above, below, out=np.full(np.broadcast(above, below).shape, np.nan), where=below != 0)
