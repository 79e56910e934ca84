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
from vit_jax.data.fields.table import USUAL, check_plane, read_fields
from vit_jax.data.images.decode import MAX_MEGAPIXELS, check_megapixels, decode
from vit_jax.data.prepare.images import read_header
from vit_jax.data.prepare.parallel import cpu_count, run_parallel
from vit_jax.data.section import SOURCES, Part, check_source
from vit_jax.data.sources.folder import FolderSource, folder_splits
from vit_jax.data.sources.huggingface import is_saved, open_saved, saved_splits
from vit_jax.data.sources.masks import MaskSource, mask_splits
from vit_jax.data.sources.opening import open_source
from vit_jax.data.sources.table import DEFAULT, Columns, is_table, open_table, table_splits
from vit_jax.errors import ConfigError, DataError, VitError, choose, nearest
from vit_jax.paths import expanded

# How many examples of each finding are named; all are counted.
NAMED = 20
LAYOUT = "images and their masks in two folders, as --source masks"
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
      fields: what each has.
      classes: records of each class, by name: whose label it is or one of whose labels, or that have an object or a
        pixel of it.
      formats: records of each image format.
      unreadable: records that cannot be read or decoded.
      bad_labels: records whose label is not that of a class, or not what the file of labels says.
      bad_fields: records of which another field is not what it must be, or does not fit the image.
      left_out: files beside the records that are no images, by kind.
      oddities: images that are not plain RGB, by kind.
      sizes: percentiles of height, width and bytes.
    """

    records: int = 0
    fields: tuple[str, ...] = ("image", "label")
    classes: dict[str, int] = field(default_factory=dict)
    formats: dict[str, int] = field(default_factory=dict)
    unreadable: Finding = field(default_factory=Finding)
    bad_labels: Finding = field(default_factory=Finding)
    bad_fields: Finding = field(default_factory=Finding)
    left_out: dict[str, int] = field(default_factory=dict)
    oddities: dict[str, Finding] = field(default_factory=dict)
    sizes: dict[str, dict[str, int]] = field(default_factory=dict)


@dataclass
class Report:
    """What is in a dataset.

    Attributes:
      source: which.
      layout: what it was recognised as, where several kinds of sources lie like that.
      splits: by name.
      duplicates: images of equal bytes, of which there is one more already.
    """

    source: str
    layout: str = ""
    splits: dict[str, SplitReport] = field(default_factory=dict)
    duplicates: Finding = field(default_factory=Finding)

    @property
    def good(self) -> bool:
        """Whether every record can be read and is what it must be."""
        return not any(
            split.unreadable.count or split.bad_labels.count or split.bad_fields.count
            for split in self.splits.values()
        )


def check(
    source: str | os.PathLike[str],
    split: str = "",
    *,
    kind: str = "",
    data_dir: str = "",
    columns: Columns = DEFAULT,
    workers: int = 0,
    max_megapixels: float = MAX_MEGAPIXELS,
    progress: bool = False,
) -> Report:
    """Read and decode every record of a dataset.

    Args:
      source: a prepared dataset (its directory, or its name in `data_dir`), a folder of class folders, or of
        images and of masks, a table, or a folder that `save_to_disk` of Hugging Face's datasets wrote; what lies at
        `data.path`, if `kind` is given.
      split: only this one.
      kind: as `data.source`; by default what `source` looks like.
      data_dir: where tfds keeps datasets given by name.
      columns: of a table or a dataset of Hugging Face's.
      workers: processes; 0 as many as processors.
      max_megapixels: largest image accepted.
      progress: whether to show a bar, if standard error is a terminal.

    Raises:
      DataError: there is no such dataset or split.
    """
    check_megapixels(max_megapixels, "--max-megapixels")
    source, most = expanded(source), round(1e6 * max_megapixels)
    report = Report(source)
    sources = open_all(source, split, data_dir, columns, kind)
    if not kind and any(isinstance(opened, MaskSource) for opened in sources.values()):
        report.layout = LAYOUT
    tasks = [(name, opened, *part) for name, opened in sources.items() for part in _parts(len(opened))]
    total = sum(len(opened) for opened in sources.values())
    workers = workers or max(1, min(cpu_count(), total // _RECORDS_PER_TASK))
    with tqdm(total=total, desc="checking", unit=" images", disable=None if progress else True) as bar:
        found = run_parallel(_check_part, [(*task[1:], most) for task in tasks], workers, bar.update)
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


def open_all(
    source: str, split: str = "", data_dir: str = "", columns: Columns = DEFAULT, kind: str = ""
) -> dict[str, Source]:
    """Return the splits of a dataset by name, or only `split`; see `check`.

    Raises:
      DataError: there is no such dataset or split.
      ConfigError: there is no such kind of source, or a split is needed.
    """
    if is_of_kind(source, kind):
        return {split: _of_kind(kind or source, source if kind else "", split, columns)}
    root = Path(source)
    if is_table(source) and os.path.isfile(source):
        splits = [split] if split else list(table_splits(source, columns))
        return {name: open_table(source, name, name, columns) for name in splits}
    if is_saved(source):
        splits = [split] if split else list(saved_splits(source))
        return {name: open_saved(source, name, name, columns) for name in splits}
    if os.path.isdir(root) and (there := mask_splits(root)):
        return {name: _of_kind("masks", source, name, columns) for name in ([split] if split else there)}
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
    from vit_jax.data.sources.tfds_source import TfdsSource

    known = list(open_builder(source, data_dir).info.splits)
    name, path = ("", source) if os.path.isdir(root) else (source, data_dir)
    if not known:
        raise DataError(f"{source} is not prepared; run `vit-jax data prepare {source}`.")
    if split and split not in known:
        raise DataError(f"{source} has no split {split!r}; it has {', '.join(known)}.{nearest(split, known)}")
    return {one: TfdsSource(name, one, path) for one in ([split] if split else known)}


def is_of_kind(source: str, kind: str) -> bool:
    """Return whether what lies somewhere is of a kind that is given, or is the name of an embedded source."""
    embedded = source in SOURCES and not SOURCES[source].needs and source != "arrays"
    return bool(kind) or (embedded and not os.path.exists(source))


def _of_kind(kind: str, path: str, split: str, columns: Columns) -> Source:
    choose(kind, SOURCES, "--source")
    if not split:
        raise ConfigError(f"--split is not given; a source {kind!r} does not list its splits: name one.")
    part = Part(
        source=kind,
        path=path,
        image_column=columns.image,
        label_column=columns.label,
        split_column=columns.split,
        label_columns=columns.labels,
        value_columns=columns.values,
        label_separator=columns.separator,
    )
    check_source(kind, vars(part))
    return open_source(part, split)


def _parts(count: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, _RECORDS_PER_TASK):
        yield start, min(count, start + _RECORDS_PER_TASK)


@dataclass(frozen=True)
class _Entry:
    """What was found out about a record; `error` empty if it can be read, `wrong` if its fields are right."""

    record: str
    error: str
    label: int = -1
    classes: tuple[int, ...] = ()
    wrong: str = ""
    format: str = ""
    oddities: tuple[str, ...] = ()
    size: tuple[int, int, int] = (0, 0, 0)
    checksum: bytes = b""


def _check_part(
    source: Source, start: int, stop: int, max_pixels: int, report: Callable[[int], Any]
) -> list[_Entry]:
    entries = []
    for index in range(start, stop):
        try:
            entries.append(_entry(source, source[index], max_pixels))
        except DataError as error:
            entries.append(_Entry(f"record {index}", str(error)))
        # What a damaged ArrayRecord file makes of a record depends on where the damage is.
        except (RuntimeError, ValueError, IndexError, OSError) as error:
            entries.append(_Entry(f"record {index}", str(error).partition("\n")[0]))
        report(1)
    return entries


def _entry(source: Source, example: dict[str, Any], max_pixels: int) -> _Entry:
    data, record, label = example["image"], example["record"], int(example.get("label", -1))
    if isinstance(data, np.ndarray):
        pixels, kind, oddities = data, "array", ()
        (height, width, _), bytes_ = data.shape, data.nbytes
    else:
        try:
            # Ends with the name of the file, if there is one.
            header = read_header(data, record.removesuffix(")"), max_pixels)
            pixels = decode(data, max_pixels=max_pixels)
        except VitError as error:
            return _Entry(record, str(error), label)
        kind, oddities = header.format, header.oddities
        height, width, bytes_ = header.height, header.width, len(data)
    wrong, classes = "", (label,) * ("label" in example)
    if not USUAL.issuperset(source.fields):
        try:
            fields = read_fields(example, source)
            check_plane(fields, pixels.shape[:2])
            classes += _classes(fields)
        except DataError as error:
            wrong = str(error)
    raw: Any = np.ascontiguousarray(data).data if isinstance(data, np.ndarray) else data
    checksum = hashlib.blake2b(raw, digest_size=12).digest()
    return _Entry(record, "", label, classes, wrong, kind, oddities, (height, width, bytes_), checksum)


def _classes(example: dict[str, Any]) -> tuple[int, ...]:
    """Return the classes of a record, beside that of its label."""
    found = [np.flatnonzero(example["labels"] == 1)] if "labels" in example else []
    found += [np.unique(example[name]) for name in ("classes", "segmentation") if name in example]
    return tuple({int(number) for numbers in found for number in numbers if number >= 0})


def _summary(source: Source, entries: list[_Entry]) -> SplitReport:
    report = SplitReport(len(entries), source.fields, left_out=dict(source.left_out))
    counts = Counter(number for entry in entries for number in entry.classes)
    if source.fields != ("image", "value"):  # whose names are no classes
        report.classes = {name: counts[label] for label, name in enumerate(source.class_names)}
    report.formats = dict(Counter(entry.format for entry in entries if not entry.error).most_common())
    expected = source.labels if source.labels is not None else [None] * len(entries)
    for entry, known in zip(entries, expected):
        if entry.error:
            report.unreadable.add(f"{entry.record}: {entry.error}")
        elif entry.wrong:
            report.bad_fields.add(entry.wrong)
        elif "label" not in source.fields:
            pass
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
