"""Sources whose images are in memory: given arrays, an npz file."""

import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.data.base import Example, Source
from vit_jax.data.fields import several
from vit_jax.data.fields.arrayed import Arrayed
from vit_jax.data.fields.given import FURTHER
from vit_jax.data.fields.targeted import Targeted
from vit_jax.data.fingerprint import array_digest, digest
from vit_jax.errors import DataError, is_printable
from vit_jax.paths import expanded, open_file

# What numpy and zipfile raise on damaged files, found by mutating valid ones.
_UNREADABLE = (
    SystemError,  # of texts with characters that there are not
    *(
        OSError,
        ValueError,
        EOFError,
        TypeError,
        LookupError,
        SyntaxError,
        RuntimeError,
        OverflowError,
        MemoryError,
    ),
    *(tokenize.TokenError, zipfile.BadZipFile, zlib.error, struct.error),
)
# What an array may unpack to: this much in any case, and of images no more than this for each byte of the file.
_FREE_BYTES = 2**26
_MOST_COMPRESSED = 100


class ArraySource(Source):
    """Images and labels given as arrays; checked here, so that no batch can fail later.

    Args:
      images: uint8 or float32 `(n, h, w, c)` or `(n, h, w)` with values from 0 to 255.
      labels: integers `(n,)`; None for images alone.
      class_names: one per label; numbers by default.
      num_classes: by default as many as there are names, or one more than the largest label.
      name: what messages call it.

    Raises:
      DataError: shapes, types or values do not fit; the record and the value are named.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: Sequence[int] | np.ndarray | None,
        class_names: Sequence[str] | np.ndarray | None = None,
        num_classes: int | None = None,
        name: str = "the arrays",
    ):
        images = np.asarray(images)
        self._name = name
        self._images = _checked_images(images[..., None] if images.ndim == 3 else images, name)
        height, width, channels = self._images.shape[1:]
        self.image_shape = (height, width, channels)
        if labels is None:
            self.fields = ("image",)
            return
        labels = np.asarray(labels)
        if len(labels.shape) != 1 or len(labels) != len(images):
            raise DataError(
                f"labels of {name} have shape {labels.shape}; it must be ({len(images)},), one per image."
            )
        if labels.dtype.kind == "f" and not np.isfinite(labels).all():
            record = int(np.flatnonzero(~np.isfinite(labels))[0])
            raise DataError(
                f"record {record} of {name} has label {labels[record]}; give it a class or leave it out."
            )
        if not np.issubdtype(labels.dtype, np.integer):
            raise DataError(
                f"labels of {name} have type {labels.dtype} (record 0: {labels[0]!r}); they must be integers "
                "from 0; convert them with np.unique(labels, return_inverse=True)."
            )
        if (
            class_names is not None
            and not isinstance(class_names, list | tuple)
            and np.ndim(class_names) != 1
        ):
            raise DataError(f"class names of {name} must be a sequence, one per class.")
        if num_classes is None:
            num_classes = int(labels.max()) + 1 if class_names is None else len(class_names)
        if class_names is not None and len(class_names) != num_classes:
            raise DataError(
                f"{name} has {len(class_names)} class names for {num_classes} classes; the numbers must be equal."
            )
        bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
        if len(bad):
            raise DataError(label_message(f"record {bad[0]} of {name}", labels[bad[0]], num_classes))
        self.labels = labels.astype(np.int32)
        self.named = class_names is not None
        self.class_names = tuple(map(str, range(num_classes) if class_names is None else class_names))
        for text in self.class_names:
            if not is_printable(text):
                raise DataError(
                    f"{name} has a class {text!r}, which cannot be printed on one line; rename it."
                )

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        label = {} if self.labels is None else {"label": int(self.labels[index])}
        return {"image": self._images[index], **label, "record": self.name_of(index)}

    def name_of(self, index: int) -> str:
        """Return the number of an image."""
        return f"record {index} of {self._name}"

    def take(self, indices: np.ndarray) -> Example:
        """Return several records stacked."""
        label = {} if self.labels is None else {"label": self.labels[indices]}
        return {"image": self._images[indices], **label}

    def fingerprint(self) -> str:
        """Return a checksum of images and labels."""
        return digest(array_digest(self._images), self.labels)


def open_section(section: Any, split: str, shape: Any) -> Source:
    """Return what `data.source='arrays'` means."""
    return open_npz(section.path, split)


def open_npz(path: str, split: str) -> Source:
    """Return the arrays `images`, `labels` and, if there, `class_names` of the file `path/split.npz`.

    Labels `(n, c)` of 0 and 1 are several of an image. Instead of labels there may be `values` `(n,)` or `(n, k)` and,
    if there, their `value_names`; or, with labels `(n,)` or without, further fields by their names, a row for each
    image: `segmentation` `(n, h, w)`, `boxes` `(n, g, 4)` and `classes` `(n, g)` for example, see `data.fields`.

    Raises:
      DataError: the file is missing, is not npz, or lacks an array.
    """
    file = Path(expanded(path)) / f"{split}.npz"
    if not os.path.isfile(file):
        raise DataError(
            f"{file} does not exist; data.source 'arrays' reads `images` and `labels` from "
            "<data.path>/<split>.npz."
        )
    try:
        with open_file(file) as stream, np.load(stream, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile) or archive.zip is None:
                raise ValueError("it is a single array")
            _check_sizes(archive.zip)
            further = {field: archive[field] for field in FURTHER if field in archive}
            of_values = "values" in archive and "labels" not in archive and not further
            missing = [
                key
                for key in ("images", "labels")
                if key not in archive and not ((of_values or further) and key == "labels")
            ]
            if missing:
                raise DataError(
                    f"{file} has no array {missing[0]!r}, it has {', '.join(archive) or 'none'}; save it "
                    "with np.savez(file, images=..., labels=...)."
                )
            images, names = archive["images"], archive.get("value_names" if of_values else "class_names")
            if further:
                source = ArraySource(images, archive.get("labels"), names, name=str(file))
                return Arrayed(source, further, names, str(file))
            if of_values:
                found = several.values(archive["values"], names, str(file))
                return Targeted(ArraySource(images, None, name=str(file)), "value", found, str(file))
            labels = archive["labels"]
            if labels.ndim == 2:
                found = several.hot(labels, names, str(file))
                return Targeted(ArraySource(images, None, name=str(file)), "labels", found, str(file))
            return ArraySource(images, labels, names, name=str(file))
    except _UNREADABLE as error:
        why = str(error).partition("\n")[0][:200] or type(error).__name__
        raise DataError(f"{file} cannot be read as npz ({why}); save it again with np.savez.") from error


def _check_sizes(archive: zipfile.ZipFile) -> None:
    """Raise ValueError for arrays that would take more memory than what is stored of them can become."""
    for member in archive.infolist():
        if member.file_size > _FREE_BYTES + _MOST_COMPRESSED * member.compress_size:
            raise ValueError(
                f"{member.filename!r} unpacks to {member.file_size} bytes from {member.compress_size}"
            )
        with archive.open(member) as stream:
            version = np.lib.format.read_magic(stream)
            read_header = (
                np.lib.format.read_array_header_1_0
                if version == (1, 0)
                else np.lib.format.read_array_header_2_0
            )
            shape, _, dtype = read_header(stream)
        if math.prod(shape) * dtype.itemsize > member.file_size:
            raise ValueError(f"{member.filename!r} has fewer bytes than an array of its shape")


def label_message(record: str, label: object, num_classes: int) -> str:
    """Return what to say of a label out of range."""
    return f"{record} has label {label}; labels must be from 0 to {num_classes - 1} ({num_classes} classes)."


def _checked_images(images: np.ndarray, name: str) -> np.ndarray:
    if images.ndim != 4 or 0 in images.shape:
        raise DataError(
            f"images of {name} have shape {images.shape}; it must be (n, h, w, c) or (n, h, w), none of them "
            "zero."
        )
    if images.dtype == np.uint8:
        return images
    if images.dtype not in (np.float32, np.float64):
        raise DataError(
            f"images of {name} have type {images.dtype}; it must be uint8, or float32 with values from 0 to "
            "255."
        )
    bad = np.flatnonzero(~((images >= 0) & (images <= 255)).all((1, 2, 3)))
    if len(bad):
        values = images[bad[0]].reshape(-1)
        value = values[~((values >= 0) & (values <= 255))][0]
        raise DataError(f"record {bad[0]} of {name} has the value {value}; values must be from 0 to 255.")
    if images.max() <= 1:
        raise DataError(
            f"float images of {name} have values from {images.min():g} to {images.max():g}; they must be "
            "from 0 to 255: multiply by 255."
        )
    return images.astype(np.float32)
