"""Which files of a folder are images: one rule for training, checking, preparing and features.

Folders are searched at every depth, as torchvision's `ImageFolder` and timm do, links to folders included, each folder
once. What is hidden, or has another ending, is left out and counted, so that nothing is left out without a word.
"""

import os
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

from vit_jax.errors import DataError, printable
from vit_jax.paths import Named

EXTENSIONS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff")
HIDDEN_FILES, HIDDEN_FOLDERS = "hidden files", "hidden folders"
LINKED = "links to folders that are there already"
NO_EXTENSION = "files without an extension"
# So many kinds are named in a line.
_NAMED = 6


class ImageFiles(NamedTuple):
    """The images of a folder.

    Attributes:
      files: paths relative to the folder: those directly in it in order of name, then those of each folder in it.
      left_out: how many of each kind are not among them; the kinds are extensions, and the constants of this module.
    """

    files: list[str]
    left_out: Counter[str]


def image_files(folder: Named) -> ImageFiles:
    """Return the images of a folder at every depth, and what else there is.

    Raises:
      DataError: a folder may not be read, or has the name of an image and holds none.
    """
    # A link to a folder around this one would have no end.
    around = Path(os.path.realpath(folder))
    seen = {_identity(path) for path in (around, *around.parents)}
    found, left_out = [], Counter()
    waiting, like_images = [""], []
    while waiting:
        inner = waiting.pop()
        names, folders = [], []
        for entry in entries(os.path.join(folder, inner)):
            if is_folder(entry):
                if entry.name.startswith("."):
                    left_out[HIDDEN_FOLDERS] += 1
                else:
                    folders.append(entry)
            elif kind := _left_out(entry.name):
                left_out[kind] += 1
            else:
                names.append(entry.name)
        found += [os.path.join(inner, name) for name in sorted(names)]
        new = []
        # Links last: where a folder is there by itself too, it has that name.
        for entry in sorted(folders, key=lambda entry: (entry.is_symlink(), entry.name)):
            identity = _identity(entry.path)
            if identity in seen:
                left_out[LINKED] += 1
            else:
                seen.add(identity)
                new.append(os.path.join(inner, entry.name))
        like_images += [path for path in new if path.lower().endswith(EXTENSIONS)]
        waiting += sorted(new, reverse=True)
    for path in like_images:
        if not any(file.startswith(path + os.sep) for file in found):
            raise DataError(
                f"{os.path.join(folder, path)} is a folder named like an image, and holds no images; remove it."
            )
    return ImageFiles(found, left_out)


def subfolders(folder: Named) -> list[str]:
    """Return the sorted names of the folders in a folder that are not hidden."""
    return sorted(
        entry.name for entry in entries(folder) if not entry.name.startswith(".") and is_folder(entry)
    )


def entries(folder: Named) -> list[os.DirEntry[str]]:
    """Return what is in a folder.

    Raises:
      DataError: it may not be read.
    """
    try:
        with os.scandir(os.fspath(folder)) as found:
            return list(found)
    except OSError as error:
        raise DataError(
            f"folder {os.fspath(folder)} cannot be read: {error.strerror}; check its permissions."
        ) from error


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Return whether something in a folder is a folder, or a link to one."""
    try:
        return entry.is_dir()
    except OSError:  # a link to itself, for example: no folder
        return False


def left_out_text(left_out: Mapping[str, int]) -> str:
    """Return `left out: .txt 12, hidden files 2`, the most frequent first; empty if nothing was left out."""
    if not left_out:
        return ""
    ordered = sorted(left_out.items(), key=lambda item: (-item[1], item[0]))
    parts = [f"{printable(kind)} {count:,}" for kind, count in ordered[:_NAMED]]
    rest = sum(count for _, count in ordered[_NAMED:])
    return "left out: " + ", ".join([*parts, *[f"others {rest:,}"] * bool(rest)])


def together(parts: Iterable[Mapping[str, int]]) -> Counter[str]:
    """Return the sums of several counts, without zeros."""
    total: Counter[str] = Counter()
    for part in parts:
        total.update(part)
    return +total


def _left_out(name: str) -> str:
    """Return why a file is left out; empty if it is an image."""
    if name.startswith("."):
        return HIDDEN_FILES
    lower = name.lower()
    if lower.endswith(EXTENSIONS):
        return ""
    return os.path.splitext(lower)[1] or NO_EXTENSION


def _identity(path: Named) -> tuple[int, int] | str:
    """Return what tells a folder from all others, under any name."""
    try:
        status = os.stat(path)
    except OSError:  # told when it is read
        return os.fspath(path)
    return status.st_dev, status.st_ino
