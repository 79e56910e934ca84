"""Random crops of particular recipes: big_vision's, DeiT III's, and one without resizing; and the vertical flip."""

import functools
import math
from dataclasses import dataclass

import cv2
import numpy as np

from vit_jax.data.geometry import IDENTITY, Geometry, cropped, mirrored
from vit_jax.data.images.resizing import INTERPOLATIONS, Size, check_integer, pad_to, pair
from vit_jax.data.transforms.base import check_probability, is_number
from vit_jax.data.transforms.crops import ANTIALIASING, Box, Crop, RandomResizedCrop
from vit_jax.data.transforms.sizes import ResizeShort, check_fill
from vit_jax.data.transforms.spatial import DrawnTransform
from vit_jax.errors import ConfigError, DataError, choose


@dataclass(frozen=True)
class InceptionCrop(Crop):
    """A random part of the image, resized to `size`, drawn as TensorFlow and big_vision draw it.

    The ratio of width to height is uniform from 0.75 to 1.33, then the height is uniform between what the least and
    largest area (percent of the image) allow: parts are smaller than those of `random_resized_crop`, whose area is
    uniform. If a hundred draws do not fit, the whole image is taken. TensorFlow never takes the last row or column
    for a start; nor does this.

    Reference: Szegedy et al. 2014, Going Deeper with Convolutions, arXiv 1409.4842.
    """

    size: Size
    area_min: float = 5
    area_max: float = 100
    interpolation: str = "bilinear"
    antialias: str = "fast"

    def __post_init__(self) -> None:
        areas = self.area_min, self.area_max
        if not all(is_number(area) for area in areas) or not 0 < areas[0] <= areas[1] <= 100:
            raise ConfigError(
                f"inception_crop: area_min and area_max are {areas}; they must be percentages, 0 < min <= max <= 100."
            )
        pair(self.size, "inception_crop: size")
        choose(self.interpolation, INTERPOLATIONS, "inception_crop: interpolation")
        choose(self.antialias, ANTIALIASING, "inception_crop: antialias")

    @functools.cached_property
    def _resized(self) -> RandomResizedCrop:
        return RandomResizedCrop(self.size, interpolation=self.interpolation, antialias=self.antialias)

    def box(self, height: int, width: int, rng: np.random.Generator) -> Box:
        """Return top, left, height and width of a random part of an image of the given size."""
        least, most = (share / 100 * height * width for share in (self.area_min, self.area_max))
        for _ in range(100):
            ratio = rng.uniform(0.75, 1.33)
            highest = min(round(math.sqrt(most / ratio)), height)
            if round(highest * ratio) > width:
                highest = int((width + 0.5) / ratio)
                highest -= round(highest * ratio) > width
            h = min(round(math.sqrt(least / ratio)), highest)
            h = int(rng.integers(h, highest + 1))
            # Rounding may leave the allowed areas by a little.
            h += round(h * ratio) * h < least
            h -= round(h * ratio) * h > most
            w = round(h * ratio)
            if 0 < h <= height and 0 < w <= width and least <= h * w <= most:
                return int(rng.integers(max(1, height - h))), int(rng.integers(max(1, width - w))), h, w
        return 0, 0, height, width

    def reduction(self, height: int, width: int) -> int:
        """Return the largest reduction that leaves a part at least as large as the result."""
        return self._resized.reduction(height, width)

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Return the wanted size."""
        return self._resized.size_of(height, width)

    def finished(self, part: np.ndarray) -> np.ndarray:
        """Return a part at the wanted size."""
        return self._resized.finished(part)


@dataclass(frozen=True)
class RandomCrop(Crop):
    """A random part of `size`, as it is.

    Smaller images are an error, unless `fill`, a value or one per channel, says what to add below and to the right;
    label maps are ignored there.
    """

    size: Size
    fill: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        pair(self.size, "random_crop: size")
        if self.fill is not None:
            check_fill(self.fill, "random_crop")

    def box(self, height: int, width: int, rng: np.random.Generator) -> Box:
        """Return top, left, height and width of a random part of an image of the given size."""
        h, w = pair(self.size, "random_crop: size")
        if self.fill is not None:
            height, width = max(height, h), max(width, w)
        if height < h or width < w:
            raise DataError(
                f"the image is {height}x{width}, smaller than random_crop({(h, w)}); resize it first, for example "
                f"with resize_short({max(h, w)}), or set a fill: random_crop({(h, w)}, fill=0)."
            )
        return int(rng.integers(height - h + 1)), int(rng.integers(width - w + 1)), h, w

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Return the size of the part."""
        return height, width

    def finished(self, part: np.ndarray) -> np.ndarray:
        """Return the part."""
        return (
            part
            if self.fill is None
            else pad_to(part, pair(self.size, "random_crop: size"), self.fill, after=True)
        )


@dataclass(frozen=True)
class SimpleRandomCrop(DrawnTransform):
    """Resize the short side to `size`, mirror `padding` pixels outwards, and take a random part of `size`.

    Much more of the image than `random_resized_crop` shows: for large data, where overfitting is no worry.

    Reference: Touvron et al. 2022, DeiT III, arXiv 2204.07118.
    """

    size: Size
    padding: int = 4
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        size = pair(self.size, "simple_random_crop: size")
        check_integer(self.padding, "simple_random_crop: padding", 0)
        if self.padding >= min(size):
            raise ConfigError(
                f"simple_random_crop: padding is {self.padding}; it must be less than the size, {min(size)}."
            )
        choose(self.interpolation, INTERPOLATIONS, "simple_random_crop: interpolation")

    @functools.cached_property
    def _resized(self) -> ResizeShort:
        return ResizeShort(self.size, self.interpolation)

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Box:
        """Return the box in the resized and padded image."""
        height, width = self._resized.size_of(height, width, None)
        return RandomCrop(self.size).box(height + 2 * self.padding, width + 2 * self.padding, rng)

    def moved(self, image: np.ndarray, drawn: Box) -> np.ndarray:
        """Return the crop."""
        p, (top, left, h, w) = self.padding, drawn
        padded = np.pad(self._resized.moved(image, None), ((p, p), (p, p), (0, 0)), "reflect")
        return padded[top : top + h, left : left + w]

    def geometry(self, height: int, width: int, drawn: Box) -> Geometry:
        """Return where pixels go; the mirrored ones beyond the edge are not of the image."""
        p, (top, left, h, w) = self.padding, drawn
        return self._resized.geometry(height, width, None).then(cropped((top - p, left - p, h, w)))


@dataclass(frozen=True)
class FlipUpDown(DrawnTransform):
    """Turn upside down with the given probability."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        check_probability(self.probability, "flip_ud: probability")

    def draw(self, height: int, width: int, rng: np.random.Generator) -> bool:
        """Return whether to mirror."""
        return rng.random() < self.probability

    def moved(self, image: np.ndarray, drawn: bool) -> np.ndarray:
        """Return the image or its mirror image."""
        return cv2.flip(image, 0).reshape(image.shape) if drawn else image

    def geometry(self, height: int, width: int, drawn: bool) -> Geometry:
        """Return where pixels go."""
        return mirrored(height, width, horizontal=False) if drawn else Geometry(IDENTITY, (height, width))
