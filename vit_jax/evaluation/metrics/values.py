"""How well values are predicted: mean absolute error, root of the mean squared error, and R2, over a whole set."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Errors:
    """Errors of each value, `(k,)` float64; NaN of one that is known of no record.

    Attributes:
      mae: mean absolute error, in the value's unit.
      rmse: root of the mean squared error, in the value's unit.
      r2: share of the variance that is explained (coefficient of determination), 1 at best; NaN where all targets are
        equal.
    """

    mae: np.ndarray
    rmse: np.ndarray
    r2: np.ndarray


class ValueScorer:
    """Adds up errors batch by batch; memory is bounded by the number of values.

    Args:
      names: of the values; the metrics of several are told one by one too.
    """

    def __init__(self, names: Sequence[str]):
        self._names = tuple(names)
        # Of what is known: how many, sums of absolute and squared errors, mean and squared deviation of targets.
        self._count, self._absolute, self._squared, self._mean, self._deviation = np.zeros((5, len(names)))

    def see(self, rows: Mapping[str, np.ndarray]) -> None:
        """Add records.

        Args:
          rows: `values` `(b, k)`, what was predicted, and `value` `(b, k)`, what is right, NaN where it is unknown.
        """
        predicted, targets = (np.asarray(rows[name], np.float64) for name in ("values", "value"))
        known = ~np.isnan(targets)
        errors = np.where(known, predicted - targets, 0)
        count = known.sum(axis=0)
        mean = np.where(known, targets, 0).sum(axis=0) / np.maximum(count, 1)
        deviation = np.where(known, np.square(targets - mean), 0).sum(axis=0)
        # Means and deviations of two parts become those of both (Chan, Golub and LeVeque 1979): a sum of squares loses
        # what a large mean leaves of a small deviation.
        total = self._count + count
        between = mean - self._mean
        self._deviation += deviation + np.square(between) * self._count * count / np.maximum(total, 1)
        self._mean += between * count / np.maximum(total, 1)
        self._count = total
        self._absolute += np.abs(errors).sum(axis=0)
        self._squared += np.square(errors).sum(axis=0)

    def errors(self) -> Errors:
        """Return the errors of each value."""
        with np.errstate(invalid="ignore", divide="ignore"):
            r2 = np.where(self._deviation > 0, 1 - self._squared / self._deviation, np.nan)
            return Errors(self._absolute / self._count, np.sqrt(self._squared / self._count), r2)

    def metrics(self) -> dict[str, float]:
        """Return `mae`, `rmse` and `r2`, means over the values, and of several each as `mae/NAME`."""
        found = vars(self.errors())
        metrics = {name: _mean(values) for name, values in found.items()}
        if len(self._names) > 1:
            for name, values in found.items():
                metrics |= {f"{name}/{value}": float(x) for value, x in zip(self._names, values)}
        return metrics


def _mean(values: np.ndarray) -> float:
    numbers = values[~np.isnan(values)]
    return float(numbers.mean()) if len(numbers) else float("nan")
