"""What changes the values of pixels and leaves them in place, as Pillow computes it.

Functions of uint8 images of one or three channels, `(h, w, 1)` or `(h, w, 3)`; none changes its argument, and
what changes nothing may return it. What is a table of 256 values equals Pillow's result exactly. So do mixtures of two
images, but for at most 2 of 100 pixels of a photograph that differ by 1: an exact integer there, which Pillow's
rounding error makes less. Blurring and hues are near (see there).
"""

import functools
import math

import cv2
import numpy as np
from PIL import Image

# Added before rounding to nearest, it makes OpenCV cut fractions off, as Pillow does; a little less than one half,
# because half of what lies exactly between two integers would be rounded up.
_CUT_OFF = -0.5 + 2**-12
_VALUES = np.arange(256)
# Pillow's ImageFilter.SMOOTH.
_SMOOTHING = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]], np.float32) / 13


def invert(image: np.ndarray) -> np.ndarray:
    """Return 255 minus every value."""
    return cv2.bitwise_not(image).reshape(image.shape)


def solarize(image: np.ndarray, threshold: float = 128) -> np.ndarray:
    """Return the image with values of at least `threshold` inverted."""
    # 255 - value has all bits turned. Three times as fast as a table.
    return image ^ ((image >= math.ceil(threshold)).view(np.uint8) * np.uint8(255))


def solarize_add(image: np.ndarray, addition: int, threshold: float = 128) -> np.ndarray:
    """Return the image with `addition` added to values below `threshold`."""
    return _mapped(image, np.where(threshold > _VALUES, _VALUES + addition, _VALUES))


def posterize(image: np.ndarray, bits: int) -> np.ndarray:
    """Return the image with the highest `bits` bits of every value kept."""
    return image if bits >= 8 else image & np.uint8(256 - 2 ** (8 - max(0, bits)))


def autocontrast(image: np.ndarray) -> np.ndarray:
    """Return the image with each channel's values stretched to reach from 0 to 255."""
    # A third of the time of histograms.
    return _mapped_each(image, [_stretching(*cv2.minMaxLoc(channel)[:2]) for channel in cv2.split(image)])


def equalize(image: np.ndarray) -> np.ndarray:
    """Return the image with each channel's values spread as evenly as can be."""
    return _mapped_each(image, [_evening(counts) for counts in _histograms(image)])


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """Return a mixture of black, `1 - factor`, and the image, `factor`."""
    return _mixed_with_value(image, 0, factor)


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """Return a mixture of the image's mean luminance, `1 - factor`, and the image, `factor`."""
    return _mixed_with_value(image, int(cv2.mean(luminance(image))[0] + 0.5), factor)


def contrast_with_area(image: np.ndarray, factor: float) -> np.ndarray:
    """Return a mixture of grey, `1 - factor`, and the image, `factor`, as big_vision published it.

    Its grey is not the image's mean, but its number of pixels divided by 256 (196 for 224 x 224): results that
    were published with its RandAugment were trained so.
    """
    return _mixed_with_value(image, min(255, image.shape[0] * image.shape[1] // 256), factor)


def color(image: np.ndarray, factor: float) -> np.ndarray:
    """Return a mixture of the grey image, `1 - factor`, and the image, `factor`: its saturation changed."""
    return image if image.shape[-1] == 1 else blend(grayscale(image), image, factor)


def desaturate(image: np.ndarray, amount: float) -> np.ndarray:
    """Return the image with saturation reduced by `amount`, from 0 to 1."""
    return color(image, min(1.0, max(0.0, 1 - amount)))


def sharpness(image: np.ndarray, factor: float) -> np.ndarray:
    """Return a mixture of the smoothed image, `1 - factor`, and the image, `factor`; its frame stays as it is."""
    smooth = cv2.filter2D(image, -1, _SMOOTHING).reshape(image.shape)
    smooth[[0, -1]] = image[[0, -1]]
    smooth[:, [0, -1]] = image[:, [0, -1]]
    return blend(smooth, image, factor)


def hue(image: np.ndarray, shift: float) -> np.ndarray:
    """Return the image with hues turned by `shift` of the circle of colours, from -0.5 to 0.5.

    OpenCV's conversion, seven times as fast as Pillow's: on photographs values differ from Pillow's by 0.4 on
    average and at most 8.
    """
    if image.shape[-1] == 1:
        return image
    turned = cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)
    turned[..., 0] += np.uint8(int(shift * 255) % 256)
    return cv2.cvtColor(turned, cv2.COLOR_HSV2RGB_FULL)


def hsv(image: np.ndarray) -> np.ndarray:
    """Return hue, saturation and value of an image `(h, w, 3)`, each from 0 to 255; hues go around once."""
    return cv2.cvtColor(image, cv2.COLOR_RGB2HSV_FULL)


def gaussian_blur(image: np.ndarray, radius: float) -> np.ndarray:
    """Return the image blurred with about a Gaussian of standard deviation `radius`, in pixels.

    Pillow blurs with three averages one after the other; here they are one filter, without rounding between
    them, in a quarter of the time of six: on photographs values differ from Pillow's by 0.5 on average and at
    most 4, at strong edges along the frame by up to 12.
    """
    if radius <= 0:
        return image
    kernel = _blurring(radius)
    return cv2.sepFilter2D(image, -1, kernel, kernel, borderType=cv2.BORDER_REPLICATE).reshape(image.shape)


def grayscale(image: np.ndarray) -> np.ndarray:
    """Return the image without colour, in as many channels."""
    return image if image.shape[-1] == 1 else cv2.cvtColor(luminance(image), cv2.COLOR_GRAY2RGB)


def luminance(image: np.ndarray) -> np.ndarray:
    """Return how bright pixels are (ITU-R 601), uint8 `(h, w)`."""
    # Pillow itself: OpenCV's weights are rounded differently.
    return image[..., 0] if image.shape[-1] == 1 else np.asarray(Image.fromarray(image).convert("L"))


def blend(first: np.ndarray, second: np.ndarray, factor: float) -> np.ndarray:
    """Return `first + factor * (second - first)`, fractions cut off; `factor` may lie outside of 0 to 1."""
    if factor == 1:
        return second
    return cv2.addWeighted(second, factor, first, 1 - factor, _CUT_OFF).reshape(second.shape)


def _mixed_with_value(image: np.ndarray, value: int, factor: float) -> np.ndarray:
    """Return a mixture of a constant image and an image."""
    return _mapped(image, value + np.float32(factor) * (_VALUES - value).astype(np.float32))


def _mapped(image: np.ndarray, table: np.ndarray) -> np.ndarray:
    """Return `table[value]` for every value, within 0 to 255 and fractions cut off."""
    # As an image of one channel, which takes two thirds of the time of three.
    flat = np.ascontiguousarray(image).reshape(len(image), -1)
    return cv2.LUT(flat, np.clip(table, 0, 255).astype(np.uint8)).reshape(image.shape)


def _mapped_each(image: np.ndarray, tables: list[np.ndarray]) -> np.ndarray:
    """Return the image with one table for each channel."""
    table = np.clip(np.stack(tables, axis=-1), 0, 255).astype(np.uint8)
    return cv2.LUT(image, table[np.newaxis]).reshape(image.shape)


def _histograms(image: np.ndarray) -> list[np.ndarray]:
    """Return how often each of the 256 values occurs in each channel."""
    return [
        cv2.calcHist([image], [channel], None, [256], [0, 256]).ravel().astype(np.int64)
        for channel in range(image.shape[-1])
    ]


def _stretching(low: float, high: float) -> np.ndarray:
    if high <= low:
        return _VALUES
    scale = 255 / (high - low)
    return _VALUES * scale - low * scale


def _evening(counts: np.ndarray) -> np.ndarray:
    present = counts[counts > 0]
    step = int(present.sum() - present[-1]) // 255
    if step == 0:
        return _VALUES
    return (step // 2 + np.cumsum(counts) - counts) // step


@functools.lru_cache(maxsize=64)
def _blurring(radius: float) -> np.ndarray:
    """Return Pillow's filter for a radius: an average, its ends weighted to have the right variance, three times.

    Reference: Gwosdek et al. 2011, Theoretical Foundations of Gaussian Convolution by Extended Box Filtering.
    """
    variance = radius * radius / 3
    whole = math.floor((math.sqrt(12 * variance + 1) - 1) / 2)
    share = (2 * whole + 1) * (whole * (whole + 1) - 3 * variance) / (6 * (variance - (whole + 1) ** 2))
    average = np.ones(2 * whole + 3)
    average[[0, -1]] = share
    average /= 2 * (whole + share) + 1
    return np.convolve(np.convolve(average, average), average)
