"""The one table of the fields that records may have, and what is asked of all of them."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from vit_jax.data.fields.kind import Kind
from vit_jax.data.fields.plane import BOXES, CLASSES, CROWD, DEPTH, MASKS, POINTS, SEGMENTATION
from vit_jax.data.fields.targets import ID, LABEL, LABELS, VALUE, names_values
from vit_jax.errors import ConfigError, DataError, nearest

if TYPE_CHECKING:
    from vit_jax.data.base import Source


def _image(value: Any, source: "Source") -> Any:
    """Return an image as it is: the bytes of a file, or pixels, which transforms check."""
    return value


KINDS: dict[str, Kind] = {
    "image": Kind(_image, plane="filter"),
    "label": LABEL,
    "labels": LABELS,
    "value": VALUE,
    "segmentation": SEGMENTATION,
    "masks": MASKS,
    "boxes": BOXES,
    "classes": CLASSES,
    "crowd": CROWD,
    "depth": DEPTH,
    "points": POINTS,
    "id": ID,
}
# What must move when the image does.
PLANE = frozenset(name for name, kind in KINDS.items() if kind.plane and name != "image")
# What every source had before there were others; batches of these alone are checked whole, and have no `id`.
USUAL = frozenset(("image", "label"))
# How far over the edge of its image a box may reach; annotations are rounded.
_SLACK = 1.0


def check_fields(fields: Collection[str]) -> None:
    """Raise `ConfigError` unless all of the fields that a source has are known."""
    for name in fields:
        if name not in KINDS:
            raise ConfigError(
                f"a source has the field {name!r}; fields are {', '.join(KINDS)}.{nearest(name, KINDS)}"
            )


def read_fields(example: Mapping[str, Any], source: "Source") -> dict[str, Any]:
    """Return a record with every field beside image and label checked, as the array that its kind is.

    Args:
      example: what the source returns.
      source: says which fields there are, and their classes.

    Raises:
      DataError: a field is missing or is not what it must be; the record is named.
    """
    record, result = example["record"], dict(example)
    for name in source.fields:
        if name not in example:
            raise DataError(
                f"{record} has no {name}, but its source has the fields {', '.join(source.fields)}."
            )
        if name not in USUAL:
            try:
                result[name] = KINDS[name].read(example[name], source)
            except DataError as error:
                raise DataError(f"{record}: {error}") from error
    counts = {name: len(result[name]) for name in source.fields if KINDS[name].of_objects}
    if len(set(counts.values())) > 1:
        there = ", ".join(f"{count} {name}" for name, count in counts.items())
        raise DataError(f"{record} has {there}; each object needs one of each.")
    if isinstance(result.get("image"), np.ndarray) and not PLANE.isdisjoint(source.fields):
        check_plane(result, result["image"].shape[:2])
    return result


def check_plane(example: Mapping[str, Any], size: tuple[int, ...]) -> None:
    """Raise `DataError` unless what lies in the plane of an image fits it; the record is named.

    Args:
      example: a record.
      size: height and width of its image.
    """
    record, (h, w) = example.get("record", "the record"), size
    for name in PLANE.intersection(example):
        value = example[name]
        if KINDS[name].plane == "nearest" and value.shape[-2:] != (h, w):
            turned = " (the image is rotated by its EXIF orientation, or one of the two is transposed)"
            raise DataError(
                f"{record} has {name} of {value.shape[-2]}x{value.shape[-1]}, but an image of {h}x{w}"
                f"{turned * (value.shape[-2:] == (w, h) != (h, w))}; both must have the same size."
            )
        if KINDS[name].plane == "boxes" and len(value):
            out = np.maximum(-value[:, :2], value[:, 2:] - (w, h)).max(1)
            away = (value[:, 0] >= w) | (value[:, 1] >= h) | (value[:, 2:] <= 0).any(1)
            bad = np.flatnonzero((out > _SLACK) | away)
            if len(bad):
                raise DataError(
                    f"{record} has box {bad[0]} {value[bad[0]].tolist()}, which is outside its image of {h}x{w} "
                    "(height x width); boxes are left, top, right and bottom in its pixels."
                )


def renumbered(
    example: Mapping[str, Any], source: "Source", number: np.ndarray, count: int
) -> dict[str, Any]:
    """Return a record whose classes have other numbers.

    Args:
      example: what the source returned; its label is one of its classes.
      source: says which fields there are, and their classes.
      number: int `(c,)`, what each class becomes.
      count: how many classes there are then.

    Raises:
      DataError: a field is not what it must be; the record is named.
    """
    result = dict(example) if USUAL.issuperset(source.fields) else read_fields(example, source)
    for name in source.fields:
        change = KINDS[name].renumbered
        if change is not None and (name != "value" or names_values(source)):
            result[name] = change(result[name], number, count)
    return result


def summed_bytes(example: Mapping[str, Any]) -> int:
    """Return how much memory the fields of a record take."""
    sizes = (
        value.nbytes if isinstance(value, np.ndarray) else len(value) if isinstance(value, bytes) else 0
        for value in example.values()
    )
    return sum(sizes)
