"""Image files to arrays, and arrays to another number of channels."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from vit_jax.data.base import Example
from vit_jax.data.fields.following import FOLLOWING
from vit_jax.data.fields.table import check_plane
from vit_jax.data.images.decode import MAX_MEGAPIXELS, check_megapixels, decode, to_channels
from vit_jax.data.images.resizing import check_integer
from vit_jax.data.transforms.base import ImageTransform, Transform


@dataclass(frozen=True)
class Decode(ImageTransform):
    """Bytes of an image file to uint8 `(h, w, channels)`; arrays only get their channels converted.

    Files decode to 1 or 3 channels; arrays may have any number. Files of more than `max_megapixels` are refused.
    """

    takes_files: ClassVar[bool] = True

    channels: int = 3
    max_megapixels: float = MAX_MEGAPIXELS

    def __post_init__(self) -> None:
        check_integer(self.channels, "decode: channels", 1)
        check_megapixels(self.max_megapixels, "decode: max_megapixels")

    @property
    def max_pixels(self) -> int:
        """Largest area of a file's image."""
        return round(1e6 * self.max_megapixels)

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Return the example with pixels, which what lies in their plane must fit; an error names the record."""
        decoded = super().__call__(example, rng)
        if isinstance(example["image"], bytes) and not FOLLOWING.isdisjoint(example):
            return sized(decoded, decoded["image"].shape[:2])
        return decoded

    def image(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return the pixels."""
        if isinstance(image, bytes):
            return decode(image, self.channels, self.max_pixels)
        return to_channels(image, self.channels)


def sized(example: Example, size: tuple[int, ...]) -> Example:
    """Return an example whose image has turned out to be of some height and width, with `size` if `geometry` is kept.

    Raises:
      DataError: what lies in its plane does not fit; the record is named.
    """
    check_plane(example, size)
    return {**example, "size": np.array(size, np.int32)} if "geometry" in example else example


def limited(transforms: Sequence[Transform], max_megapixels: float) -> list[Transform]:
    """Return transforms whose `decode` takes images of so many megapixels, unless it says another number itself."""
    return [
        replace(step, max_megapixels=max_megapixels)
        if isinstance(step, Decode) and step.max_megapixels == MAX_MEGAPIXELS
        else step
        for step in transforms
    ]


@dataclass(frozen=True)
class ToChannels(ImageTransform):
    """Grey from RGB, or a grey image repeated."""

    channels: int

    def __post_init__(self) -> None:
        check_integer(self.channels, "to_channels: channels", 1)

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the image with `channels` channels."""
        return to_channels(image, self.channels)
