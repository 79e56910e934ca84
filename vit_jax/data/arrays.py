"""Sources whose images are in memory: given arrays, an npz file, noise."""

import math
import os
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from vit_jax.data.base import Example, Source
from vit_jax.errors import ConfigError, DataError, is_printable
from vit_jax.paths import open_file

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
      labels: integers `(n,)`.
      class_names: one per label; numbers by default.
      num_classes: by default as many as there are names, or one more than the largest label.
      name: what messages call it.

    Raises:
      DataError: shapes, types or values do not fit; the record and the value are named.
    """

    def __init__(
        self,
        images: np.ndarray,
        labels: Sequence[int] | np.ndarray,
        class_names: Sequence[str] | np.ndarray | None = None,
        num_classes: int | None = None,
        name: str = "the arrays",
    ):
        images, labels = np.asarray(images), np.asarray(labels)
        self._name = name
        self._images = _checked_images(images[..., None] if images.ndim == 3 else images, name)
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
            raise DataError(f"class names of {name} must be a sequence, one for each class.")
        if num_classes is None:
            num_classes = int(labels.max()) + 1 if class_names is None else len(class_names)
        if class_names is not None and len(class_names) != num_classes:
            raise DataError(
                f"{name} has {len(class_names)} class names for {num_classes} classes; there must be as many."
            )
        bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
        if len(bad):
            raise DataError(label_message(f"record {bad[0]} of {name}", labels[bad[0]], num_classes))
        self.labels = labels.astype(np.int32)
        self.class_names = tuple(map(str, range(num_classes) if class_names is None else class_names))
        for text in self.class_names:
            if not is_printable(text):
                raise DataError(
                    f"{name} has a class {text!r}, which cannot be printed on one line; rename it."
                )
        height, width, channels = self._images.shape[1:]
        self.image_shape = (height, width, channels)

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        assert self.labels is not None
        return {
            "image": self._images[index],
            "label": int(self.labels[index]),
            "record": f"record {index} of {self._name}",
        }

    def take(self, indices: np.ndarray) -> Example:
        """Return several records stacked."""
        assert self.labels is not None
        return {"image": self._images[indices], "label": self.labels[indices]}


class SyntheticSource(Source):
    """Noise of any size, a pure function of the index and the seed; costs no more than a copy.

    Args:
      size: number of records.
      image_shape: `(h, w, c)`.
      num_classes: record `i` has label `i % num_classes`.
      seed: of the noise.
    """

    # Windows into one buffer of noise: this many different images for the memory of one.
    _WINDOWS = 4096

    def __init__(self, size: int, image_shape: tuple[int, int, int], num_classes: int, seed: int = 0):
        if size < 1:
            raise ConfigError(f"data.size is {size}; the synthetic source needs at least 1 record.")
        self._size = size
        self.image_shape = image_shape
        self.class_names = tuple(str(label) for label in range(num_classes))
        self.labels = (np.arange(size) % num_classes).astype(np.int32)
        noise = np.random.default_rng(seed).bytes(int(np.prod(image_shape)) + self._WINDOWS)
        self._noise = np.frombuffer(noise, np.uint8)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Example:
        stacked = self.take(np.array([index]))
        return {
            "image": stacked["image"][0],
            "label": int(stacked["label"][0]),
            "record": f"record {index} of the synthetic source",
        }

    def take(self, indices: np.ndarray) -> Example:
        """Return several records stacked."""
        assert self.labels is not None
        assert self.image_shape is not None
        windows = np.lib.stride_tricks.sliding_window_view(self._noise, int(np.prod(self.image_shape)))
        images = windows[indices % self._WINDOWS].reshape(-1, *self.image_shape)
        return {"image": images, "label": self.labels[indices]}


def open_npz(path: str, split: str) -> ArraySource:
    """Return the arrays `images`, `labels` and, if there, `class_names` of the file `path/split.npz`.

    Raises:
      DataError: the file is missing, is not npz, or lacks an array.
    """
    file = Path(path) / f"{split}.npz"
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
            missing = [key for key in ("images", "labels") if key not in archive]
            if missing:
                raise DataError(
                    f"{file} has no array {missing[0]!r}, it has {', '.join(archive) or 'none'}; save it "
                    "with np.savez(file, images=..., labels=...)."
                )
            names = archive.get("class_names")
            return ArraySource(archive["images"], archive["labels"], names, name=str(file))
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
