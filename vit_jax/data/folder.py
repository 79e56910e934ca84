"""A folder of class folders: `path/split/class/image.jpg`, or `path/class/image.jpg` with some held out."""

import os
import zlib
from pathlib import Path

import numpy as np

from vit_jax.data.base import Example, Source
from vit_jax.data.decode import read_bytes
from vit_jax.errors import DataError, choose, is_printable, nearest

EXTENSIONS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif")
SPLIT_NAMES = ("train", "training", "val", "valid", "validation", "test")
HELD_OUT_PERCENT = 10


class FolderSource(Source):
    """Image files in one folder per class; classes are the folder names, sorted.

    With split folders (`path/train/cat/1.jpg`, `path/test/cat/2.jpg`) each split is what is in its folder.
    Without (`path/cat/1.jpg`), about a tenth of the images is held out as `test`: those whose relative name
    has a checksum (CRC-32) divisible by ten. Adding images moves none from one split to the other.

    Args:
      path: the folder.
      split: name of the split folder; `train` or `test` where there are none.
      reference: the split whose classes this one must have, if it exists.

    Attributes:
      folder: that holds the class folders.
      files: of the records, relative to `folder`.

    Raises:
      DataError: the folder is missing or empty, has no such split, has a class without images, or has other
        classes than `reference`.
    """

    def __init__(self, path: str | os.PathLike[str], split: str, reference: str = "train"):
        root = Path(path)
        if not str(path) or not os.path.isdir(root):
            raise DataError(
                f"data.path is {str(path)!r}, which is not a folder; give one with a folder per class."
            )
        if not _entries(root):
            raise DataError(f"data.path {root} is empty; put one folder of images per class in it.")
        splits = _split_folders(root, {split, reference})
        if splits and split not in splits:
            raise DataError(
                f"{root} has no split {split!r}; it has {', '.join(splits)}: set data.train_split and "
                f"data.eval_split.{nearest(split, splits)}"
            )
        self.folder = root / split if splits else root
        self.class_names = tuple(_subfolders(self.folder))
        for name in self.class_names:
            if not is_printable(name):
                raise DataError(
                    f"class folder {name!r} in {self.folder} has a name that cannot be printed on one line; rename it."
                )
        if not self.class_names:
            raise DataError(
                f"{self.folder} has no class folders; put the images of each class in one of its own."
            )
        if reference in splits:
            _check_same_classes(self.folder, self.class_names, root / reference)
        files = [_images(self.folder, name) for name in self.class_names]
        if not splits:
            choose(split, ("train", "test"), f"{root} has no split folders, so the split")
            files = [_held_out(names, split) for names in files]
            self._check_held_out(files, split)
        self.files = [name for names in files for name in names]
        self.labels = np.repeat(np.arange(len(files), dtype=np.int32), [len(names) for names in files])

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> Example:
        assert self.labels is not None
        path = self.name_of(index)
        return {"image": read_bytes(path), "label": int(self.labels[index]), "record": path}

    def name_of(self, index: int) -> str:
        """Return the path of an image."""
        return f"{self.folder}/{self.files[index]}"

    def _check_held_out(self, files: list[list[str]], split: str) -> None:
        remedy = "add images, or make split folders yourself (train/<class>/..., test/<class>/...)."
        if not any(files):
            raise DataError(f"{self.folder} has too few images to hold out any for {split!r}; {remedy}")
        for name, names in zip(self.class_names, files):
            if split == "train" and not names:
                raise DataError(
                    f"all images of class {name!r} in {self.folder} are held out for testing; {remedy}"
                )


def folder_splits(root: str | os.PathLike[str]) -> list[str]:
    """Return the splits of a folder: its split folders, or `train` and `test` where there are none."""
    return _split_folders(Path(root), set()) or ["train", "test"]


def _split_folders(root: Path, asked: set[str]) -> list[str]:
    """Return the split folders of `root`: those with a name of a split and folders inside."""
    return [name for name in _subfolders(root) if name in {*SPLIT_NAMES, *asked} and _subfolders(root / name)]


def _subfolders(folder: Path) -> list[str]:
    return sorted(
        entry.name for entry in _entries(folder) if not entry.name.startswith(".") and _is_folder(entry)
    )


def _entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder.

    Raises:
      DataError: it may not be read.
    """
    try:
        with os.scandir(folder) as entries:
            return list(entries)
    except OSError as error:
        raise DataError(
            f"folder {folder} cannot be read: {error.strerror}; check its permissions."
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, for example: no folder
        return False


def _images(folder: Path, class_name: str) -> list[str]:
    """Return the sorted image files of a class, relative to `folder`."""
    names = sorted(
        f"{class_name}/{entry.name}"
        for entry in _entries(folder / class_name)
        if entry.name.lower().endswith(EXTENSIONS) and not entry.name.startswith(".")
    )
    if not names:
        raise DataError(
            f"class folder {folder / class_name} has no images ({', '.join(EXTENSIONS)}); add some or remove "
            "it."
        )
    return names


def _held_out(names: list[str], split: str) -> list[str]:
    period = 100 // HELD_OUT_PERCENT
    return [name for name in names if (zlib.crc32(os.fsencode(name)) % period == 0) == (split == "test")]


def _check_same_classes(folder: Path, class_names: tuple[str, ...], reference: Path) -> None:
    expected = set(_subfolders(reference))
    for names, present, absent in (
        (expected - set(class_names), reference, folder),
        (set(class_names) - expected, folder, reference),
    ):
        if names:
            raise DataError(
                f"class {min(names)!r} is in {present} but not in {absent} ({len(names)} such); splits must "
                "have the same class folders."
            )
