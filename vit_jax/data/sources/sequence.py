"""Records that a program has itself: any sequence of images with labels or values."""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from vit_jax.data import fingerprint
from vit_jax.data.base import Example, Source
from vit_jax.data.fields import several
from vit_jax.data.fields.given import classes_in, fields_in, given_field
from vit_jax.data.fields.targeted import Targeted
from vit_jax.data.fingerprint import digest
from vit_jax.data.images.decode import from_pillow, read_bytes
from vit_jax.data.labels import Numbered, checked_names, index_of, numbered, plain, unknown
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.data.sources.files import FileSource
from vit_jax.errors import DataError, nearest

_TAKEN = "a uint8 array (h, w) or (h, w, c), an image of Pillow's, the bytes of an image file, or a path"


class SequenceSource(Source):
    """Records of anything with `len()` and `[index]`, as PyTorch's map-style datasets are.

    It is asked from several threads at once, and with `data.num_workers` pickled and asked in several processes.

    Args:
      records: of each index from 0 a pair `(image, label)`, or a dict with both; an image is a uint8 array `(h, w)` or
        `(h, w, c)`, an image of Pillow's, the bytes of an image file, or a path; a label a whole number from 0 or
        the name of a class.
      class_names: in order of label; by default those there are, for which all records are read once.
      keys: of image and label, where records are dicts; an empty key of labels reads images alone.
      further: fields that each record, a dict, has beside an image; instead of a label.
      read_labels: whether all records are read once although class names are given: so wrong labels are told at once.
      name: what messages call it.

    Raises:
      DataError: records are not like that.
    """

    def __init__(
        self,
        records: Any,
        class_names: Iterable[Any] | None = None,
        *,
        keys: tuple[str, str] = ("image", "label"),
        further: Sequence[str] = (),
        read_labels: bool = False,
        name: str = "the records",
    ):
        if (
            not hasattr(records, "__len__")
            or not hasattr(records, "__getitem__")
            or isinstance(records, str | Mapping)
        ):
            raise DataError(
                f"{name} are of type {type(records).__name__}; they must be a sequence, with len() and [index], of "
                "pairs of image and label."
            )
        if not len(records):
            raise DataError(f"{name} are empty; give at least one image with its label.")
        self._records, self._keys, self._name = records, keys, name
        self._further = tuple(further)
        if further:
            self.fields = ("image", *further)
            every = tqdm(range(len(records)), "classes", unit="record", disable=None, leave=False)
            found = classes_in(self[index] for index in every) if class_names is None else class_names
            self.class_names, self.named = checked_names(found, name), class_names is not None
        elif not keys[1]:
            self.fields = ("image",)
        elif class_names is None or read_labels:
            every = tqdm(range(len(records)), "labels", unit="record", disable=None, leave=False)
            found = numbered((self._pair(index)[1] for index in every), class_names, name)
            self.labels, self.class_names, self.named = found
        else:
            self.class_names = checked_names(class_names, name)
            self.named = self.class_names != tuple(map(str, range(len(self.class_names))))
        self._number = index_of(self.class_names)

    def __len__(self) -> int:
        return len(self._records)

    def __getitem__(self, index: int) -> Example:
        record = self.name_of(index)
        if self._further:
            given = self.read(index)
            for field in self.fields:
                if not isinstance(given, Mapping) or field not in given:
                    raise DataError(
                        f"{record} has no {field!r}, but record 0 has one; give every record one."
                    )
            rest = {field: given_field(field, given[field], record) for field in self._further}
            return {"image": as_image(given["image"], record), **rest, "record": record}
        if not self._keys[1]:
            return {"image": as_image(self.read(index)[self._keys[0]], record), "record": record}
        image, label = self._pair(index)
        return {"image": as_image(image, record), "label": self._label(label, record), "record": record}

    def name_of(self, index: int) -> str:
        """Return the number of a record."""
        return f"record {index} of {self._name}"

    def read(self, index: int) -> Any:
        """Return a record as the sequence has it.

        Raises:
          DataError: it has not.
        """
        try:
            return self._records[index]
        except OSError as error:  # a file that the sequence reads
            raise DataError(f"{self.name_of(index)} cannot be read: {error}.") from error
        except IndexError as error:
            raise DataError(
                f"{self.name_of(index)} does not exist ({error}), but their len() is {len(self)}; it must be the "
                "number of records, which are indexed from 0."
            ) from error
        except Exception as error:  # of code that is not ours
            raise DataError(f"{self.name_of(index)} raised {type(error).__name__}: {error}.") from error

    def _pair(self, index: int) -> tuple[Any, Any]:
        record = self.read(index)
        if isinstance(record, Mapping):
            for key in self._keys:
                if key not in record:
                    raise DataError(
                        f"{self.name_of(index)} has no {key!r}, it has {', '.join(map(str, record))}; name those "
                        f"of image and label with keys=.{nearest(key, map(str, record))}"
                    )
            return record[self._keys[0]], record[self._keys[1]]
        if not isinstance(record, tuple | list) or len(record) != 2:
            raise DataError(
                f"{self.name_of(index)} is {_described(record)}; it must be a pair of image and label, or a dict "
                f"with {self._keys[0]!r} and {self._keys[1]!r}."
            )
        return record[0], record[1]

    def _label(self, label: Any, record: str) -> int:
        label = plain(label)
        if isinstance(label, str):
            if label not in self._number:
                raise DataError(f"{record} has label {label!r}, which is {unknown(label, self.class_names)}")
            return self._number[label]
        if type(label) is not int:
            raise DataError(
                f"{record} has label {label!r}; it must be a whole number from 0 or the name of a class."
            )
        return label


class PictureList(Source):
    """Images in memory that differ in size or kind, with their labels.

    Args:
      images: what `as_image` takes.
      numbered: their labels; None for images alone.
      name: what messages call them.

    Raises:
      DataError: there is not a label for each, or the first is not an image.
    """

    def __init__(self, images: list[Any], numbered: Numbered | None, name: str = "the images"):
        if numbered is None:
            self.fields = ("image",)
        else:
            self.labels, self.class_names, self.named = numbered
        self._images, self._name = images, name
        if self.labels is not None and len(images) != len(self.labels):
            raise DataError(
                f"{name} are {len(images)}, but there are {len(self.labels)} labels; give one per image."
            )
        for index, image in enumerate(images):
            if not isinstance(
                image, bytes | str | os.PathLike | Image.Image
            ):  # these are read when they are needed
                as_image(image, self.name_of(index))

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> Example:
        record = self.name_of(index)
        label = {} if self.labels is None else {"label": int(self.labels[index])}
        return {"image": as_image(self._images[index], record), **label, "record": record}

    def name_of(self, index: int) -> str:
        """Return the number of an image."""
        return f"record {index} of {self._name}"

    def fingerprint(self) -> str:
        """Return a checksum of all images up to `WHOLE` bytes, beyond of so many evenly spaced, and of the labels."""
        sizes = [_bytes(image) for image in self._images]
        every = max(1, -(-sum(sizes) // fingerprint.WHOLE))
        seen = (as_image(image, self._name) for image in [*self._images[::every], self._images[-1]])
        return digest(sizes, self.labels, *seen)


def as_source(
    images: Any, labels: Any = None, class_names: Iterable[Any] | None = None, *, name: str = "the images"
) -> Source:
    """Return what somebody has as a source of records.

    Args:
      images: with `labels`, an array `(n, h, w, c)` or `(n, h, w)`, or a sequence of arrays, images of Pillow's, bytes
        of image files, or paths; without, a sequence of pairs, see `SequenceSource`, of dicts with `image` and `labels`
        (several, see `data.fields.several`), `value` (one number or several) or any other fields (see
        `data.fields`; a segmentation may also be a file), a dataset of Hugging Face's, or a source.
      labels: whole numbers from 0, or names of classes, `(n,)`: an array, a list, a column of pandas. Or several of
        each image: an array `(n, c)` of 0 and 1, or a list of lists of names or numbers.
      class_names: in order of label; by default those there are, sorted, or the numbers up to the largest.
      name: what messages call them.

    Raises:
      DataError: they are nothing like that; the record and the value are named.
    """
    if isinstance(images, Source):
        if labels is not None or class_names is not None:
            raise DataError(
                f"{name} are a source, which has its own labels and class names; leave these out."
            )
        return images
    if labels is None and type(images).__module__.partition(".")[0] == "datasets":
        # Here because few have the library.
        from vit_jax.data.sources.huggingface import as_dataset

        return as_dataset(images, class_names=class_names, name=name)
    if labels is None:
        return _of_records(images, class_names, name)
    if getattr(labels, "ndim", 1) == 2 or (isinstance(labels, list | tuple) and _all_lists(labels)):
        return Targeted(
            _images(images, None, name), "labels", several.of_records(labels, class_names, name), name
        )
    return _images(images, numbered(labels, class_names, name), name)


def _all_lists(labels: Any) -> bool:
    return all(isinstance(row, list | tuple | set) or getattr(row, "ndim", 0) == 1 for row in labels)


def _of_records(records: Any, class_names: Iterable[Any] | None, name: str) -> Source:
    """Return a sequence of records as a source, with what the first of them says that there is."""
    listed = all(hasattr(records, name) for name in ("__len__", "__getitem__"))
    if not listed or isinstance(records, str | Mapping) or not len(records):
        return SequenceSource(records, class_names, read_labels=True, name=name)  # which raises
    images = SequenceSource(records, keys=("image", ""), name=name)
    first = images.read(0)
    if further := fields_in(first, images.name_of(0)):
        return SequenceSource(records, class_names, further=further, name=name)
    field = next(
        (field for field in ("labels", "value") if isinstance(first, Mapping) and field in first), ""
    )
    if not field or "label" in first:
        return SequenceSource(records, class_names, read_labels=True, name=name)
    found = []
    for index in tqdm(range(len(images)), field, unit="record", disable=None, leave=False):
        record = images.read(index)
        for key in ("image", field):
            if not isinstance(record, Mapping) or key not in record:
                raise DataError(
                    f"{images.name_of(index)} has no {key!r}, but record 0 has one; give every record one."
                )
        if field == "value" and np.asarray(record[field]).dtype.kind not in "biuf":
            raise DataError(
                f"{images.name_of(index)} has value {record[field]!r:.60}; it must be one or several numbers."
            )
        found.append(record[field])
    if field == "labels":
        return Targeted(images, field, several.of_records(found, class_names, name, images.name_of), name)
    sizes = [np.shape(value) for value in found]
    if odd := next((index for index, size in enumerate(sizes) if size != sizes[0]), 0):
        raise DataError(f"{images.name_of(odd)} has values of shape {sizes[odd]}, and record 0 {sizes[0]}.")
    return Targeted(images, field, several.values(np.array(found), class_names, name), name)


def _images(images: Any, found: Numbered | None, name: str) -> Source:
    if (
        not isinstance(images, np.ndarray) and is_array(images) and len(images.shape) > 1
    ):  # PyTorch's or JAX's
        images = np.asarray(images)
    if not isinstance(images, np.ndarray) or images.dtype.kind in "OUS":
        images = _column(images, name)
        if images and all(isinstance(image, str | os.PathLike) for image in images):
            return FileSource(images, found, name=name)
        shapes = {np.shape(image) if isinstance(image, np.ndarray) else None for image in images}
        if len(shapes) > 1 or None in shapes or not images:
            return PictureList(images, found, name)
        images = np.stack(images)
    if found is None:
        return ArraySource(images, None, name=name)
    source = ArraySource(images, found.labels, found.class_names, name=name)
    source.named = found.named
    return source


def as_sources(given: Any) -> tuple[Source, Source]:
    """Return a pair of what `as_source` takes, to train on and to evaluate on, as sources of the same classes.

    Raises:
      DataError: it is not a pair, or one of both is not records.
    """
    if not isinstance(given, tuple | list) or len(given) != 2:
        raise DataError(
            f"sources is {_described(given)}; give a pair: training records and evaluation records."
        )
    train = as_source(given[0], name="the training records")
    if isinstance(given[1], Source):
        return train, given[1]
    return train, as_source(given[1], class_names=train.class_names, name="the evaluation records")


def as_image(image: Any, record: str) -> bytes | np.ndarray:
    """Return an image as a record has it: the bytes of a file, or an array `(h, w, c)`.

    Args:
      image: a uint8 array, or a float one with values from 0 to 255; an image of Pillow's; bytes; a path.
      record: what messages call it.

    Raises:
      DataError: it is something else, or cannot be read.
    """
    if isinstance(image, bytes):
        return image
    if isinstance(image, str | os.PathLike):
        return read_bytes(image)
    if isinstance(image, Image.Image):
        try:
            return from_pillow(image)
        except DataError as error:
            raise DataError(f"{record}: {error}") from error
    if not isinstance(image, np.ndarray) and is_array(image):  # PyTorch's or JAX's
        image = np.asarray(image)
    if not isinstance(image, np.ndarray):
        raise DataError(f"the image of {record} is {_described(image)}; it must be {_TAKEN}.")
    if image.ndim not in (2, 3) or 0 in image.shape:
        raise DataError(f"the image of {record} has shape {image.shape}; it must be (h, w) or (h, w, c).")
    image = image[..., None] if image.ndim == 2 else image
    if image.dtype != np.uint8 and image.any():  # black is black on any scale
        return ArraySource(image[None], [0], name=record)[0]["image"]  # the checks of floats
    return image


def _column(values: Any, name: str) -> list[Any]:
    """Return several values as a list: of an array, a list, an iterator, a column of pandas."""
    if isinstance(values, str | bytes | os.PathLike | Mapping) or not isinstance(values, Iterable):
        raise DataError(f"{name} got {_described(values)}; give a sequence, one value per image.")
    return values.tolist() if isinstance(values, np.ndarray) else list(values)


def _bytes(image: Any) -> int:
    if isinstance(image, Image.Image):
        return image.width * image.height
    return (
        image.nbytes
        if isinstance(image, np.ndarray)
        else len(os.fspath(image) if isinstance(image, os.PathLike) else image)
    )


def is_array(value: Any) -> bool:
    """Return whether a value is an array of any library, or a column of a table."""
    return all(hasattr(value, name) for name in ("__array__", "shape", "dtype"))


def _described(value: Any) -> str:
    shape = getattr(value, "shape", None)
    return type(value).__name__ + (f" of shape {tuple(shape)}" if shape is not None else "")
