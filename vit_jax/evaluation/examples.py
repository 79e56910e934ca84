"""Which records to show of a whole evaluation set: mistakes first, and every class."""

from collections.abc import Mapping

import numpy as np


class Examples:
    """Chooses records while they pass by; remembers at most twice as many of each class as are wanted.

    Every class is represented as far as there is room, by a mistake where there is one; then come further mistakes,
    then further records, class by class. Of equal ones the first in the data are taken, and where only some of the
    classes have room, these are spread evenly. So the choice depends on records and predictions alone, not on batches
    or hosts.

    Args:
      count: how many to choose at most.
      mistakes: whether mistakes matter; otherwise all records are equal.
    """

    def __init__(self, count: int, *, mistakes: bool = True):
        self._count, self._mistakes = count, mistakes
        self._kept = np.zeros((3, 0), np.int64)  # label, whether right, index

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Add records.

        Args:
          rows: `index` `(b,)` and `label` `(b,)`, and `classes` `(b, k)` if mistakes matter.
        """
        right = rows["classes"][:, 0] == rows["label"] if self._mistakes else np.ones(len(rows["label"]))
        new = np.stack([rows["label"], right, rows["index"]]).astype(np.int64)
        label, right, index = every = np.concatenate([self._kept, new], axis=1)
        every = every[:, np.lexsort((index, right, label))]
        self._kept = every[:, _ranks(every[:2]) < self._count]

    def chosen(self) -> np.ndarray:
        """Return the indices of the chosen records, mistakes first and each in the order of the data, `(n,)`."""
        _, right, index = self._kept
        rank = _ranks(self._kept[:1])
        # The first of each class, then the second and further ones.
        tiers = np.stack([rank > 0, right, rank])
        taken = np.zeros(0, np.int64)
        for tier in np.unique(tiers, axis=1).T:
            members = np.flatnonzero((tiers == tier[:, None]).all(axis=0))
            room = self._count - len(taken)
            if len(members) > room:
                members = members[np.arange(room) * len(members) // max(room, 1)]
            taken = np.concatenate([taken, members])
        return index[taken[np.lexsort((index[taken], right[taken]))]]


def _ranks(groups: np.ndarray) -> np.ndarray:
    """Return the place of each column among the equal columns beside it, from 0; equal ones lie side by side."""
    count = groups.shape[1]
    if not count:
        return np.zeros(0, np.int64)
    begins = np.concatenate([[True], (groups[:, 1:] != groups[:, :-1]).any(axis=0)])
    return np.arange(count) - np.maximum.accumulate(np.where(begins, np.arange(count), 0))
