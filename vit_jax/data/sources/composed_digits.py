"""Real handwritten digits put together, for several labels an image; turned, for a value; in frames of many shapes.

Nothing is downloaded: scikit-learn comes with the digits and with two photographs.
"""

import math
import zlib
from typing import Any

import cv2
import numpy as np

from vit_jax.data.base import Example, Source
from vit_jax.data.fields.several import Targets
from vit_jax.data.fields.targeted import Targeted
from vit_jax.data.fingerprint import array_digest, digest
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.data.sources.digit_scenes import TEST_COLUMNS, enlarged, photographs
from vit_jax.data.sources.digits import open_digits
from vit_jax.errors import ConfigError, choose

DIGIT = 8  # pixels, of scikit-learn's
CELLS = 2  # in a row and in a column of a set
TURNED_SIDE, SCALE = 16, 1.5  # pixels of an image, and how much a digit is enlarged in it
ANGLE = 60.0  # degrees either way; more would make a 9 of a 6
MOST_TEST = 1000  # records to test on, at most
SHORT = (16, 24)  # pixels of the short side of a frame
LONGEST = 4.0  # times the short one
SHARE = (0.7, 0.95)  # of the short side that a digit takes
TILT = np.pi / 12  # either way
DIMMED = 0.4  # of its brightness a photograph keeps behind a white digit


def open_sets(section: Any, split: str, shape: Any) -> Source:
    """Return what `data.source='digit_sets'` means."""
    return digit_sets(split, section.size)


def open_turned(section: Any, split: str, shape: Any) -> Source:
    """Return what `data.source='turned_digits'` means."""
    return turned_digits(split, section.size)


def open_framed(section: Any, split: str, shape: Any) -> Source:
    """Return what `data.source='framed_digits'` means."""
    return FramedDigits(split, section.size)


def digit_sets(split: str, size: int) -> Source:
    """Return images of one to four digits, 16 by 16 and grey, whose `labels` are which digits are there.

    Each digit fills one of four quarters. Digits of scikit-learn's test split are in no image to train
    on, and an image depends on its index alone, not on how many there are.

    Args:
      split: `train` or `test`.
      size: number of images; of the test split no more than `MOST_TEST`.
    """
    digits, classes, rng, size = _digits(split, size)
    images = np.zeros((size, CELLS * DIGIT, CELLS * DIGIT, 1), np.uint8)
    labels = np.zeros((size, 10), np.int8)
    for image, label in zip(images, labels):
        for place in rng.permutation(CELLS**2)[: rng.integers(1, CELLS**2 + 1)]:
            chosen = rng.integers(len(digits))
            top, left = np.array(divmod(place, CELLS)) * DIGIT
            image[top : top + DIGIT, left : left + DIGIT, 0] = digits[chosen]
            label[classes[chosen]] = 1
    name = f"the digit sets ({split})"
    return Targeted(
        ArraySource(images, None, name=name),
        "labels",
        Targets(labels, tuple(map(str, range(10))), True),
        name,
    )


def turned_digits(split: str, size: int) -> Source:
    """Return images of one digit each, 16 by 16 and grey, whose `value` is by how many degrees it was turned.

    It is turned up to 60 degrees either way, anticlockwise where that is positive. The grid of its few pixels is turned
    with it and can be seen, so that the angle is told better than how people slant what they write would let.

    Args:
      split, size: see `digit_sets`.
    """
    digits, _, rng, size = _digits(split, size)
    images = np.zeros((size, TURNED_SIDE, TURNED_SIDE, 1), np.uint8)
    angles = np.zeros((size, 1), np.float32)
    for image, angle in zip(images, angles):
        angle[0], chosen = rng.uniform(-ANGLE, ANGLE), rng.integers(len(digits))
        matrix = cv2.getRotationMatrix2D(((DIGIT - 1) / 2, (DIGIT - 1) / 2), float(angle[0]), SCALE)
        matrix[:, 2] += (TURNED_SIDE - DIGIT) / 2
        image[..., 0] = cv2.warpAffine(
            digits[chosen], matrix, (TURNED_SIDE, TURNED_SIDE), flags=cv2.INTER_LINEAR
        )
    name = f"the turned digits ({split})"
    return Targeted(ArraySource(images, None, name=name), "value", Targets(angles, ("angle",), True), name)


class FramedDigits(Source):
    """One white digit in each image, turned a little and anywhere in a dark frame of any aspect ratio.

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
        image = DIMMED * whole[top : top + height, left : left + width].astype(np.float32)
        angle = rng.uniform(-TILT, TILT)
        digit = self._digits[self._chosen[index]]
        # What is turned takes more room than its own sides.
        room = len(digit) * (abs(math.cos(angle)) + abs(math.sin(angle)))
        opacity = enlarged(digit, rng.uniform(*SHARE) * (sides[0] - 1) / room, angle)
        top, left = rng.integers(0, (height - len(opacity) + 1, width - len(opacity) + 1))
        place = image[top : top + len(opacity), left : left + len(opacity)]
        place += (255 - place) * opacity[..., None]
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


def _digits(split: str, size: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator, int]:
    """Return the digits of a split with their classes, random numbers, and how many records there are."""
    if size < 1:
        raise ConfigError(f"data.size is {size}; it must be at least 1.")
    source = open_digits(split)
    found = source.take(np.arange(len(source)))
    rng = np.random.Generator(np.random.Philox(key=zlib.crc32(split.encode())))
    return found["image"][..., 0], found["label"], rng, size if split == "train" else min(size, MOST_TEST)
