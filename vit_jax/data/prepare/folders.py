"""Folders of class folders, and the archives of ILSVRC2012, listed record by record."""

import io
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO

import numpy as np
from tqdm import tqdm

from vit_jax.data.folder import FolderSource, folder_splits
from vit_jax.data.prepare.listing import Listing, Record, shuffled
from vit_jax.data.prepare.matlab import read_table
from vit_jax.errors import ConfigError, DataError
from vit_jax.paths import open_file, read_file

IMAGENET = "imagenet2012"
# The version that tfds has of it, where the code of tfds knows the dataset; ours are all alike.
VERSIONS = {IMAGENET: "5.1.0"}
DEFAULT_VERSION = "1.0.0"
TRAIN_TAR = "ILSVRC2012_img_train.tar"
VALIDATION_TAR = "ILSVRC2012_img_val.tar"
DEVKIT = "ILSVRC2012_devkit_t12.tar.gz"
MAX_DEVKIT = 20_000_000  # bytes, of it and of each file in it; as published it has 2.6 MB


def list_folder(root: Path, name: str, splits: dict[str, str]) -> Listing:
    """Return the images of a folder as `FolderSource` reads it.

    Args:
      root: the folder.
      name: of the dataset.
      splits: names of splits and of their folders; empty for all there are.
    """
    splits = splits or {split: split for split in folder_splits(root)}
    records, class_names = {}, ()
    for split, folder in splits.items():
        source = FolderSource(root, folder)
        if class_names and source.class_names != class_names:
            odd = min(set(source.class_names).symmetric_difference(class_names))
            raise DataError(
                f"class {odd!r} is not in every split of {root}; splits must have the same class folders."
            )
        class_names = source.class_names
        files = zip(source.files, np.asarray(source.labels).tolist())
        where = os.fspath(source.folder)
        found = [Record(file, label, f"{where}/{file}", 0, _size(f"{where}/{file}")) for file, label in files]
        records[split] = shuffled(found, split)
    return Listing(name, VERSIONS.get(name, DEFAULT_VERSION), records, class_names, {})


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
                f"{root / VALIDATION_TAR} has {len(images)} images, but {DEVKIT} has labels of {len(labels)}; "
                "fetch both again."
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
        raise DataError(f"{path}{within} is not a whole tar archive: {error}; fetch it again.") from error
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
            f"{path} does not exist; put the development kit there: validation images have their labels in it "
            "(or leave them out with --split train)."
        ) from error
    except (OSError, tarfile.TarError, zlib.error, EOFError, LookupError, ValueError, TypeError) as error:
        raise DataError(
            f"{path} is not the development kit of ILSVRC2012 ({error!r}); fetch it again."
        ) from error
