"""What every source of records offers, and the index maps over one."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from tqdm import tqdm

from vit_jax.data.fingerprint import digest, sample_digest
from vit_jax.data.order import shuffled
from vit_jax.errors import DataError

Example = dict[str, Any]


class Source(ABC):
    """Random access to records, named fields each; picklable, so that worker processes can hold one.

    Attributes:
      fields: what each record has; see `data.fields` for what each may be.
      class_names: what each class means, in the order of their numbers, or each of several values; empty if nothing
        has classes or values.
      named: whether these are names that somebody gave; False where they are numbers made up here, which say nothing
        about what a label means.
      image_shape: `(h, w, c)` when every image is an array of that shape, None when images are encoded
        files or differ.
      labels: int32 `(n,)`, or None when they are unknown without reading every record, or there are none.
      left_out: how many files of each kind lie beside the records and are none (`.txt`, hidden files).
    """

    fields: tuple[str, ...] = ("image", "label")
    class_names: tuple[str, ...] = ()
    named: bool = True
    image_shape: tuple[int, int, int] | None = None
    labels: np.ndarray | None = None
    left_out: Mapping[str, int] = MappingProxyType({})

    @property
    def num_classes(self) -> int:
        """How many classes there are; their numbers run from 0."""
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
          The fields: `image` is uint8 `(h, w, c)`, or the bytes of an encoded image; `label` an int. And `record`,
          where it comes from, for messages.
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
          The fields, checked: `image` `(b, h, w, c)`, `label` int32 `(b,)`.
        """
        return None

    def known(self, field: str) -> np.ndarray | None:
        """Return a target of all records, `(n, ...)`, or None if it is unknown without reading every record.

        `labels` are int8, with -1 for what is not known of a record; of a `value` that is NaN.
        """
        return self.labels if field == "label" else None

    def order(self, positions: np.ndarray, seed: int) -> np.ndarray:
        """Return which record is at each position of an endless training run; by default each once an epoch.

        Args:
          positions: int64 `(b,)`, from 0.
          seed: of the run.

        Returns:
          int64 `(b,)`, each below the number of records.
        """
        return shuffled(positions, len(self), seed)

    def fingerprint(self) -> str:
        """Return a checksum of the records: equal for equal ones, wherever they lie.

        It is cheap, so what it looks at of a record is the source's to say (of files name and size); by default a few
        records are read.
        """
        return digest(len(self), self.labels, sample_digest(self))


class Selection(Source):
    """The records of another source at given indices, in that order; an index may come several times."""

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray):
        self._source = source
        self._indices = np.asarray(indices, np.int64)
        self.fields, self.class_names, self.named = source.fields, source.class_names, source.named
        self.image_shape, self.left_out = source.image_shape, dict(source.left_out)
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

    def known(self, field: str) -> np.ndarray | None:
        """Return a target of these records, if the underlying source knows it."""
        whole = self._source.known(field)
        return None if whole is None else whole[self._indices]

    def fingerprint(self) -> str:
        """Return a checksum of the source and of which records it are."""
        return digest(self._source.fingerprint(), self._indices)


def balanced(source: Source) -> Source:
    """Return a source in which every class has as many records as the largest one.

    Records of smaller classes repeat, each as often as any other of its class to within one. An epoch over
    the result has `num_classes * largest class` records.

    Labels that the source does not know in advance are read, once through all records.

    Raises:
      DataError: records have no label, or a class has no record.
    """
    if "label" not in source.fields:
        raise DataError(
            f"data.balanced needs records with a label, but these have {', '.join(source.fields)}; leave it out."
        )
    labels = source.labels if source.labels is not None else _read_labels(source)
    members = [np.flatnonzero(labels == label) for label in range(source.num_classes)]
    for name, indices in zip(source.class_names, members):
        if not len(indices):
            raise DataError(
                f"data.balanced: class {name!r} has no records to sample from; add some or remove the class."
            )
    largest = max(len(indices) for indices in members)
    # One record of each class in turn: (largest, num_classes), read row by row.
    rounds = np.stack([indices[np.arange(largest) % len(indices)] for indices in members], axis=1)
    return Selection(source, rounds.reshape(-1))


def _read_labels(source: Source) -> np.ndarray:
    records = tqdm(range(len(source)), "labels for data.balanced", unit="record", disable=None)
    return np.array([source[index]["label"] for index in records], np.int32)
