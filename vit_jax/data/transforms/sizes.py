"""Resizing and cropping without randomness, as evaluation wants it.

Resizes with Pillow, antialiased, which is what published accuracies were measured with.
"""

import operator
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from vit_jax.data.geometry import Geometry, cropped, resized
from vit_jax.data.images.resizing import INTERPOLATIONS, ROUNDINGS, Size, pad_to, pair, resize
from vit_jax.data.transforms.spatial import DrawnTransform
from vit_jax.errors import ConfigError, DataError, choose


class Resizing(DrawnTransform):
    """A resize to a size that depends on that of the image.

    Attributes:
      interpolation: a key of `INTERPOLATIONS`.
    """

    interpolation: str

    @abstractmethod
    def size_of(self, height: int, width: int, drawn: Any) -> tuple[int, int]:
        """Return the height and width of the result."""

    def moved(self, image: np.ndarray, drawn: Any) -> np.ndarray:
        """Return the resized image."""
        height, width, _ = image.shape
        return resize(image, self.size_of(height, width, drawn), self.interpolation)

    def geometry(self, height: int, width: int, drawn: Any) -> Geometry:
        """Return where pixels go."""
        return resized((height, width), self.size_of(height, width, drawn))


@dataclass(frozen=True)
class Resize(Resizing):
    """Resize to exactly `size`, whatever the aspect ratio."""

    size: Size
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        pair(self.size, "resize: size")
        choose(self.interpolation, INTERPOLATIONS, "resize: interpolation")

    def size_of(self, height: int, width: int, drawn: Any) -> tuple[int, int]:
        """Return the size."""
        return pair(self.size, "resize: size")


@dataclass(frozen=True)
class ResizeShort(Resizing):
    """Resize the short side to `size`, keeping the aspect ratio.

    For `(h, w)`, to the least size that covers it. The long side is rounded down, as torchvision does; if `h`
    and `w` differ, to the nearest, as timm does.
    """

    size: Size
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        pair(self.size, "resize_short: size")
        choose(self.interpolation, INTERPOLATIONS, "resize_short: interpolation")

    def size_of(self, height: int, width: int, drawn: Any) -> tuple[int, int]:
        """Return the least size that covers `size`."""
        h, w = pair(self.size, "resize_short: size")
        # The side that needs the larger factor becomes exact; integers, because 3 * (2 / 3) is not 2.
        divide = operator.floordiv if h == w else lambda a, b: round(a / b)
        tall = h * width >= w * height
        return (h, divide(width * h, height)) if tall else (divide(height * w, width), w)


@dataclass(frozen=True)
class ResizeLong(Resizing):
    """Resize to the largest size with the same aspect ratio that fits into `size`."""

    size: Size
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        pair(self.size, "resize_long: size")
        choose(self.interpolation, INTERPOLATIONS, "resize_long: interpolation")

    def size_of(self, height: int, width: int, drawn: Any) -> tuple[int, int]:
        """Return the largest size that fits into `size`."""
        return fitting((height, width), pair(self.size, "resize_long: size"))


def check_fill(fill: int | tuple[int, ...], name: str) -> None:
    """Raise `ConfigError` unless `fill` is a value of pixels or one per channel; `name` is that of the transform."""
    values = fill if isinstance(fill, tuple | list) else (fill,)
    if not values or not all(isinstance(v, int) and 0 <= v <= 255 for v in values):
        raise ConfigError(f"{name}: fill is {fill!r}; it must be integers from 0 to 255.")


def fitting(image: tuple[int, int], size: tuple[int, int]) -> tuple[int, int]:
    """Return the largest height and width of the aspect ratio of an image that fit into a size, at least 1."""
    (h, w), (height, width) = image, size
    tall = height * w <= width * h
    fits = (height, round(w * height / h)) if tall else (round(h * width / w), width)
    return max(1, fits[0]), max(1, fits[1])


@dataclass(frozen=True)
class CenterCrop(DrawnTransform):
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
        if self.fill is not None:
            check_fill(self.fill, "center_crop")

    @cached_property
    def _size(self) -> tuple[int, int]:
        return pair(self.size, "center_crop: size")

    def draw(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
        """Return top and left of the crop in the image, made large enough; nothing is random."""
        h, w = self._size
        if self.fill is None and (height < h or width < w):
            raise DataError(
                f"the image is {height}x{width}, smaller than center_crop({(h, w)}); resize it first, for example "
                f"with resize_short({max(h, w)})."
            )
        start = ROUNDINGS[self.rounding]
        return start(max(height, h) - h), start(max(width, w) - w)

    def moved(self, image: np.ndarray, drawn: tuple[int, int]) -> np.ndarray:
        """Return the crop."""
        (height, width), (top, left) = self._size, drawn
        if self.fill is not None:
            image = pad_to(image, (height, width), self.fill)
        return image[top : top + height, left : left + width]

    def geometry(self, height: int, width: int, drawn: tuple[int, int]) -> Geometry:
        """Return where pixels go."""
        h, w = self._size
        # Of what lacks, half is added before.
        top, left = drawn[0] - max(0, h - height) // 2, drawn[1] - max(0, w - width) // 2
        return cropped((top, left, h, w))
