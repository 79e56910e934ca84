"""Targets of a whole image: a class, several classes, values."""

from typing import TYPE_CHECKING, Any

import numpy as np

from vit_jax.data.fields.kind import Kind, integers, numbers
from vit_jax.errors import DataError

if TYPE_CHECKING:
    from vit_jax.data.base import Source


_OF_CLASSES = frozenset(("label", "labels", "segmentation", "classes"))


def _label(value: Any, source: "Source") -> np.ndarray:
    label = integers(value, "label", (), "()")
    if not 0 <= label < source.num_classes:
        raise DataError(
            f"label is {label}; labels must be from 0 to {source.num_classes - 1} ({source.num_classes} classes)."
        )
    return label


def _labels(value: Any, source: "Source") -> np.ndarray:
    """Return which classes an image has; -1, as some write it, is unknown too."""
    count = source.num_classes
    labels = numbers(value, "labels", (count,), f"({count},), one for each class")
    known = ~np.isnan(labels) & (labels != -1)
    bad = labels[known & (labels != 0) & (labels != 1)]
    if len(bad):
        raise DataError(f"labels has the value {bad[0]:g}; it must be 0, 1, or NaN where that is unknown.")
    if not known.any():
        raise DataError("labels are all unknown; leave the record out.")
    labels[~known] = np.nan
    return labels


def _value(value: Any, source: "Source") -> np.ndarray:
    """Return the values of an image; NaN is unknown."""
    count = (source.num_classes if names_values(source) else 0) or None
    values = numbers(np.atleast_1d(value), "value", (count,), f"({count or 'k'},)")
    if np.isinf(values).any() or np.isnan(values).all():
        said = values[0] if len(values) == 1 else values.tolist()
        raise DataError(f"value is {said}; give a number, or leave the record out.")
    return values


def names_values(source: "Source") -> bool:
    """Return whether the names of a source are those of its values: where nothing else that it has is of classes."""
    return not _OF_CLASSES.intersection(source.fields)


def _id(value: Any, source: "Source") -> np.ndarray:
    return integers(value, "id", (), "()")


def _other_label(value: Any, number: np.ndarray, count: int) -> int:
    return int(number[value])


def _among_others(value: np.ndarray, number: np.ndarray, count: int) -> np.ndarray:
    """Return labels or values among more of them; those that a source does not have are unknown."""
    targets = np.full(count, np.nan, np.float32)
    targets[number] = value
    return targets


LABEL = Kind(_label, renumbered=_other_label)
LABELS = Kind(_labels, "float32", renumbered=_among_others)
VALUE = Kind(_value, "float32", renumbered=_among_others)
ID = Kind(_id, "int32")
