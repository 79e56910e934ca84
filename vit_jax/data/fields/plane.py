"""Targets in the plane of the image: maps of a value for each pixel, and objects."""

from typing import TYPE_CHECKING, Any

import numpy as np

from vit_jax.data.fields.kind import IGNORE, Kind, check_classes, integers, numbers
from vit_jax.errors import DataError

if TYPE_CHECKING:
    from vit_jax.data.base import Source


def _segmentation(value: Any, source: "Source") -> np.ndarray:
    ids = integers(value, "segmentation", (None, None), "(h, w)")
    check_classes(ids, "segmentation", source)
    return ids if ids.dtype.kind == "i" else ids.astype(np.int32)  # which `IGNORE` fits into


def _masks(value: Any, source: "Source") -> np.ndarray:
    masks = integers(value, "masks", (None, None, None), "(g, h, w)")
    if masks.size and (masks.min() < 0 or masks.max() > 1):
        raise DataError(f"masks has values from {masks.min()} to {masks.max()}; they must be 0 or 1.")
    return masks.astype(np.uint8)


def _boxes(value: Any, source: "Source") -> np.ndarray:
    boxes = numbers(value, "boxes", (None, 4), "(g, 4), left, top, right and bottom in pixels")
    with np.errstate(invalid="ignore"):
        bad = np.flatnonzero(~(np.isfinite(boxes).all(1) & (boxes[:, 2:] > boxes[:, :2]).all(1)))
    if len(bad):
        raise DataError(
            f"box {bad[0]} is {boxes[bad[0]].tolist()}; it must be left, top, right and bottom in pixels, with "
            "left < right and top < bottom."
        )
    return boxes


def _classes(value: Any, source: "Source") -> np.ndarray:
    classes = integers(value, "classes", (None,), "(g,), one for each object")
    check_classes(classes, "classes", source)
    return classes


def _crowd(value: Any, source: "Source") -> np.ndarray:
    return integers(value, "crowd", (None,), "(g,), one for each object").astype(np.bool_)


def _depth(value: Any, source: "Source") -> np.ndarray:
    depth = numbers(value, "depth", (None, None), "(h, w), 0 where it is unknown")
    if not np.isfinite(depth).all() or depth.min(initial=0) < 0:
        raise DataError(
            "depth has a negative or non-finite value; it must be at least 0, and 0 where it is unknown."
        )
    return depth


def _points(value: Any, source: "Source") -> np.ndarray:
    axes = 3 if np.ndim(value) == 3 else 2
    return numbers(value, "points", (None,) * (axes - 1) + (2,), "(p, 2) or (g, p, 2), x and y in pixels")


def _other_classes(value: np.ndarray, number: np.ndarray, count: int) -> np.ndarray:
    # The last entry is what `IGNORE`, -1, stands for.
    return np.append(number, IGNORE)[value]


SEGMENTATION = Kind(_segmentation, "int32", "nearest", outside=IGNORE, renumbered=_other_classes)
MASKS = Kind(_masks, "uint8", "nearest", of_objects=True)
BOXES = Kind(_boxes, "float32", "boxes", of_objects=True)
CLASSES = Kind(_classes, "int32", of_objects=True, padding=IGNORE, renumbered=_other_classes)
CROWD = Kind(_crowd, "bool", of_objects=True)
DEPTH = Kind(_depth, "float32", "nearest")
POINTS = Kind(_points, "float32", "points")
