"""Metrics of semantic segmentation: of the pixels of a whole set, never means over images."""

import numpy as np

# Counts may come in two parts, the second in units of this: sums of int32 then hold 2^46 pixels.
UNIT = 2**15


def counts(summed: np.ndarray) -> np.ndarray:
    """Return int64 numbers of int32 `(2, ...)`: ones, and those in units of `UNIT`."""
    low, high = np.asarray(summed, np.int64)
    return low + UNIT * high


def ious(labelled: np.ndarray, predicted: np.ndarray, hits: np.ndarray) -> np.ndarray:
    """Return the intersection over union of each class, float64 `(c,)`, NaN where there are no pixels.

    Args:
      labelled, predicted, hits: pixels `(c,)` that have a class, that are predicted to have it, and both.
    """
    return _ratio(hits, labelled + predicted - hits)


def class_ious(matrix: np.ndarray) -> np.ndarray:
    """Return `ious` of a confusion matrix `(c, c)`, rows are labels."""
    return ious(matrix.sum(axis=1), matrix.sum(axis=0), np.diagonal(matrix))


def summary(matrix: np.ndarray) -> dict[str, float]:
    """Return what is usually reported of a confusion matrix.

    Args:
      matrix: pixels `(c, c)`, rows are labels.

    Returns:
      `miou`: the mean of `class_ious` where they are numbers; `pixel_accuracy`: the share of pixels that are right;
      `mean_accuracy`: the mean over the classes that there are of the share of their pixels that are right.

    Source: Long et al. 2014, arXiv 1411.4038, section 5; classes that are absent as in MMSegmentation.
    """
    hits, pixels = np.diagonal(matrix), matrix.sum(axis=1)
    return {
        "miou": _mean(class_ious(matrix)),
        "pixel_accuracy": float(hits.sum() / pixels.sum()) if pixels.sum() else float("nan"),
        "mean_accuracy": _mean(_ratio(hits, pixels)),
    }


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.full(len(part), np.nan), where=whole > 0)


def _mean(values: np.ndarray) -> float:
    there = values[~np.isnan(values)]
    return float(there.mean()) if len(there) else float("nan")
