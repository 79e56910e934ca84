"""Resizing and cropping without randomness, as evaluation wants it.

Resizes with Pillow, antialiased, which is what published accuracies were measured with.
"""

import operator
from dataclasses import dataclass

import numpy as np

from vit_jax.data.resizing import INTERPOLATIONS, ROUNDINGS, Size, center_crop, pad_to, pair, resize
from vit_jax.data.transforms.base import ImageTransform
from vit_jax.errors import ConfigError, DataError, choose


@dataclass(frozen=True)
class Resize(ImageTransform):
    """Resize to exactly `size`, whatever the aspect ratio."""

    size: Size
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        pair(self.size, "resize: size")
        choose(self.interpolation, INTERPOLATIONS, "resize: interpolation")

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the resized image."""
        return resize(image, pair(self.size, "resize: size"), self.interpolation)


@dataclass(frozen=True)
class ResizeShort(ImageTransform):
    """Resize the short side to `size`, keeping the aspect ratio.

    For `(h, w)`, to the least size that covers it. The long side is rounded down, as torchvision does; if `h`
    and `w` differ, to the nearest, as timm does.
    """

    size: Size
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        pair(self.size, "resize_short: size")
        choose(self.interpolation, INTERPOLATIONS, "resize_short: interpolation")

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the resized image."""
        height, width = pair(self.size, "resize_short: size")
        h, w = image.shape[:2]
        # The side that needs the larger factor becomes exact; integers, because 3 * (2 / 3) is not 2.
        divide = operator.floordiv if height == width else lambda a, b: round(a / b)
        tall = height * w >= width * h
        covering = (height, divide(w * height, h)) if tall else (divide(h * width, w), width)
        return resize(image, covering, self.interpolation)


@dataclass(frozen=True)
class ResizeLong(ImageTransform):
    """Resize to the largest size with the same aspect ratio that fits into `size`."""

    size: Size
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        pair(self.size, "resize_long: size")
        choose(self.interpolation, INTERPOLATIONS, "resize_long: interpolation")

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the resized image."""
        height, width = pair(self.size, "resize_long: size")
        h, w = image.shape[:2]
        tall = height * w <= width * h
        fitting = (height, round(w * height / h)) if tall else (round(h * width / w), width)
        return resize(image, (max(1, fitting[0]), max(1, fitting[1])), self.interpolation)


@dataclass(frozen=True)
class CenterCrop(ImageTransform):
    """The middle `size` of an image.

    An odd margin is halved as torchvision does (`rounding` `even`), or down. A smaller image is an error,
    unless `fill`, a value or one per channel, says what to add around it.
    """

    size: Size
    rounding: str = "even"
    fill: int | tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        pair(self.size, "center_crop: size")
        choose(self.rounding, ROUNDINGS, "center_crop: rounding")
        values = (self.fill,) if isinstance(self.fill, int) else self.fill
        if values is not None and not all(isinstance(v, int) and 0 <= v <= 255 for v in values):
            raise ConfigError(f"center_crop: fill is {self.fill!r}; it must be integers from 0 to 255.")

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the crop."""
        height, width = pair(self.size, "center_crop: size")
        if self.fill is not None:
            image = pad_to(image, (height, width), self.fill)
        h, w = image.shape[:2]
        if h < height or w < width:
            raise DataError(
                f"the image is {h}x{w}, smaller than center_crop({(height, width)}); resize before, for "
                f"example with resize_short({max(height, width)})."
            )
        return center_crop(image, (height, width), self.rounding)
