"""What is to be prepared: which records, of which splits, in which order."""

import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, NamedTuple

from vit_jax.data.base import Source
from vit_jax.data.fields.stored import Stored
from vit_jax.errors import DataError


class Record(NamedTuple):
    """A slice of a file: an encoded image, or a serialized example.

    Attributes:
      name: of the record, unique in its split; orders the records and is stored with images as `file_name`.
      label: index of its class; -1 where only the serialized example knows.
      file: where it lies.
      offset, size: which bytes.
    """

    name: str
    label: int
    file: str
    offset: int
    size: int


@dataclass(frozen=True)
class Listing:
    """All records of a dataset.

    Attributes:
      name, version: of the prepared dataset, as tfds calls it.
      splits: records of each split, in the order in which they will be stored.
      class_names: what labels mean; empty when records need not have one.
      shards: how many shards each split has already; empty where that is ours to decide.
      info: tfds's `DatasetInfo` when records are serialized examples; None when they are images.
      left_out: how many files of each kind lie beside the records and are no images.
      inputs: what the records come from, where that says it all: so a finished dataset need not be listed again.
      sources: of each split, what reads its records, whose `offset` is then the index; empty where they are slices.
      stored: what records of sources have.
    """

    name: str
    version: str
    splits: dict[str, list[Record]]
    class_names: tuple[str, ...]
    shards: dict[str, int]
    info: Any = None
    inputs: str = ""
    left_out: Mapping[str, int] = field(default_factory=dict)
    sources: Mapping[str, Source] = field(default_factory=dict)
    stored: Stored | None = None

    @property
    def directory(self) -> str:
        """Where tfds looks for the dataset in a data_dir."""
        config = self.info.config_name if self.info else ""
        return "/".join(filter(None, (self.name, config, self.version)))

    def digest(self) -> str:
        """Return `inputs`, or a checksum of names, labels and sizes, which does not depend on where files lie."""
        if self.inputs:
            return self.inputs
        digest = hashlib.blake2b(digest_size=16)
        for split, records in sorted(self.splits.items()):
            for record in records:
                line = f"{split}\0{record.name}\0{record.label}\0{record.size}\n"
                digest.update(os.fsencode(line))  # names of files need not be text
        digest.update("\0".join(self.class_names).encode())
        return digest.hexdigest()


def shuffled(records: list[Record], split: str) -> list[Record]:
    """Return records in the order of the MD5 of split and name, which is how tfds shuffles.

    Raises:
      DataError: two records have one name.
    """
    salt = hashlib.md5(split.encode(), usedforsecurity=False)

    def key(record: Record) -> bytes:
        digest = salt.copy()
        digest.update(os.fsencode(record.name))
        return digest.digest()

    ordered = sorted(records, key=key)
    for before, after in pairwise(ordered):
        if before.name == after.name:
            raise DataError(
                f"two records of split {split!r} are both named {after.name!r}; names must be unique."
            )
    return ordered


def cut(records: list[Record], count: int) -> Iterator[list[Record]]:
    """Yield the records of each of `count` shards, whose lengths differ by one at most."""
    start = 0
    for index in range(1, count + 1):
        stop = round(len(records) * index / count)
        yield records[start:stop]
        start = stop


def shard_count(total_bytes: int, records: int) -> int:
    """Return a number of shards: 64 MiB each until there are 1024, then larger ones up to 1 GiB."""
    count = min(total_bytes // (64 << 20), max(1024, total_bytes >> 30))
    return max(1, min(count, records))
