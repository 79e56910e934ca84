"""What moves pixels: shears, shifts and rotations, in Pillow's coordinates.

Functions of uint8 images of one or three channels, `(h, w, 1)` or `(h, w, 3)`; none changes its argument. As in
Pillow, a pixel is filled when the point it comes from lies outside of the image, and the frame is repeated outwards
for what lies between. Nearest is Pillow's result. Others are OpenCV's, two to ten times as fast; on photographs they
differ from Pillow's so: shifts within 1, where the exact value is an integer; bilinear within 1 (Pillow cuts
fractions off, OpenCV rounds); bicubic by 0.6 on average and at most 20 (a cubic with slope -0.75 instead of -1).
Points exactly on the frame may fall on either side.
"""

import math

import cv2
import numpy as np
from PIL import Image

Fill = int | tuple[int, ...]
# The point (x, y) comes from (a x + b y + c, d x + e y + f); the centre of the first pixel is (0.5, 0.5).
Matrix = tuple[float, float, float, float, float, float]

INTERPOLATIONS = ("nearest", "bilinear", "bicubic")
_INSIDE = cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP


def sheared_x(height: int, width: int, factor: float) -> Matrix:
    """Return where pixels come from if every row is shifted to the left by `factor` times its height from the top."""
    return 1, factor, 0, 0, 1, 0


def sheared_y(height: int, width: int, factor: float) -> Matrix:
    """Return where pixels come from if every column is shifted up by `factor` times its distance from the left."""
    return 1, 0, 0, factor, 1, 0


def shifted_x(height: int, width: int, pixels: float) -> Matrix:
    """Return where pixels come from if all are shifted to the left by `pixels`."""
    return 1, 0, pixels, 0, 1, 0


def shifted_y(height: int, width: int, pixels: float) -> Matrix:
    """Return where pixels come from if all are shifted up by `pixels`."""
    return 1, 0, 0, 0, 1, pixels


def shifted_x_rel(height: int, width: int, share: float) -> Matrix:
    """Return where pixels come from if all are shifted to the left by `share` of the width."""
    return shifted_x(height, width, share * width)


def shifted_y_rel(height: int, width: int, share: float) -> Matrix:
    """Return where pixels come from if all are shifted up by `share` of the height."""
    return shifted_y(height, width, share * height)


def rotated(height: int, width: int, degrees: float) -> Matrix:
    """Return where pixels come from if the image is turned anticlockwise about its centre."""
    # Rounded, so that quarter turns are exact.
    cosine, sine = (round(f(math.radians(degrees)), 15) for f in (math.cos, math.sin))
    y, x = height / 2, width / 2
    return cosine, -sine, x - cosine * x + sine * y, sine, cosine, y - sine * x - cosine * y


def shear_x(image: np.ndarray, factor: float, interpolation: str, fill: Fill) -> np.ndarray:
    """Return the image with every row shifted to the left by `factor` times its height from the top."""
    return affine(image, sheared_x(image.shape[0], image.shape[1], factor), interpolation, fill)


def shear_y(image: np.ndarray, factor: float, interpolation: str, fill: Fill) -> np.ndarray:
    """Return the image with every column shifted up by `factor` times its distance from the left."""
    return affine(image, sheared_y(image.shape[0], image.shape[1], factor), interpolation, fill)


def translate_x(image: np.ndarray, pixels: float, interpolation: str, fill: Fill) -> np.ndarray:
    """Return the image shifted to the left by `pixels`."""
    return _shifted(image, pixels, 1, interpolation, fill)


def translate_y(image: np.ndarray, pixels: float, interpolation: str, fill: Fill) -> np.ndarray:
    """Return the image shifted up by `pixels`."""
    return _shifted(image, pixels, 0, interpolation, fill)


def translate_x_rel(image: np.ndarray, share: float, interpolation: str, fill: Fill) -> np.ndarray:
    """Return the image shifted to the left by `share` of its width."""
    return _shifted(image, share * image.shape[1], 1, interpolation, fill)


def translate_y_rel(image: np.ndarray, share: float, interpolation: str, fill: Fill) -> np.ndarray:
    """Return the image shifted up by `share` of its height."""
    return _shifted(image, share * image.shape[0], 0, interpolation, fill)


def rotate(image: np.ndarray, degrees: float, interpolation: str, fill: Fill) -> np.ndarray:
    """Return the image turned anticlockwise about its centre."""
    return affine(image, rotated(image.shape[0], image.shape[1], degrees), interpolation, fill)


def affine(image: np.ndarray, matrix: Matrix, interpolation: str, fill: Fill) -> np.ndarray:
    """Return the image whose point `(x, y)` comes from `(a x + b y + c, d x + e y + f)`.

    Args:
      image: uint8 `(h, w, c)`.
      matrix: `a` to `f`, as for Pillow's `Image.transform`.
      interpolation: a key of `INTERPOLATIONS`.
      fill: value of pixels that come from outside, one or one per channel.
    """
    if interpolation == "nearest":
        return _nearest(image, matrix, fill)
    a, b, c, d, e, f = matrix
    # For OpenCV the centre of the first pixel is (0, 0).
    points = np.array([[a, b, c + (a + b - 1) / 2], [d, e, f + (d + e - 1) / 2]])
    h, w = image.shape[:2]
    flags = (cv2.INTER_LINEAR if interpolation == "bilinear" else cv2.INTER_CUBIC) | cv2.WARP_INVERSE_MAP
    warped = cv2.warpAffine(image, points, (w, h), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    inside = cv2.warpAffine(np.ones((h, w), np.uint8), points, (w, h), flags=_INSIDE)
    return cv2.copyTo(warped, inside, _filled(image, fill)).reshape(image.shape)


def _nearest(image: np.ndarray, matrix: Matrix, fill: Fill) -> np.ndarray:
    """Return Pillow's transformation, which is fast enough here."""
    channels = image.shape[-1]
    pixels = Image.fromarray(image if channels == 3 else image[..., 0])
    values = (fill,) * channels if isinstance(fill, int) else tuple(fill)
    moved = pixels.transform(
        pixels.size,
        Image.Transform.AFFINE,
        matrix,
        Image.Resampling.NEAREST,
        fillcolor=values if channels == 3 else sum(values),
    )
    return np.asarray(moved).reshape(image.shape)


def _shifted(image: np.ndarray, pixels: float, axis: int, interpolation: str, fill: Fill) -> np.ndarray:
    """Return the image shifted along an axis towards its beginning."""
    size = image.shape[axis]
    whole = math.floor(pixels + 0.5)
    # What is left, from -0.5 to 0.5, is a filter: the same for all pixels.
    rest = pixels - whole
    if rest and interpolation != "nearest":
        weights = _weights(rest, interpolation)
        kernel = weights[np.newaxis] if axis == 1 else weights[:, np.newaxis]
        # The fraction is cut off, as Pillow does.
        image = cv2.filter2D(image, -1, kernel, delta=-0.5 + 2**-12, borderType=cv2.BORDER_REPLICATE).reshape(
            image.shape
        )
    shifted = _filled(image, fill)
    if abs(whole) < size:
        begin, end = max(0, -whole), min(size, size - whole)
        there, here = slice(begin, end), slice(begin + whole, end + whole)
        if axis == 1:
            shifted[:, there] = image[:, here]
        else:
            shifted[there] = image[here]
    return shifted


def _weights(rest: float, interpolation: str) -> np.ndarray:
    """Return the weights of the five pixels around one for the value at `rest` from it."""
    distances = np.abs(np.arange(-2, 3) - rest)
    if interpolation == "bilinear":
        return np.maximum(0, 1 - distances)
    # Pillow's bicubic interpolation of shifts has slope -1.
    near = (distances - 2) * distances**2 + 1
    far = ((5 - distances) * distances - 8) * distances + 4
    return np.where(distances <= 1, near, np.where(distances < 2, far, 0))


def _filled(image: np.ndarray, fill: Fill) -> np.ndarray:
    """Return a constant image of the same shape."""
    filled = np.empty(image.shape, image.dtype)
    filled[:] = fill
    return filled
