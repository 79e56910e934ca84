"""Handwritten digits on cuttings of photographs that are up to four times as long as they are high, or the reverse.

Nothing is downloaded: scikit-learn comes with the digits and with two photographs.
"""

import math
import zlib
from typing import Any

import numpy as np

from vit_jax.data.base import Example, Source
from vit_jax.data.fingerprint import array_digest, digest
from vit_jax.data.sources.digit_scenes import TEST_COLUMNS, coloured, enlarged, photographs
from vit_jax.data.sources.digits import open_digits
from vit_jax.errors import ConfigError, choose

SHORT = (16, 24)  # pixels of the short side
LONGEST = 4.0  # times the short one
SHARE = (0.7, 0.95)  # of the short side that a digit takes
ANGLE = np.pi / 12  # either way


class FramedDigits(Source):
    """One digit in each image, coloured, turned a little and anywhere in a frame of any aspect ratio.

    An image is a function of its index. Digits and parts of the photographs to test on are in no image to train on.

    Args:
      split: `train` or `test`.
      size: number of images.

    Raises:
      DataError: scikit-learn is not installed.
    """

    class_names = tuple(map(str, range(10)))

    def __init__(self, split: str, size: int):
        choose(split, ("train", "test"), "the split of the framed digits")
        if size < 1:
            raise ConfigError(f"data.size is {size}; it must be at least 1.")
        self._split, self._stream = split, zlib.crc32(b"framed " + split.encode())
        digits = open_digits(split)
        found = digits.take(np.arange(len(digits)))
        rng = np.random.Generator(np.random.Philox(key=self._stream))
        self._chosen = rng.integers(len(digits), size=size)
        self._digits = found["image"][..., 0]
        self._labels = found["label"][self._chosen].astype(np.int32)
        self.labels = self._labels
        columns = slice(TEST_COLUMNS) if split == "test" else slice(TEST_COLUMNS, None)
        self._photographs = [photograph[:, columns] for photograph in photographs()]

    def __len__(self) -> int:
        return len(self._chosen)

    def __getitem__(self, index: int) -> Example:
        rng = np.random.Generator(np.random.Philox(key=self._stream, counter=[0, 0, 0, 1 + index]))
        short, ratio = float(rng.uniform(*SHORT)), math.exp(rng.uniform(0, math.log(LONGEST)))
        sides = round(short), round(short * ratio)
        height, width = sides if rng.integers(2) else sides[::-1]
        whole = self._photographs[rng.integers(len(self._photographs))]
        top, left = rng.integers(0, (whole.shape[0] - height + 1, whole.shape[1] - width + 1))
        image = whole[top : top + height, left : left + width].astype(np.float32)
        angle = rng.uniform(-ANGLE, ANGLE)
        digit = self._digits[self._chosen[index]]
        # What is turned takes more room than its own sides.
        room = len(digit) * (abs(math.cos(angle)) + abs(math.sin(angle)))
        opacity = enlarged(digit, rng.uniform(*SHARE) * (sides[0] - 1) / room, angle)
        top, left = rng.integers(0, (height - len(opacity) + 1, width - len(opacity) + 1))
        coloured(image[top : top + len(opacity), left : left + len(opacity)], opacity, rng)
        return {
            "image": np.rint(image).astype(np.uint8),
            "label": int(self._labels[index]),
            "record": self.name_of(index),
        }

    def name_of(self, index: int) -> str:
        """Return what messages call an image."""
        return f"framed digit {index} ({self._split})"

    def fingerprint(self) -> str:
        """Return a checksum of what the images are made of."""
        parts = (array_digest(part) for part in (self._digits, self._chosen, *self._photographs))
        return digest(*parts, self._split)


def open_section(section: Any, split: str, shape: Any) -> FramedDigits:
    """Return what `data.source='framed_digits'` means."""
    return FramedDigits(split, section.size)
