"""A folder of class folders: `path/split/class/image.jpg`, or `path/class/image.jpg` with some held out."""

import os
import re
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.data.base import Example, Source
from vit_jax.data.fingerprint import digest, file_sizes
from vit_jax.data.images.decode import read_bytes
from vit_jax.data.images.image_files import (
    EXTENSIONS,
    entries,
    image_files,
    is_folder,
    left_out_text,
    subfolders,
    together,
)
from vit_jax.data.split import parse_split
from vit_jax.errors import DataError, choose, is_printable, nearest
from vit_jax.paths import expanded

# Names of split folders, in any case; those of a row mean the same split.
SPLIT_NAMES = (("train", "training"), ("val", "valid", "validation"), ("test", "testing"))
HELD_OUT_PERCENT = 10
ALL = "all"  # of images without split folders, as tfds calls it
BESIDE_CLASSES, BESIDE_SPLITS = "images in no class folder", "folders beside the split folders"


class FolderSource(Source):
    """Image files in one folder per class, at any depth in it; classes are the folder names, sorted.

    With split folders (`path/train/cat/1.jpg`, `path/test/cat/2.jpg`) each split is what is in its folder; `Train`,
    `training` and the like are found as `train`, `val`, `valid` and `validation` as each other (see `SPLIT_NAMES`).
    Without (`path/cat/1.jpg`), about a tenth of the images is held out as `test`: those whose relative name
    has a checksum (CRC-32) divisible by ten. Adding images moves none from one split to the other. `all` is both.

    Args:
      path: the folder.
      split: name of the split folder; `train`, `test` or `all` where there are none.
      reference: the split that must have the classes of this one, if it exists.

    Attributes:
      folder: that holds the class folders.
      files: of the records, relative to `folder`.

    Raises:
      DataError: the folder is missing or empty, has no such split or two of them, has a class without images, or has
        one that `reference` has not.
    """

    def __init__(self, path: str | os.PathLike[str], split: str, reference: str = "train"):
        root = Path(expanded(path))
        if not str(path) or not os.path.isdir(root):
            raise DataError(
                f"data.path is {str(path)!r}, which is not a folder; give one with a folder per class."
            )
        if not entries(root):
            raise DataError(f"data.path {root} is empty; put one folder of images per class in it.")
        splits = _split_folders(root, {split, reference})
        chosen = _chosen(root, splits, split)
        if splits and chosen is None:
            raise DataError(
                f"{root} has no split {split!r}; it has {', '.join(splits)}: set data.train_split and "
                f"data.eval_split.{nearest(split, splits)}"
            )
        self.folder = root if chosen is None else root / chosen
        self.class_names = tuple(subfolders(self.folder))
        for name in self.class_names:
            if not is_printable(name):
                raise DataError(
                    f"class folder {name!r} in {self.folder} has a name that cannot be printed on one line; "
                    "rename it."
                )
        if not self.class_names:
            raise DataError(
                f"{self.folder} has no class folders; put the images of each class in its own folder or, if this "
                f"folder is a class, give the one above, {str(root.absolute().parent)!r}."
            )
        reference_folder = _chosen(root, splits, reference)
        if reference_folder is not None:
            _check_known_classes(self.folder, self.class_names, root / reference_folder)
        left_out = Counter({BESIDE_CLASSES: _images_in(self.folder)})
        left_out[BESIDE_SPLITS] = len(set(subfolders(root)).difference(splits)) if splits else 0
        found = [_images(self.folder, name) for name in self.class_names]
        self.left_out = together([left_out, *(part for _, part in found)])
        files = [names for names, _ in found]
        if not splits:
            choose(split, ("train", "test", ALL), f"{root} has no split folders, so the split")
            files = [held_out(names, split) for names in files]
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

    def fingerprint(self) -> str:
        """Return a checksum of names, sizes and labels of the files, which are not listed again for it."""
        return digest("\0".join(self.files), file_sizes(self.folder, self.files), self.labels)

    def _check_held_out(self, files: list[list[str]], split: str) -> None:
        remedy = (
            "add images, make split folders yourself (train/<class>/..., test/<class>/...), or, to evaluate on "
            f"all of them, set data.eval_split={ALL}."
        )
        if not any(files):
            raise DataError(f"{self.folder} has too few images to hold out any for {split!r}; {remedy}")
        for name, names in zip(self.class_names, files):
            if split == "train" and not names:
                raise DataError(
                    f"all images of class {name!r} in {self.folder} are held out for testing; {remedy}"
                )


def open_section(section: Any, split: str, shape: Any) -> FolderSource:
    """Return what `data.source='folder'` means; the classes are those of training."""
    return FolderSource(section.path, split, reference=parse_split(section.train_split)[0].name)


def folder_splits(root: str | os.PathLike[str]) -> list[str]:
    """Return the splits of a folder: its split folders, or `train` and `test` where there are none."""
    return split_folders(root) or ["train", "test"]


def split_folders(root: str | os.PathLike[str]) -> list[str]:
    """Return the split folders of a folder, none where there are class folders instead."""
    return _split_folders(Path(expanded(root)), set())


def classed_images(root: str | os.PathLike[str]) -> tuple[list[str], list[str] | None, Counter[str]]:
    """Return all images of a folder, their classes, and what was left out.

    Returns:
      Paths; of each the name of the class folder that it lies in, in `root` or in a split folder of it, None instead of
      these if one lies in none; and how many files of each kind are no images.

    Raises:
      DataError: a folder may not be read.
    """
    files, left_out = image_files(expanded(root))
    splits = {(name,) for name in _split_folders(Path(expanded(root)), set())}
    parts = [Path(file).parent.parts for file in files]
    inside = [folders[1:] if folders[:1] in splits else folders for folders in parts]
    classes = [folders[0] for folders in inside] if all(inside) else None
    return [os.path.join(root, file) for file in files], classes, left_out


def _split_folders(root: Path, asked: set[str]) -> list[str]:
    """Return the split folders of `root`: those with a name of a split and folders inside."""
    known = {*(name for names in SPLIT_NAMES for name in names), *(name.lower() for name in asked)}
    return [name for name in subfolders(root) if name.lower() in known and subfolders(root / name)]


def _chosen(root: Path, splits: list[str], split: str) -> str | None:
    """Return the folder of a split; None if there is none.

    Raises:
      DataError: there are two.
    """
    lower = split.lower()
    meant = next((names for names in SPLIT_NAMES if lower in names), (lower,))
    found = [name for name in splits if name.lower() in meant]
    if len({os.path.realpath(root / name) for name in found}) > 1:
        raise DataError(
            f"{root} has {' and '.join(found)}, which both mean the split {split!r}; merge them, or rename or "
            "remove one."
        )
    return found[0] if found else None


def _images_in(folder: Path) -> int:
    """Return how many images lie in a folder itself."""
    names = [entry.name for entry in entries(folder) if not is_folder(entry)]
    return sum(name.lower().endswith(EXTENSIONS) and not name.startswith(".") for name in names)


def _images(folder: Path, class_name: str) -> tuple[list[str], Counter[str]]:
    """Return the image files of a class, relative to `folder`, and how many of each kind are none."""
    found, left_out = image_files(folder / class_name)
    if not found:
        there = f" ({left_out_text(left_out)})" if left_out else ""
        raise DataError(
            f"class folder {folder / class_name} has no images ({', '.join(EXTENSIONS)}){there}; add some or "
            "remove it."
        )
    _check_no_split(folder, class_name, found)
    return [f"{class_name}/{name}" for name in found], left_out


def _check_no_split(folder: Path, class_name: str, files: list[str]) -> None:
    """Raise `DataError` if a folder of folders, such as `train_set`, is called like a split and not like a class."""
    words = set(re.split(r"[^a-z]+", class_name.lower()))
    meant = [names[0] for names in SPLIT_NAMES if words.intersection(names)]
    if meant and all("/" in name for name in files):
        raise DataError(
            f"{folder / class_name} has folders but no images, so it looks like a split rather than a class; rename "
            f"it to {meant[0]!r}, or set data.train_split and data.eval_split to the names of splits; a class needs "
            "another name."
        )


def held_out(names: list[str], split: str) -> list[str]:
    """Return the names of files that are in `train`, `test` or `all`, where nobody says which are."""
    if split == ALL:
        return names
    period = 100 // HELD_OUT_PERCENT
    return [name for name in names if (zlib.crc32(os.fsencode(name)) % period == 0) == (split == "test")]


def _check_known_classes(folder: Path, class_names: tuple[str, ...], reference: Path) -> None:
    names = set(class_names) - set(subfolders(reference))
    if names:
        raise DataError(
            f"class {min(names)!r} is in {folder} but not in {reference} ({len(names)} such classes); a split may have "
            "no class folders beyond those."
        )
