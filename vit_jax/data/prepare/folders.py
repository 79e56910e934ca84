"""Folders of class folders, and the archives of ILSVRC2012, listed record by record."""

import io
import os
import re
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from tqdm import tqdm

from vit_jax.data.base import Source
from vit_jax.data.fields.stored import STORED, Stored
from vit_jax.data.fields.table import summed_bytes
from vit_jax.data.fingerprint import digest
from vit_jax.data.images.image_files import together
from vit_jax.data.prepare.listing import Listing, Record, shuffled
from vit_jax.data.prepare.matlab import read_table
from vit_jax.data.sources.files import FileSource
from vit_jax.data.sources.folder import BESIDE_SPLITS, FolderSource, folder_splits
from vit_jax.data.sources.table import Columns, open_table, same_split, table_splits
from vit_jax.errors import ConfigError, DataError
from vit_jax.paths import open_file, read_file

IMAGENET = "imagenet2012"
# The version that tfds has of it, where the code of tfds knows the dataset; ours are all alike.
VERSIONS = {IMAGENET: "5.1.0"}
DEFAULT_VERSION = "1.0.0"
TRAIN_TAR = "ILSVRC2012_img_train.tar"
VALIDATION_TAR = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
_SAMPLED = 8  # records whose size is looked at
MAX_DEVKIT = 20_000_000  # bytes, of it and of each file in it; as published it has 2.6 MB


def list_folder(root: Path, name: str, splits: dict[str, str]) -> Listing:
    """Return the images of a folder as `FolderSource` reads it.

    Args:
      root: the folder.
      name: of the dataset.
      splits: names of splits and of their folders; empty for all there are.
    """
    splits = splits or {folder.lower(): folder for folder in folder_splits(root)}
    records, class_names, left_out = {}, (), {}
    for split, folder in splits.items():
        source = FolderSource(root, folder)
        if class_names and source.class_names != class_names:
            odd = min(set(source.class_names).symmetric_difference(class_names))
            raise DataError(
                f"class {odd!r} is missing from some split of {root}; all splits must have the same class folders."
            )
        class_names = source.class_names
        files = zip(source.files, np.asarray(source.labels).tolist())
        where = os.fspath(source.folder)
        found = [Record(file, label, f"{where}/{file}", 0, _size(f"{where}/{file}")) for file, label in files]
        records[split] = shuffled(found, split)
        left_out[source.folder] = source.left_out
    counts = together(left_out.values())
    if BESIDE_SPLITS in counts:
        counts[BESIDE_SPLITS] = max(part[BESIDE_SPLITS] for part in left_out.values())  # each has the same
    version = VERSIONS.get(name, DEFAULT_VERSION)
    return Listing(name, version, records, class_names, {}, left_out=counts)


def list_table(path: str, name: str, splits: dict[str, str], columns: Columns) -> Listing:
    """Return the images of a table as `data.source='table'` reads it.

    Args:
      path: the table.
      name: of the dataset.
      splits: names of splits, and what the table calls them; empty for all there are.
      columns: see `open_table`.
    """
    there = table_splits(path, columns)
    classes = same_split("train", there) or next(iter(there))
    records, class_names = {}, ()
    chosen = splits or {one.lower(): one for one in there}
    for split, old in chosen.items():
        source = open_table(path, old, classes, columns)
        if not isinstance(source, FileSource):
            opened = {new: open_table(path, was, classes, columns) for new, was in chosen.items()}
            return list_sources(opened, name)
        class_names = source.class_names
        paths = [source.name_of(index) for index in range(len(source))]
        labelled = zip(source.names, np.asarray(source.labels).tolist(), paths)
        found = [Record(file, label, where, 0, _size(where)) for file, label, where in labelled]
        records[split] = shuffled(found, split)
    return Listing(name, VERSIONS.get(name, DEFAULT_VERSION), records, class_names, {})


def list_sources(sources: Mapping[str, Source], name: str) -> Listing:
    """Return the records of any sources, with all their fields.

    Args:
      sources: by name of the split; all have the same fields and classes.
      name: of the dataset.

    Raises:
      DataError: they have not, or have a field that is not stored.
    """
    first = next(iter(sources.values()))
    records = {}
    for split, source in sources.items():
        if (source.fields, source.class_names) != (first.fields, first.class_names):
            raise DataError(
                f"the splits {', '.join(sources)} of {name} must have the same fields and classes."
            )
        if odd := [field for field in source.fields if field not in STORED]:
            raise DataError(
                f"records have {odd[0]}, which is not stored in prepared datasets; stored are {', '.join(STORED)}."
            )
        size = _mean_size(source)
        names = (source.name_of(index) for index in range(len(source)))
        found = [
            Record(f"{index:08d}_{os.path.basename(where)}", -1, where, index, size)
            for index, where in enumerate(names)
        ]
        records[split] = shuffled(found, split)
    stored = Stored(first.fields, first.class_names, first.named)
    inputs = digest(stored, [(split, source.fingerprint()) for split, source in sorted(sources.items())])
    classes = first.class_names if "label" in first.fields else ()
    return Listing(name, DEFAULT_VERSION, records, classes, {}, inputs=inputs, sources=sources, stored=stored)


def _mean_size(source: Source) -> int:
    """Return the bytes of a record, of a few."""
    chosen = np.linspace(0, len(source) - 1, min(_SAMPLED, len(source))).astype(int)
    return sum(summed_bytes(source[int(index)]) for index in chosen) // len(chosen)


def _size(path: str) -> int:
    """Return the size of a file; 0 of one that is not there, which is told when it is read."""
    try:
        return os.stat(path).st_size
    except OSError:
        return 0


def is_imagenet(root: Path) -> bool:
    """Return whether a folder holds archives of ILSVRC2012 as downloaded."""
    return any(os.path.isfile(root / name) for name in (TRAIN_TAR, VALIDATION_TAR))


def list_imagenet(root: Path, name: str, splits: dict[str, str], *, progress: bool) -> Listing:
    """Return the images in the archives of ILSVRC2012; labels are indices of the sorted WordNet ids, as in tfds.

    Args:
      root: folder with the archives of training or validation images, or both; validation needs the devkit.
      name: of the dataset.
      splits: which of `train` and `validation`; empty for those whose archive is there.
      progress: whether to show a bar.

    Raises:
      ConfigError: another split.
      DataError: an archive is missing, damaged, or not as published.
    """
    archives = {"train": TRAIN_TAR, "validation": VALIDATION_TAR}
    for split in splits:
        if split not in archives:
            raise ConfigError(f"--split is {split!r}; archives of ILSVRC2012 have train and validation.")
    chosen = splits or {split: split for split, archive in archives.items() if os.path.isfile(root / archive)}
    records: dict[str, list[Record]] = {}
    wnids: list[str] = []
    if "validation" in chosen:
        wnids, labels = _devkit(root / DEVKIT)
        images = sorted(_members(root / VALIDATION_TAR))
        if len(images) != len(labels):
            raise DataError(
                f"{root / VALIDATION_TAR} has {len(images)} images, but {DEVKIT} has labels for {len(labels)}; "
                "download both again."
            )
        path = os.fspath(root / VALIDATION_TAR)
        found = [Record(image, label, path, *where) for (image, *where), label in zip(images, labels)]
        records["validation"] = shuffled(found, "validation")
    if "train" in chosen:
        found, classes = _train(root / TRAIN_TAR, progress)
        if wnids and classes != wnids:
            odd = min(set(classes).symmetric_difference(wnids))
            raise DataError(
                f"class {odd} is not in both {TRAIN_TAR} and {DEVKIT} in {root}; fetch the archives again."
            )
        wnids = classes
        records["train"] = shuffled(found, "train")
    return Listing(name, VERSIONS.get(name, DEFAULT_VERSION), dict(sorted(records.items())), tuple(wnids), {})


def _train(path: Path, progress: bool) -> tuple[list[Record], list[str]]:
    """Return the images in a tar of one tar per class, and the sorted classes."""
    with _tar(path) as archive:
        inner = sorted((entry for entry in archive if entry.isfile()), key=lambda entry: entry.name)
        records = []
        bar = tqdm(inner, "listing", unit=" classes", disable=None if progress else True, leave=False)
        for label, entry in enumerate(bar):
            for image, start, length in _members(path, entry.name, archive.extractfile(entry)):
                records.append(Record(image, label, os.fspath(path), entry.offset_data + start, length))
    return records, [entry.name.removesuffix(".tar") for entry in inner]


def _members(path: Path, inner: str = "", contents: IO[bytes] | None = None) -> list[tuple[str, int, int]]:
    """Return name, offset and size of every file in a tar archive; only headers are read."""
    with _tar(path, inner, contents) as archive:
        return [(entry.name, entry.offset_data, entry.size) for entry in archive if entry.isfile()]


@contextmanager
def _tar(path: Path, inner: str = "", contents: IO[bytes] | None = None) -> Iterator[tarfile.TarFile]:
    """Open a tar archive, or one within one; what is wrong with it is told with its name."""
    try:
        with ExitStack() as stack:
            contents = contents or stack.enter_context(open_file(path))
            yield stack.enter_context(tarfile.open(path, "r:", contents))
    except (tarfile.TarError, EOFError, ValueError, OverflowError, LookupError) as error:
        within = f" ({inner})" if inner else ""
        raise DataError(
            f"{path}{within} is not a complete tar archive: {error}; download it again."
        ) from error
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror}; it is needed for this split.") from error


def _devkit(path: Path) -> tuple[list[str], list[int]]:
    """Return the sorted WordNet ids, and the label of each validation image in the order of their names."""
    contents = {}
    try:
        packed = io.BytesIO(read_file(path, MAX_DEVKIT))
        with tarfile.open(path, "r:gz", packed) as archive:
            for entry in archive:
                if entry.size > MAX_DEVKIT:
                    raise ValueError(f"{entry.name!r} has {entry.size} bytes")
                found = re.search(r"data/(meta\.mat|ILSVRC2012_validation_ground_truth\.txt)$", entry.name)
                if found and (file := archive.extractfile(entry)):
                    contents[found[1]] = file.read()
        synsets = read_table(contents["meta.mat"], "synsets", MAX_DEVKIT)
        # Ids beyond the classes are inner nodes of WordNet, which have children.
        leaves = [(int(s["ILSVRC2012_ID"][0]), s["WNID"]) for s in synsets if not s["num_children"][0]]
        wnids = sorted(wnid for _, wnid in leaves)
        labels = {number: wnids.index(wnid) for number, wnid in leaves}
        numbers = contents["ILSVRC2012_validation_ground_truth.txt"].split()
        return wnids, [labels[int(number)] for number in numbers]
    except FileNotFoundError as error:
        raise DataError(
            f"{path} does not exist; put the development kit there, which has the labels of the validation images "
            "(or prepare only --split train)."
        ) from error
    except (OSError, tarfile.TarError, zlib.error, EOFError, LookupError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} is not the development kit of ILSVRC2012 ({error!r}); fetch it again."
        ) from error
