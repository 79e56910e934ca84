"""Image transforms: what one does to an example, given an explicit random generator.

A transform is a frozen dataclass called with `(example, rng)`. Its arguments are checked when it is made, so
that mistakes in a configuration are found before any image is read. `TRANSFORMS` is the one list of names
that configurations may use (`vit_jax.data.spec`).

Evaluation resizes with Pillow, antialiased, which is what published accuracies were measured with. Random
crops resize with OpenCV: area averaging when the crop shrinks, which is nearly Pillow's result at half the
cost, and the interpolation asked for when it grows.
"""

import math
import operator
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from vit_jax.data.base import Example, Source
from vit_jax.data.decode import check_decoded_channels, decode, to_channels
from vit_jax.data.resizing import (
    INTERPOLATIONS,
    ROUNDINGS,
    Size,
    center_crop,
    check_integer,
    pad_to,
    pair,
    resize,
)
from vit_jax.errors import ConfigError, DataError, choose

_OPENCV = {
    "nearest": cv2.INTER_NEAREST_EXACT,
    "bilinear": cv2.INTER_LINEAR,
    "bicubic": cv2.INTER_CUBIC,
    "lanczos": cv2.INTER_LANCZOS4,
}

# The pipeline decodes images in as many threads as there are cores; threads within one image would compete.
cv2.setNumThreads(0)


class Transform(ABC):
    """Something done to an example; may read and write any of its entries."""

    @abstractmethod
    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Return the changed example; the given one stays as it is."""


class ImageTransform(Transform):
    """Something done to the image alone."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Return the example with another image; an error names the record."""
        try:
            return {**example, "image": self.image(example["image"], rng)}
        except DataError as error:
            raise DataError(f"{example['record']}: {error}") from error

    @abstractmethod
    def image(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return the changed image, `(h, w, c)`."""


@dataclass(frozen=True)
class Decode(ImageTransform):
    """Bytes of an image file to uint8 `(h, w, channels)`; arrays only get their channels converted."""

    channels: int = 3

    def __post_init__(self) -> None:
        check_decoded_channels(self.channels)

    def image(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return the pixels."""
        return decode(image, self.channels) if isinstance(image, bytes) else to_channels(image, self.channels)


@dataclass(frozen=True)
class ToChannels(ImageTransform):
    """Grey from RGB, or a grey image repeated."""

    channels: int

    def __post_init__(self) -> None:
        check_integer(self.channels, "to_channels: channels", 1)

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the image with `channels` channels."""
        return to_channels(image, self.channels)


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
        _check_interval(self.scale, "random_resized_crop: scale", 1.0)
        _check_interval(self.ratio, "random_resized_crop: ratio", math.inf)
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
        if not _is_number(self.probability) or not 0 <= self.probability <= 1:
            raise ConfigError(f"flip_lr: probability is {self.probability!r}; it must be from 0 to 1.")

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


TRANSFORMS: dict[str, type[Transform]] = {
    "decode": Decode,
    "to_channels": ToChannels,
    "resize": Resize,
    "resize_short": ResizeShort,
    "resize_long": ResizeLong,
    "center_crop": CenterCrop,
    "random_resized_crop": RandomResizedCrop,
    "flip_lr": FlipLeftRight,
    "pad_crop": PadCrop,
}


def default_transforms(
    preprocessing: Any, image_size: Size, channels: int, source: Source | None = None
) -> tuple[str, str]:
    """Return the standard training and evaluation transforms, as configurations write them.

    Image files: random resized crop and flip; evaluation as the model's preprocessing says. Arrays of the
    model's size: nothing. Other arrays: resized.

    Args:
      preprocessing: of the model; has `interpolation`, `crop_mode`, `crop_rounding` and `resized`.
      image_size: of the model.
      channels: of the model.
      source: where images come from; None for image files.
    """
    height, width = pair(image_size, "image_size")
    size = _text((height, width))
    interpolation = repr(preprocessing.interpolation)
    if source is not None and source.image_shape is not None:
        present = source.image_shape
        steps = [f"to_channels({channels})"] * (present[2] != channels)
        steps += [f"resize({size}, {interpolation})"] * (present[:2] != (height, width))
        return "|".join(steps), "|".join(steps)
    decoding = "decode" if channels == 3 else f"decode({channels})"
    train = f"{decoding}|random_resized_crop({size}, interpolation={interpolation})|flip_lr"
    evaluation = [decoding, *_evaluation(preprocessing, (height, width), channels)]
    return train, "|".join(evaluation)


def _evaluation(preprocessing: Any, size: tuple[int, int], channels: int) -> list[str]:
    """Return resizing and cropping."""
    resized, mode = preprocessing.resized(size), preprocessing.crop_mode
    kind = {"center": "resize_short", "squash": "resize", "border": "resize_long"}[mode]
    resizing = f"{kind}({_text(resized)}, {preprocessing.interpolation!r})"
    if mode == "squash" and resized == size:
        return [resizing]
    options = f", {preprocessing.crop_rounding!r}" if preprocessing.crop_rounding != "even" else ""
    if mode == "border":
        mean = tuple(round(255 * value) for value in preprocessing.mean)
        options += f", fill={mean if len(mean) == channels else round(sum(mean) / len(mean))}"
    elif resized[0] < size[0] or resized[1] < size[1]:
        options += ", fill=0"
    return [resizing, f"center_crop({_text(size)}{options})"]


def _text(size: tuple[int, int]) -> str:
    return str(size[0]) if size[0] == size[1] else str(size)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _check_interval(interval: object, name: str, most: float) -> None:
    pair = interval if isinstance(interval, tuple | list) and len(interval) == 2 else None
    if pair is None or not all(_is_number(end) for end in pair) or not 0 < pair[0] <= pair[1] <= most:
        limit = f" <= {most:g}" if most < math.inf else ""
        raise ConfigError(f"{name} is {interval!r}; it must be two numbers, 0 < low <= high{limit}.")
