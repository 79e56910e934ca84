"""What a classification report needs of every record, added up batch by batch: memory is bounded by the classes."""

from collections.abc import Mapping

import numpy as np
from scipy import sparse

BINS = 15  # of confidence, of equal width, as in Guo et al. 2017 (arXiv 1706.04599)
_WAITING = 2**16  # pairs that are sorted together


class Tally:
    """Counts of label and prediction, of the five best, and of confidence.

    Args:
      num_classes: `c`.

    Attributes:
      top5_hits: how many records had their label among the five best.
      bin_records, bin_hits, bin_confidence: by confidence of the prediction, `(BINS,)`: how many, how many of them
        right, and the sum of their confidence. Records whose logits are not finite have none.
    """

    def __init__(self, num_classes: int):
        self.num_classes = num_classes
        self.top5_hits = 0
        self.bin_records, self.bin_hits = np.zeros(BINS, np.int64), np.zeros(BINS, np.int64)
        self.bin_confidence = np.zeros(BINS, np.float64)
        # A matrix of 21,843 classes has 477 million places, of which a test set fills a few thousand.
        self._codes, self._counts = np.zeros(0, np.int64), np.zeros(0, np.int64)
        self._new: list[np.ndarray] = []

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Add records.

        Args:
          rows: `label` `(b,)`; `classes` `(b, k)`, the `k` best of each, best first, -1 where logits are not finite;
            `probabilities` `(b, k)` of these.
        """
        labels = rows["label"].astype(np.int64)
        best, confidence = rows["classes"][:, 0].astype(np.int64), rows["probabilities"][:, 0]
        finite, hit = best >= 0, best == labels
        self.top5_hits += int((rows["classes"][:, :5] == labels[:, None]).any(axis=1).sum())
        # The last bin has its upper edge, 1; a bin holds its lower one.
        bins = np.clip((confidence[finite].astype(np.float64) * BINS).astype(np.int64), 0, BINS - 1)
        self.bin_records += np.bincount(bins, minlength=BINS)
        self.bin_hits += np.bincount(bins, hit[finite], minlength=BINS).astype(np.int64)
        self.bin_confidence += np.bincount(bins, confidence[finite], minlength=BINS)
        # One column more, for what is no class.
        self._new.append(labels * (self.num_classes + 1) + np.where(finite, best, self.num_classes))
        if sum(map(len, self._new)) > max(_WAITING, len(self._codes)):
            self._merge()

    def confusion(self) -> sparse.csr_array:
        """Return how many records of each label (row) have each prediction (column), `(c, c + 1)` int64.

        The last column are the records whose logits are not finite.
        """
        self._merge()
        shape = (self.num_classes, self.num_classes + 1)
        places = np.divmod(self._codes, self.num_classes + 1)
        return sparse.coo_array((self._counts, places), shape=shape).tocsr()

    def _merge(self) -> None:
        new = np.concatenate([*self._new, np.zeros(0, np.int64)])
        codes, where = np.unique(np.concatenate([self._codes, new]), return_inverse=True)
        weights = np.concatenate([self._counts, np.ones(len(new), np.int64)])
        counts = np.zeros(len(codes), np.int64)
        np.add.at(counts, where, weights)
        self._codes, self._counts, self._new = codes, counts, []
