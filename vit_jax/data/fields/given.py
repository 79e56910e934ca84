"""Fields of records that a program or a file of arrays has itself, as people write them."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from PIL import Image

from vit_jax.data.fields.kind import IGNORE
from vit_jax.data.fields.table import KINDS
from vit_jax.data.images.decode import read_bytes
from vit_jax.data.images.label_maps import decode_labels
from vit_jax.errors import DataError, nearest

# What is said with images in other ways, or made up by the reader.
_OTHERWISE = ("image", "label", "labels", "value", "id")
FURTHER = tuple(name for name in KINDS if name not in _OTHERWISE)


def fields_in(record: Any, name: str) -> tuple[str, ...]:
    """Return what a record has beside its image, if it is a dict with any field that lies in the plane or of objects.

    Args:
      record: the first of several.
      name: what messages call it.

    Raises:
      DataError: it has an entry that is no field, besides such.
    """
    if not isinstance(record, Mapping) or not set(FURTHER).intersection(record):
        return ()
    for key in record:
        if key not in KINDS or key == "id":
            allowed = [kind for kind in KINDS if kind != "id"]
            raise DataError(
                f"{name} has {key!r}, which is not a field; fields are {', '.join(allowed)}."
                f"{nearest(str(key), allowed)}"
            )
    return tuple(kind for kind in KINDS if kind in record and kind != "image")


def given_field(field: str, value: Any, record: str) -> Any:
    """Return a field of a record as sources have it.

    Args:
      field: its name.
      value: what is given; of a label map also the contents of its file, a path, or an image of Pillow's.
      record: what messages call the record.

    Raises:
      DataError: the file of a label map cannot be read.
    """
    if field != "segmentation":
        return value
    if isinstance(value, Image.Image):
        return np.asarray(value)
    try:
        if isinstance(value, str | os.PathLike):
            value = read_bytes(value)
        return decode_labels(value) if isinstance(value, bytes) else value
    except DataError as error:
        raise DataError(f"{record}: {error}") from error


def without_padding(example: Mapping[str, Any]) -> dict[str, Any]:
    """Return a record without the objects of class `IGNORE`, which only make arrays as long as the longest."""
    if "classes" not in example:
        return dict(example)
    kept = np.asarray(example["classes"]) != IGNORE
    objects = {name for name in example if name in KINDS and KINDS[name].of_objects}
    return {name: np.asarray(value)[kept] if name in objects else value for name, value in example.items()}


def classes_in(examples: Iterable[Mapping[str, Any]]) -> tuple[str, ...]:
    """Return numbers as the names of all classes up to the largest that records have; none if they have none."""
    most = -1
    for example in examples:
        for name in ("label", "segmentation", "classes"):
            values = np.asarray(example.get(name, ()))
            if values.size and values.dtype.kind in "iu":
                most = max(most, int(values.max()))
    return tuple(map(str, range(most + 1)))
