"""What lies in the plane of an image goes where its pixels go."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.data.fields.table import KINDS, PLANE
from vit_jax.data.geometry import Geometry, composed, moved_boxes, moved_map, moved_points

# Entries of an example because of which somebody must know where pixels went.
FOLLOWING = PLANE | {"geometry"}


def followed(example: Mapping[str, Any], geometry: Geometry) -> dict[str, Any]:
    """Return an example whose fields in the plane, but not the image, went where the pixels of the image did.

    Boxes are cut off at the edge of the output. Objects whose box has a side below a pixel then, or whose mask has lost
    its last pixel (a box may reach into a crop in which nothing of the object is), are gone from all fields of objects,
    as are their points.

    Args:
      example: named fields; `geometry`, if there, is the matrix of what was done before.
      geometry: what was done to the image.
    """
    result = dict(example)
    if "geometry" in result:
        result["geometry"] = composed(geometry.matrix, result["geometry"])
    if "boxes" in result:
        result["boxes"], kept = moved_boxes(result["boxes"], geometry)
        result = _some_objects(result, kept)
    empty = ~result["masks"].any((1, 2)) if "masks" in result and "boxes" in result else False
    for name in PLANE.intersection(result):
        kind, value = KINDS[name], result[name]
        if kind.plane == "nearest":
            result[name] = moved_map(value, geometry, kind.outside)
        elif kind.plane == "points":
            result[name] = moved_points(value, geometry.matrix)
    if "masks" in result:  # one that was empty before says nothing, where there is a box
        result = _some_objects(result, result["masks"].any((1, 2)) | empty)
    return result


def _some_objects(example: dict[str, Any], kept: np.ndarray) -> dict[str, Any]:
    if kept.all():
        return example
    return {name: value[kept] if is_of_objects(name, value) else value for name, value in example.items()}


def is_of_objects(name: str, value: Any) -> bool:
    """Return whether the rows of a field are objects; points may be of objects or of the whole image."""
    kind = KINDS.get(name)
    return kind is not None and (kind.of_objects or (kind.plane == "points" and np.ndim(value) == 3))
