"""Random crops and flips.

Random crops resize with OpenCV: area averaging when the crop shrinks, which is nearly Pillow's result at half the
cost, and the interpolation asked for when it grows.
"""

import math
from dataclasses import dataclass

import cv2
import numpy as np

from vit_jax.data.resizing import Size, check_integer, pair
from vit_jax.data.transforms.base import ImageTransform, check_interval, check_probability
from vit_jax.errors import DataError, choose

_OPENCV = {
    "nearest": cv2.INTER_NEAREST_EXACT,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}

# The pipeline decodes images in as many threads as there are cores; threads within one image would compete.
cv2.setNumThreads(0)


@dataclass(frozen=True)
class RandomResizedCrop(ImageTransform):
    """A random part of the image with random area and aspect ratio, resized to `size`.

    Area is uniform in `scale` (shares of the image), the ratio of width to height log-uniform in `ratio`. If
    ten draws do not fit into the image, the largest centred part with an allowed ratio is taken.

    Reference: Szegedy et al. 2014, Going Deeper with Convolutions, arXiv 1409.4842.
    """

    size: Size
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        pair(self.size, "random_resized_crop: size")
        check_interval(self.scale, "random_resized_crop: scale", 1.0)
        check_interval(self.ratio, "random_resized_crop: ratio", math.inf)
        choose(self.interpolation, _OPENCV, "random_resized_crop: interpolation")

    def box(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int, int, int]:
        """Return top, left, height and width of a random part of an image of the given size."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            area = height * width * rng.uniform(*self.scale)
            ratio = math.exp(rng.uniform(low, high))
            h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < h <= height and 0 < w <= width:
                return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        h = max(1, min(height, round(width / ratio)))
        w = max(1, min(width, round(height * ratio)))
        return (height - h) // 2, (width - w) // 2, h, w

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return a resized random part."""
        height, width = pair(self.size, "random_resized_crop: size")
        top, left, h, w = self.box(image.shape[0], image.shape[1], rng)
        part = image[top : top + h, left : left + w]
        if (h, w) == (height, width):
            return part
        shrinks = h >= height and w >= width and self.interpolation != "nearest"
        method = cv2.INTER_AREA if shrinks else _OPENCV[self.interpolation]
        # OpenCV interpolates up to four channels at a time, and drops the axis of a single one.
        groups = [part[..., c : c + 4] for c in range(0, part.shape[-1], 4)]
        return np.dstack([cv2.resize(group, (width, height), interpolation=method) for group in groups])


@dataclass(frozen=True)
class FlipLeftRight(ImageTransform):
    """Mirror with the given probability."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        check_probability(self.probability, "flip_lr: probability")

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the image or its mirror image."""
        return image[:, ::-1] if rng.random() < self.probability else image


@dataclass(frozen=True)
class PadCrop(ImageTransform):
    """Pad every side with `padding` zeros and take a random part of `size`: a random shift."""

    size: Size
    padding: int

    def __post_init__(self) -> None:
        pair(self.size, "pad_crop: size")
        check_integer(self.padding, "pad_crop: padding", 0)

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the shifted image."""
        height, width = pair(self.size, "pad_crop: size")
        h, w, channels = image.shape
        p = self.padding
        rows, columns = h + 2 * p - height, w + 2 * p - width
        if rows < 0 or columns < 0:
            raise DataError(
                f"the image is {h}x{w}, too small for pad_crop({(height, width)}, {p}); resize before."
            )
        padded = np.zeros((h + 2 * p, w + 2 * p, channels), image.dtype)
        padded[p : p + h, p : p + w] = image
        # One draw for both shifts: drawing costs more than copying a small image.
        top, left = divmod(int(rng.integers((rows + 1) * (columns + 1))), columns + 1)
        return padded[top : top + height, left : left + width]
