"""Reads every record of a dataset and tells what is wrong or unusual in it."""

import hashlib
import os
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vit_jax.data.base import Source
from vit_jax.data.decode import decode
from vit_jax.data.folder import FolderSource, folder_splits
from vit_jax.data.prepare.images import read_header
from vit_jax.data.prepare.parallel import cpu_count, run_parallel
from vit_jax.errors import DataError, VitError, nearest

# How many examples of each finding are named; all are counted.
NAMED = 20
_RECORDS_PER_TASK = 512
_PERCENTILES = (0, 5, 25, 50, 75, 95, 100)


@dataclass
class Finding:
    """Records of one kind.

    Attributes:
      count: how many there are.
      examples: the first of them, by name and with details.
    """

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, example: str) -> None:
        """Count another one."""
        self.count += 1
        if len(self.examples) < NAMED:
            self.examples.append(example)


@dataclass
class SplitReport:
    """What is in a split.

    Attributes:
      records: how many there are.
      classes: records of each class, by name.
      formats: records of each image format.
      unreadable: records that cannot be read or decoded.
      bad_labels: records whose label is not that of a class, or not what the file of labels says.
      oddities: images that are not plain RGB, by kind.
      sizes: percentiles of height, width and bytes.
    """

    records: int = 0
    classes: dict[str, int] = field(default_factory=dict)
    formats: dict[str, int] = field(default_factory=dict)
    unreadable: Finding = field(default_factory=Finding)
    bad_labels: Finding = field(default_factory=Finding)
    oddities: dict[str, Finding] = field(default_factory=dict)
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass
class Report:
    """What is in a dataset.

    Attributes:
      source: which.
      splits: by name.
      duplicates: images of equal bytes, of which there is one more already.
    """

    source: str
    splits: dict[str, SplitReport] = field(default_factory=dict)
    duplicates: Finding = field(default_factory=Finding)

    @property
    def good(self) -> bool:
        """Whether every record can be read and has a label."""
        return not any(split.unreadable.count or split.bad_labels.count for split in self.splits.values())


def check(
    source: str | os.PathLike[str],
    split: str = "",
    *,
    data_dir: str = "",
    workers: int = 0,
    progress: bool = False,
) -> Report:
    """Read and decode every record of a dataset.

    Args:
      source: a prepared dataset (its directory, or its name in `data_dir`) or a folder of class folders.
      split: only this one.
      data_dir: where tfds keeps datasets given by name.
      workers: processes; 0 as many as processors.
      progress: whether to show a bar, if standard error is a terminal.

    Raises:
      DataError: there is no such dataset or split.
    """
    report = Report(os.fspath(source))
    sources = _open(os.fspath(source), split, data_dir)
    tasks = [(name, opened, *part) for name, opened in sources.items() for part in _parts(len(opened))]
    total = sum(len(opened) for opened in sources.values())
    workers = workers or max(1, min(cpu_count(), total // _RECORDS_PER_TASK))
    with tqdm(total=total, desc="checking", unit=" images", disable=None if progress else True) as bar:
        found = run_parallel(_check_part, [task[1:] for task in tasks], workers, bar.update)
    seen: dict[bytes, str] = {}
    for name, opened in sources.items():
        parts = [part for task, part in zip(tasks, found) if task[0] == name]
        report.splits[name] = _summary(opened, [entry for part in parts for entry in part])
        for entry in (entry for part in parts for entry in part):
            if entry.checksum in seen:
                report.duplicates.add(f"{entry.record} is {seen[entry.checksum]}")
            elif entry.checksum:
                seen[entry.checksum] = entry.record
    return report


def _open(source: str, split: str, data_dir: str) -> dict[str, Source]:
    """Return the splits of a dataset."""
    root = Path(source)
    if os.path.isdir(root) and not os.path.isfile(root / "dataset_info.json"):
        if not any(root.rglob("dataset_info.json")):
            splits = [split] if split else folder_splits(root)
            return {name: FolderSource(root, name, reference=name) for name in splits}
        inside = min(path.parent for path in root.rglob("dataset_info.json"))
        raise DataError(
            f"{source} is a data_dir of prepared datasets; name one of them, for example {inside}."
        )
    # Here because importing tensorflow_datasets takes a second.
    from vit_jax.data.prepare.from_tfds import open_builder
    from vit_jax.data.tfds_source import TfdsSource

    known = list(open_builder(source, data_dir).info.splits)
    name, path = ("", source) if os.path.isdir(root) else (source, data_dir)
    if not known:
        raise DataError(f"{source} is not prepared; `vit-jax data prepare {source}` does that.")
    if split and split not in known:
        raise DataError(f"{source} has no split {split!r}; it has {', '.join(known)}.{nearest(split, known)}")
    return {one: TfdsSource(name, one, path) for one in ([split] if split else known)}


def _parts(count: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, _RECORDS_PER_TASK):
        yield start, min(count, start + _RECORDS_PER_TASK)


@dataclass(frozen=True)
class _Entry:
    """What was found out about a record; `error` empty if it can be read."""

    record: str
    error: str
    label: int = -1
    format: str = ""
    oddities: tuple[str, ...] = ()
    size: tuple[int, int, int] = (0, 0, 0)
    checksum: bytes = b""


def _check_part(source: Source, start: int, stop: int, report: Callable[[int], Any]) -> list[_Entry]:
    entries = []
    for index in range(start, stop):
        try:
            entries.append(_entry(source[index]))
        except DataError as error:
            entries.append(_Entry(f"record {index}", str(error)))
        # What a damaged ArrayRecord file makes of a record depends on where the damage is.
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            entries.append(_Entry(f"record {index}", str(error).partition("\n")[0]))
        report(1)
    return entries


def _entry(example: dict[str, Any]) -> _Entry:
    data, record = example["image"], example["record"]
    checksum = hashlib.blake2b(data, digest_size=12).digest()
    try:
        header = read_header(
            data, record.removesuffix(")")
        )  # ends with the name of the file, if there is one
        decode(data)
    except VitError as error:
        return _Entry(record, str(error), example["label"])
    size = (header.height, header.width, len(data))
    return _Entry(record, "", example["label"], header.format, header.oddities, size, checksum)


def _summary(source: Source, entries: list[_Entry]) -> SplitReport:
    report = SplitReport(len(entries))
    counts = Counter(entry.label for entry in entries)
    report.classes = {name: counts[label] for label, name in enumerate(source.class_names)}
    report.formats = dict(Counter(entry.format for entry in entries if not entry.error).most_common())
    expected = source.labels if source.labels is not None else [None] * len(entries)
    for entry, known in zip(entries, expected):
        if entry.error:
            report.unreadable.add(f"{entry.record}: {entry.error}")
        elif not 0 <= entry.label < source.num_classes:
            report.bad_labels.add(f"{entry.record}: label {entry.label}, not below {source.num_classes}")
        elif known is not None and entry.label != known:
            report.bad_labels.add(f"{entry.record}: label {entry.label}, but {known} in the file of labels")
        for oddity in entry.oddities:
            report.oddities.setdefault(oddity, Finding()).add(entry.record)
    sizes = np.array([entry.size for entry in entries if not entry.error])
    if len(sizes):
        for column, name in enumerate(("height", "width", "bytes")):
            values = np.percentile(sizes[:, column], _PERCENTILES).astype(int).tolist()
            report.sizes[name] = {f"{p}%": value for p, value in zip(_PERCENTILES, values)}
    return report
