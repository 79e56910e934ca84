"""Label maps and boxes drawn over images, always in the same colours, and records in words."""

import colorsys
import math
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

from vit_jax.data.fields.kind import IGNORE

_GOLDEN = 0.61803398875  # turns of hue by it never come near each other soon
_SHARE = 0.55  # of a class's colour in an overlay


def colours(count: int) -> np.ndarray:
    """Return the colours of `count` classes, uint8 `(count, 3)`; a class has the same however many there are."""
    turns = [
        colorsys.hsv_to_rgb(
            number * _GOLDEN % 1, (0.9, 0.65, 0.8)[number % 3], (0.95, 1.0, 0.7)[number // 3 % 3]
        )
        for number in range(count)
    ]
    return np.rint(255 * np.array(turns).reshape(-1, 3)).astype(np.uint8)


def overlaid(image: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return an image with the colour of its class laid over each pixel that has one, uint8 `(h, w, 3)`.

    Args:
      image: uint8 `(h, w, c)`, of 1 or 3 channels.
      classes: integers `(h, w)`; `IGNORE` for none.
    """
    image = _in_colour(image)
    laid = colours(int(classes.max(initial=0)) + 1)[np.maximum(classes, 0)]
    mixed = np.rint((1 - _SHARE) * image + _SHARE * laid).astype(np.uint8)
    return np.where(classes[..., None] == IGNORE, image, mixed)


def boxed(image: np.ndarray, boxes: np.ndarray, classes: np.ndarray | None = None) -> np.ndarray:
    """Return an image with frames around boxes, in the colours of their classes, uint8 `(h, w, 3)`.

    Args:
      image: uint8 `(h, w, c)`, of 1 or 3 channels.
      boxes: `(g, 4)`, left, top, right and bottom in pixels; those without an area are padding.
      classes: integers `(g,)`; None for one colour.
    """
    image = np.ascontiguousarray(_in_colour(image))
    classes = np.zeros(len(boxes), np.int64) if classes is None else np.maximum(classes, 0)
    palette = colours(int(classes.max(initial=0)) + 1)
    for box, number in zip(boxes, classes):
        left, top, right, bottom = map(float, box)
        if right > left and bottom > top:
            last = math.ceil(right) - 1, math.ceil(bottom) - 1
            cv2.rectangle(image, (int(left), int(top)), last, tuple(map(int, palette[number])), 1)
    return image


def drawn(fields: Mapping[str, np.ndarray]) -> np.ndarray:
    """Return the image of a record with its targets in the plane drawn over it; without any, the image itself.

    Args:
      fields: of one record as transforms leave it, `image` `(h, w, c)` of 1 or 3 channels.
    """
    image = fields["image"]
    if not {"segmentation", "boxes"}.intersection(fields) or image.shape[-1] not in (1, 3):
        return image
    image = image if image.dtype == np.uint8 else np.clip(np.rint(image), 0, 255).astype(np.uint8)
    if "segmentation" in fields:
        image = overlaid(image, fields["segmentation"])
    return boxed(image, fields["boxes"], fields.get("classes")) if "boxes" in fields else image


def caption(fields: Mapping[str, np.ndarray], class_names: Sequence[str]) -> str:
    """Return in words what a record is: its classes, its values, or its position.

    Args:
      fields: of one record as transforms leave it.
      class_names: of its source.
    """
    if "label" in fields:
        return class_names[int(fields["label"])]
    if "labels" in fields:
        return ", ".join(class_names[int(number)] for number in np.flatnonzero(fields["labels"] == 1))
    if "value" in fields:
        return ", ".join(f"{value:.6g}" for value in fields["value"])
    for name in ("classes", "segmentation"):
        if name in fields:
            return ", ".join(class_names[int(number)] for number in np.unique(fields[name]) if number >= 0)
    return f"record {int(fields['id'])}" if "id" in fields else ""


def _in_colour(image: np.ndarray) -> np.ndarray:
    return np.repeat(image, 3, axis=-1) if image.shape[-1] == 1 else image.copy()
