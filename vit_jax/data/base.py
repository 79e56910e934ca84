"""What every source of labelled images offers, and the index maps over one."""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
from tqdm import tqdm

from vit_jax.data.order import shuffled
from vit_jax.errors import DataError

Example = dict[str, Any]


class Source(ABC):
    """Random access to labelled images; picklable, so that worker processes can hold one.

    Attributes:
      class_names: what each label means, in the order of the labels.
      image_shape: `(h, w, c)` when every record is an array of that shape, None when records are encoded
        files or differ.
      labels: int32 `(n,)`, or None when they are unknown without reading every record.
    """

    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int] | None = None
    labels: np.ndarray | None = None

    @property
    def num_classes(self) -> int:
        """How many labels there are; they run from 0."""
        return len(self.class_names)

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of records."""

    @abstractmethod
    def __getitem__(self, index: int) -> Example:
        """Return one record.

        Args:
          index: between 0 and the number of records.

        Returns:
          `image`: uint8 `(h, w, c)`, or the bytes of an encoded image; `label`: int; `record`: where it
          comes from, for messages.
        """

    def name_of(self, index: int) -> str:
        """Return where a record comes from, for messages; by default it is read for it."""
        return self[index]["record"]

    def take(self, indices: np.ndarray) -> Example | None:
        """Return several records stacked, or None when they can only be read one by one.

        Copying arrays a batch at a time costs a quarter of reading them record by record (8 by 8 images).

        Args:
          indices: int64 `(b,)`.

        Returns:
          `image` `(b, h, w, c)` and `label` int32 `(b,)`.
        """
        return None

    def order(self, positions: np.ndarray, seed: int) -> np.ndarray:
        """Return which record is at each position of an endless training run; by default each once an epoch.

        Args:
          positions: int64 `(b,)`, from 0.
          seed: of the run.

        Returns:
          int64 `(b,)`, each below the number of records.
        """
        return shuffled(positions, len(self), seed)


class Selection(Source):
    """The records of another source at given indices, in that order; an index may come several times."""

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray):
        self._source = source
        self._indices = np.asarray(indices, np.int64)
        self.class_names = source.class_names
        self.image_shape = source.image_shape
        self.labels = None if source.labels is None else source.labels[self._indices]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Example:
        return self._source[int(self._indices[index])]

    def name_of(self, index: int) -> str:
        """Return what the underlying source calls it."""
        return self._source.name_of(int(self._indices[index]))

    def take(self, indices: np.ndarray) -> Example | None:
        """Return several records stacked, if the underlying source can."""
        return self._source.take(self._indices[indices])


def balanced(source: Source) -> Source:
    """Return a source in which every class has as many records as the largest one.

    Records of smaller classes repeat, each as often as any other of its class to within one. An epoch over
    the result has `num_classes * largest class` records.

    Labels that the source does not know in advance are read, once through all records.

    Raises:
      DataError: a class has no record.
    """
    labels = source.labels if source.labels is not None else _read_labels(source)
    members = [np.flatnonzero(labels == label) for label in range(source.num_classes)]
    for name, indices in zip(source.class_names, members):
        if not len(indices):
            raise DataError(
                f"data.balanced: class {name!r} has no record to sample from; add some or remove the class."
            )
    largest = max(len(indices) for indices in members)
    # One record of each class in turn: (largest, num_classes), read row by row.
    rounds = np.stack([indices[np.arange(largest) % len(indices)] for indices in members], axis=1)
    return Selection(source, rounds.reshape(-1))


def _read_labels(source: Source) -> np.ndarray:
    records = tqdm(range(len(source)), "labels for data.balanced", unit="record", disable=None)
    return np.array([source[index]["label"] for index in records], np.int32)
