"""What is known of a field of a record by its name."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from vit_jax.errors import DataError

if TYPE_CHECKING:
    from vit_jax.data.base import Source

# Of label maps: pixels that belong to no class. Of the classes of objects: rows that are padding.
IGNORE = -1

Plane = Literal["filter", "nearest", "boxes", "points"]


@dataclass(frozen=True)
class Kind:
    """One kind of field.

    Attributes:
      read: returns what a record has as the array that transforms take, or raises `DataError` with a reason that does
        not name the record; called with the value and its source.
      dtype: in batches; None for what it is.
      plane: how it follows where pixels move: `filter` pixels, `nearest` values at pixel centres, `boxes`, `points`;
        None for what does not lie in the plane of the image.
      outside: what a pixel has that no pixel of the record moves to.
      of_objects: whether its rows are objects, those of the fields `boxes`, `masks` and `classes` together.
      padding: the value of rows that are added to have as many in every record.
      renumbered: returns a value whose classes have other numbers; called with the value, the number of each class,
        int `(c,)`, and how many classes there are then. None for what has no classes.
    """

    read: "Callable[[Any, Source], np.ndarray]"
    dtype: str | None = None
    plane: Plane | None = None
    outside: float = 0
    of_objects: bool = False
    padding: float = 0
    renumbered: Callable[[Any, np.ndarray, int], Any] | None = None


def numbers(value: Any, name: str, shape: tuple[int | None, ...], like: str) -> np.ndarray:
    """Return a value as float32.

    Args:
      value: of a record.
      name: of the field.
      shape: that it must have; None for any length.
      like: the shape in words, for messages.

    Raises:
      DataError: it has another shape, or is not of numbers.
    """
    return _shaped(value, name, shape, like, "biuf", "numbers").astype(np.float32)


def integers(value: Any, name: str, shape: tuple[int | None, ...], like: str) -> np.ndarray:
    """Return a value that must be of whole numbers, see `numbers`, with the type that it has."""
    return _shaped(value, name, shape, like, "biu", "whole numbers")


def _shaped(
    value: Any, name: str, shape: tuple[int | None, ...], like: str, kinds: str, what: str
) -> np.ndarray:
    try:
        array = np.asarray(value)
    except ValueError as error:  # rows of different length
        raise DataError(f"{name} is not an array ({error}); it must be {what} {like}.") from error
    if array.ndim and not array.size and array.dtype == np.float64:
        array = array.astype(np.int32).reshape([axis or 0 for axis in shape])  # an empty list
    fits = array.ndim == len(shape) and all(
        axis in (None, present) for axis, present in zip(shape, array.shape)
    )
    if not fits or array.dtype.kind not in kinds:
        raise DataError(f"{name} is {array.dtype} of shape {array.shape}; it must be {what} {like}.")
    return array


def check_classes(values: np.ndarray, name: str, source: "Source") -> None:
    """Raise `DataError` unless whole numbers are classes of a source, or `IGNORE`."""
    low, high = (int(values.min()), int(values.max())) if values.size else (0, -1)
    if low < IGNORE or high >= source.num_classes:
        raise DataError(
            f"{name} has class {low if low < IGNORE else high}; classes must be from 0 to {source.num_classes - 1} "
            f"({source.num_classes} classes), or {IGNORE} for none."
        )
