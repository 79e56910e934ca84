"""Where the pixels of an image went: affine maps of the plane, and what follows them.

Coordinates are `x` to the right and `y` down, in pixels; the centre of the first pixel is (0.5, 0.5), so an image of
`h` by `w` reaches from (0, 0) to (w, h). A matrix `[[a, b, c], [d, e, f]]` takes `(x, y)` to
`(a x + b y + c, d x + e y + f)`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

IDENTITY = np.array([[1.0, 0, 0], [0, 1, 0]])
IDENTITY.flags.writeable = False
# What lies this near to the border of two pixels counts as the second's: so rounding draws no pattern.
_ROUNDING = 1e-6
_LEAST_SIDE = 1.0  # pixels, of a box that is kept


@dataclass(frozen=True)
class Geometry:
    """What a transform does to the plane of an image.

    Attributes:
      matrix: float64 `(2, 3)`, from coordinates of the source to coordinates of the output.
      size: height and width of the output.
    """

    matrix: np.ndarray
    size: tuple[int, int]

    def then(self, other: "Geometry") -> "Geometry":
        """Return this and another one after it as one."""
        return Geometry(composed(other.matrix, self.matrix), other.size)


def cropped(box: tuple[int, int, int, int], size: tuple[int, int] | None = None) -> Geometry:
    """Return the geometry of a part of an image that is resized.

    Args:
      box: top, left, height and width of the part; it may reach out of the image on any side.
      size: height and width of the output; None for that of the part.
    """
    top, left, h, w = box
    height, width = size or (h, w)
    return Geometry(
        np.array([[width / w, 0, -left * width / w], [0, height / h, -top * height / h]]), (height, width)
    )


def resized(old: tuple[int, ...], new: tuple[int, ...]) -> Geometry:
    """Return the geometry of a resize from one height and width to another."""
    return cropped((0, 0, old[0], old[1]), (new[0], new[1]))


def mirrored(height: int, width: int, *, horizontal: bool) -> Geometry:
    """Return the geometry of an image mirrored left to right if `horizontal`, else upside down."""
    matrix = [[-1, 0, width], [0, 1, 0]] if horizontal else [[1, 0, 0], [0, -1, height]]
    return Geometry(np.array(matrix, np.float64), (height, width))


def composed(outer: np.ndarray, inner: np.ndarray) -> np.ndarray:
    """Return the matrix of `inner` and then `outer`, `(2, 3)`."""
    result = outer[:, :2] @ inner
    result[:, 2] += outer[:, 2]
    return result


def inverse(matrix: np.ndarray) -> np.ndarray:
    """Return the matrix that undoes another, `(2, 3)`: so predictions come back to the image as it was."""
    back = np.linalg.inv(np.asarray(matrix, np.float64)[:, :2])
    return np.concatenate([back, -back @ matrix[:, 2:]], axis=1)


def moved_points(points: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Return points where a matrix takes them, float32.

    Args:
      points: `(..., 2)`, x and y.
      matrix: `(2, 3)`.
    """
    return (points @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def moved_boxes(boxes: np.ndarray, geometry: Geometry) -> tuple[np.ndarray, np.ndarray]:
    """Return the boxes around where boxes went, cut off at the edge of the output, and which of them are left.

    Args:
      boxes: float32 `(g, 4)`, left, top, right and bottom.
      geometry: what was done to the image.

    Returns:
      The boxes, float32 `(g, 4)`, and bool `(g,)`: of those left no side is below a pixel.
    """
    corners = boxes[:, [[0, 1], [2, 1], [2, 3], [0, 3]]]
    moved = moved_points(corners, geometry.matrix)
    height, width = geometry.size
    ends = np.concatenate([moved.min(1), moved.max(1)], axis=1)
    ends = np.clip(ends, 0, np.array([width, height, width, height], np.float32))
    return ends, np.all(ends[:, 2:] - ends[:, :2] >= _LEAST_SIDE, axis=1)


def moved_map(values: np.ndarray, geometry: Geometry, outside: float) -> np.ndarray:
    """Return a map of values as it looks in the output: each pixel has the value that its centre comes from.

    Args:
      values: `(..., h, w)`.
      geometry: what was done to the image.
      outside: what pixels have that come from nowhere.
    """
    (a, b, c), (d, e, f) = inverse(geometry.matrix)
    x, y = np.arange(geometry.size[1]) + 0.5, np.arange(geometry.size[0])[:, None] + 0.5
    if b == d == 0:  # rows and columns each on their own
        columns, inside_x = _pixels(a * x + c, values.shape[-1])
        rows, inside_y = _pixels(e * y[:, 0] + f, values.shape[-2])
        result = values[..., rows, :][..., columns]
        result[..., ~inside_y, :] = outside
        result[..., ~inside_x] = outside
        return result
    columns, inside_x = _pixels(a * x + b * y + c, values.shape[-1])
    rows, inside_y = _pixels(d * x + e * y + f, values.shape[-2])
    result = values[..., rows, columns]
    result[..., ~(inside_x & inside_y)] = outside
    return result


def _pixels(coordinates: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Return in which pixel of a row coordinates lie, and whether there is one."""
    pixels = np.floor(coordinates + _ROUNDING).astype(np.int64)
    return np.clip(pixels, 0, count - 1), (pixels >= 0) & (pixels < count)


def moved_back(values: np.ndarray, matrix: np.ndarray, size: Sequence[int], outside: float) -> np.ndarray:
    """Return a map predicted for the output as a map of the image as it was.

    Args:
      values: `(..., h, w)`, as large as the output.
      matrix: `(2, 3)`, of the geometry.
      size: height and width of the image as it was.
      outside: what pixels have that are not in the output.
    """
    return moved_map(values, Geometry(inverse(matrix), (int(size[0]), int(size[1]))), outside)
