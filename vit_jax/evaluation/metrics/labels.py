"""How well several labels an image are predicted: average precision and F1, over a whole set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

UNTUNED = 0.5  # the threshold of a class without examples to tune it on


@dataclass(frozen=True)
class F1:
    """F1 scores at given thresholds.

    Attributes:
      per_class: `(c,)`; NaN of a class that no record has and none is predicted to have.
      macro: their mean, without the undefined ones.
      micro: of all entries together.
      samples: mean over records; 1 of a record that has no label and is predicted none.
    """

    per_class: np.ndarray
    macro: float
    micro: float
    samples: float


class LabelScorer:
    """Keeps the probabilities of every record and scores them together.

    Args:
      thresholds: above or at which a class counts as predicted: one number, one for each class, or `tuned` or
        `tuned_per_class`, see `tuned_threshold`. Scores at thresholds tuned on the same records are optimistic.
      told: names of metrics that say the thresholds, one for all classes or one for each; none by default.
    """

    def __init__(self, thresholds: float | Sequence[float] | str = UNTUNED, told: Sequence[str] = ()):
        self._thresholds, self._told = thresholds, tuple(told)
        self._probabilities: list[np.ndarray] = []
        self._labels: list[np.ndarray] = []

    def see(self, rows: Mapping[str, np.ndarray]) -> None:
        """Add records.

        Args:
          rows: `probabilities` `(b, c)` and `labels` `(b, c)`: 1 what a record has, 0 what it has not, NaN unknown.
        """
        self._probabilities.append(np.asarray(rows["probabilities"], np.float32))
        self._labels.append(np.asarray(rows["labels"], np.float32))

    def metrics(self) -> dict[str, float]:
        """Return `mAP` and `AP_micro`; `f1_macro`, `f1_micro` and `f1_samples` at the thresholds; and these if told."""
        probabilities, labels = self.seen()
        thresholds = self.thresholds()
        f1 = f1_scores(probabilities, labels, thresholds)
        return dict(zip(self._told, thresholds.tolist())) | {
            "mAP": _mean(self.average_precisions()),
            "AP_micro": average_precision(probabilities.ravel(), labels.ravel()),
            "f1_macro": f1.macro,
            "f1_micro": f1.micro,
            "f1_samples": f1.samples,
        }

    def average_precisions(self) -> np.ndarray:
        """Return the average precision of each class, `(c,)`; NaN of a class that no record has."""
        probabilities, labels = self.seen()
        return np.array([average_precision(*column) for column in zip(probabilities.T, labels.T)])

    def thresholds(self) -> np.ndarray:
        """Return the threshold of each class, `(c,)` float64, tuned where that was asked for."""
        probabilities, labels = self.seen()
        classes = probabilities.shape[1]
        if self._thresholds == "tuned":
            return np.full(classes, tuned_threshold(probabilities.ravel(), labels.ravel()))
        if self._thresholds == "tuned_per_class":
            return np.array([tuned_threshold(*column) for column in zip(probabilities.T, labels.T)])
        return np.broadcast_to(np.asarray(self._thresholds, np.float64), (classes,))

    def counts(self) -> np.ndarray:
        """Return how many records are known to have each class, `(c,)` int64."""
        return (self.seen()[1] > 0).sum(axis=0)

    def seen(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the probabilities and labels of all records, `(n, c)` each."""
        if len(self._labels) > 1:  # joined once, however often it is asked for
            self._probabilities = [np.concatenate(self._probabilities)]
            self._labels = [np.concatenate(self._labels)]
        return self._probabilities[0], self._labels[0]


def average_precision(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the sum over thresholds of precision times the gain in recall, as scikit-learn's function of that name.

    Args:
      scores: `(n,)`, higher where a label is more likely. Those that are no number come last.
      labels: `(n,)`: 1 has it, 0 has it not, NaN is unknown and left out.

    Returns:
      0 to 1; NaN if nothing has the label.
    """
    hits, taken, _ = _ranked(scores, labels)
    if not len(hits) or not hits[-1]:
        return float("nan")
    return float(np.sum(np.diff(hits, prepend=0) / hits[-1] * (hits / taken)))


def tuned_threshold(scores: np.ndarray, labels: np.ndarray) -> float:
    """Return the threshold of the highest F1, halfway between the scores it divides; of equal ones the highest.

    Args:
      scores, labels: `(n,)`, see `average_precision`; scores are probabilities.

    Returns:
      0 to 1; `UNTUNED` if nothing has the label.
    """
    hits, taken, values = _ranked(scores, labels)
    if not len(hits) or not hits[-1]:
        return UNTUNED
    best = int(np.argmax(2 * hits / (taken + hits[-1])))
    below = values[best + 1] if best + 1 < len(values) else 0.0
    return float(max(values[best], 0.0) + max(below, 0.0)) / 2


def f1_scores(probabilities: np.ndarray, labels: np.ndarray, thresholds: np.ndarray) -> F1:
    """Return the F1 scores of predictions; entries whose label is unknown are left out.

    Args:
      probabilities: `(n, c)`.
      labels: `(n, c)`: 1, 0 or NaN for unknown.
      thresholds: `(c,)`; a probability at or above it is a prediction.
    """
    known = ~np.isnan(labels)
    predicted, has = (probabilities >= thresholds) & known, (labels > 0) & known
    hits = predicted & has
    sizes = predicted.sum(axis=0) + has.sum(axis=0), predicted.sum(axis=1) + has.sum(axis=1)
    per_class = _f1(hits.sum(axis=0), sizes[0], empty=np.nan)
    return F1(
        per_class,
        macro=_mean(per_class),
        micro=float(_f1(hits.sum(), sizes[0].sum(), empty=np.nan)),
        samples=_mean(_f1(hits.sum(axis=1), sizes[1], empty=1.0)),
    )


def _f1(hits: np.ndarray, sizes: np.ndarray, empty: float) -> np.ndarray:
    return np.where(sizes > 0, 2 * hits / np.maximum(sizes, 1), empty)


def _mean(values: np.ndarray) -> float:
    """Return the mean of those that are numbers; NaN if none is."""
    numbers = values[~np.isnan(values)]
    return float(numbers.mean()) if len(numbers) else float("nan")


def _ranked(scores: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return, for each distinct score from the highest: how many at or above it have the label, how many there are,
    and the score."""
    known = ~np.isnan(labels)
    scores = np.where(np.isnan(scores), -np.inf, scores)[known].astype(np.float64)
    order = np.argsort(-scores, kind="stable")
    scores, has = scores[order], labels[known][order] > 0
    last = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])
    return np.cumsum(has)[last], last + 1, scores[last]
