"""Real handwritten digits put together, for several labels an image, and turned, for a value: nothing is downloaded."""

import zlib
from typing import Any

import cv2
import numpy as np

from vit_jax.data.base import Source
from vit_jax.data.fields.several import Targets
from vit_jax.data.fields.targeted import Targeted
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.data.sources.digits import open_digits
from vit_jax.errors import ConfigError

DIGIT = 8  # pixels, of scikit-learn's
CELLS = 2  # in a row and in a column of a set
TURNED_SIDE, SCALE = 16, 1.5  # pixels of an image, and how much a digit is enlarged in it
ANGLE = 60.0  # degrees either way; more would make a 9 of a 6
MOST_TEST = 1000  # records to test on, at most


def open_sets(section: Any, split: str, shape: Any) -> Source:
    """Return what `data.source='digit_sets'` means."""
    return digit_sets(split, section.size)


def open_turned(section: Any, split: str, shape: Any) -> Source:
    """Return what `data.source='turned_digits'` means."""
    return turned_digits(split, section.size)


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


def _digits(split: str, size: int) -> tuple[np.ndarray, np.ndarray, np.random.Generator, int]:
    """Return the digits of a split with their classes, random numbers, and how many records there are."""
    if size < 1:
        raise ConfigError(f"data.size is {size}; it must be at least 1.")
    source = open_digits(split)
    found = source.take(np.arange(len(source)))
    rng = np.random.Generator(np.random.Philox(key=zlib.crc32(split.encode())))
    return found["image"][..., 0], found["label"], rng, size if split == "train" else min(size, MOST_TEST)
