"""Image files to arrays, and arrays to another number of channels."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_jax.data.decode import check_decoded_channels, decode, to_channels
from vit_jax.data.resizing import check_integer
from vit_jax.data.transforms.base import ImageTransform


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
