"""Scenes of handwritten digits on photographs: real strokes and pixels, put together with exact targets.

Nothing is downloaded: scikit-learn comes with the digits and with two photographs.
"""

import colorsys
import zlib
from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from vit_jax.data.base import Example, Source
from vit_jax.data.fingerprint import array_digest, digest
from vit_jax.data.images.decode import load_image
from vit_jax.data.sources.digits import open_digits, scikit_learn
from vit_jax.errors import ConfigError, choose

SIDE = 128  # pixels
DIGITS = (3, 8)  # in a scene
SCALES = (2.0, 5.0)  # of an image of 8x8
ANGLE = np.pi / 6  # either way; more would make a 9 of a 6
VISIBLE = 0.5  # of each digit, at least
CONTRAST = 120  # of a digit to what lies under it, over the three channels together
PHOTOGRAPHS = ("china", "flower")
# Columns of a photograph that scenes to test on are cut from; those to train on are cut from the rest.
TEST_COLUMNS = 192
CLASS_NAMES = (*map(str, range(10)), *PHOTOGRAPHS)
FIELDS = ("image", "segmentation", "masks", "boxes", "classes")


@dataclass(frozen=True)
class Scene:
    """A scene and everything that is true of it; `g` digits, in the order in which they were laid down.

    Attributes:
      image: uint8 `(h, w, 3)`.
      segmentation: int32 `(h, w)`: the digit that is seen in a pixel, or 10 and more for the photograph.
      masks: bool `(g, h, w)`, what is seen of each digit.
      boxes: float32 `(g, 4)`, x and y of the first corner and of the last, around what is seen.
      classes: int32 `(g,)`.
    """

    image: np.ndarray
    segmentation: np.ndarray
    masks: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray


class SceneSource(Source):
    """Three to eight digits, enlarged, turned, coloured and overlapping, on one or two photographs.

    A scene is a function of seed and index. Digits and parts of the photographs that scenes to test on are made of
    are in no scene to train on.

    Args:
      split: `train` or `test`.
      size: number of scenes.
      seed: of the scenes.
      fields: which of `FIELDS` a record has.

    Raises:
      DataError: scikit-learn is not installed.
    """

    image_shape = (SIDE, SIDE, 3)
    class_names = CLASS_NAMES

    def __init__(
        self, split: str, size: int, seed: int = 0, fields: Collection[str] = ("image", "segmentation")
    ):
        choose(split, ("train", "test"), "the split of the digit scenes")
        if size < 1:
            raise ConfigError(f"data.size is {size}; it must be at least 1.")
        self.fields = tuple(fields)
        for field in self.fields:
            choose(field, FIELDS, "a field of the digit scenes")
        self._split, self._size, self._seed, self._stream = split, size, seed, zlib.crc32(split.encode())
        digits = open_digits(split)
        assert digits.labels is not None
        self._digits = digits.take(np.arange(len(digits)))["image"][..., 0]
        self._labels = digits.labels
        columns = slice(TEST_COLUMNS) if split == "test" else slice(TEST_COLUMNS, None)
        self._photographs = [photograph[:, columns] for photograph in photographs()]

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Example:
        found = self.scene(index)
        return {**{name: getattr(found, name) for name in self.fields}, "record": self.name_of(index)}

    def name_of(self, index: int) -> str:
        """Return what messages call a scene."""
        return f"digit scene {index} ({self._split})"

    def fingerprint(self) -> str:
        """Return a checksum of what the scenes are made of."""
        parts = (array_digest(part) for part in (self._digits, self._labels, *self._photographs))
        return digest(*parts, self._split, self._size, self._seed, ",".join(self.fields))

    def scene(self, index: int) -> Scene:
        """Return a scene with everything that is true of it."""
        rng = np.random.Generator(np.random.Philox(key=[self._seed, self._stream], counter=[0, 0, 0, index]))
        image, segmentation = self._background(rng)
        count = int(rng.integers(DIGITS[0], DIGITS[1] + 1))
        masks = np.zeros((count, SIDE, SIDE), np.bool_)
        classes, areas, seen = (np.zeros(count, np.int32) for _ in range(3))
        g = 0
        for _ in range(20 * count):  # a few are refused, because of what they would hide
            if g == count:
                break
            digit = int(rng.integers(len(self._labels)))
            opacity = enlarged(self._digits[digit], rng.uniform(*SCALES), rng.uniform(-ANGLE, ANGLE))
            top, left = rng.integers(0, SIDE - np.asarray(opacity.shape) + 1)
            window = (slice(top, top + len(opacity)), slice(left, left + len(opacity)))
            mask = opacity > 0.5
            hidden = (masks[:g, *window] & mask).sum(axis=(1, 2))
            if (seen[:g] - hidden < VISIBLE * areas[:g]).any():
                continue
            coloured(image[window], opacity, rng)
            masks[:g, *window] &= ~mask
            masks[g, *window] = mask
            seen[:g] -= hidden
            seen[g] = areas[g] = mask.sum()
            classes[g] = self._labels[digit]
            segmentation[window][mask] = classes[g]
            g += 1
        boxes = np.stack([box_of(mask) for mask in masks[:g]])
        return Scene(np.rint(image).astype(np.uint8), segmentation, masks[:g], boxes, classes[:g])

    def _background(self, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Return float32 pixels and the classes of a photograph, or of two on the sides of a line."""
        one, other = (int(value) for value in rng.integers(len(PHOTOGRAPHS), size=2))
        rows, columns = np.ogrid[:SIDE, :SIDE]
        angle, (y, x) = rng.uniform(0, 2 * np.pi), rng.uniform(SIDE / 4, 3 * SIDE / 4, size=2)
        side = (columns - x) * np.cos(angle) + (rows - y) * np.sin(angle) > 0
        image = np.where(side[..., None], self._crop(one, rng), self._crop(other, rng))
        return image.astype(np.float32), np.where(side, 10 + one, 10 + other).astype(np.int32)

    def _crop(self, photograph: int, rng: np.random.Generator) -> np.ndarray:
        whole = self._photographs[photograph]
        top, left = rng.integers(0, np.asarray(whole.shape[:2]) - SIDE + 1)
        return whole[top : top + SIDE, left : left + SIDE]


@cache
def photographs() -> tuple[np.ndarray, ...]:
    """Return the photographs that scikit-learn comes with, uint8 `(427, 640, 3)` each."""
    folder = scikit_learn() / "datasets" / "images"
    return tuple(load_image(folder / f"{name}.jpg") for name in PHOTOGRAPHS)


def enlarged(digit: np.ndarray, scale: float, angle: float) -> np.ndarray:
    """Return how much of each pixel an enlarged and turned digit covers.

    Args:
      digit: uint8 `(h, w)`.
      scale: pixels for each of the digit's.
      angle: in radians, clockwise.

    Returns:
      float32 `(s, s)` from 0 to 1, with a margin of less than a pixel around the turned square.
    """
    cosine, sine = np.cos(angle) / scale, np.sin(angle) / scale
    side = int(np.ceil(max(digit.shape) * scale * (abs(np.cos(angle)) + abs(np.sin(angle)))))
    y, x = np.indices((side, side)) + 0.5 - side / 2
    # Where each pixel lies in the digit, which has a margin of zeros.
    padded = np.pad(digit.astype(np.float32), 1)
    rows = np.clip(cosine * y - sine * x + digit.shape[0] / 2 + 0.5, 0, padded.shape[0] - 1.001)
    columns = np.clip(sine * y + cosine * x + digit.shape[1] / 2 + 0.5, 0, padded.shape[1] - 1.001)
    top, left = rows.astype(np.int64), columns.astype(np.int64)
    down, across = rows - top, columns - left
    upper = padded[top, left] * (1 - across) + padded[top, left + 1] * across
    lower = padded[top + 1, left] * (1 - across) + padded[top + 1, left + 1] * across
    grey = upper * (1 - down) + lower * down
    # An edge is half a pixel wide at every scale: wider, and nobody could say of what a pixel is.
    return np.clip((grey - 128) * scale / 128 + 0.5, 0, 1).astype(np.float32)


def box_of(mask: np.ndarray) -> np.ndarray:
    """Return the box around the true pixels of `(h, w)`: x and y of its first corner and of its last, float32."""
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return np.asarray([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float32)


def coloured(pixels: np.ndarray, opacity: np.ndarray, rng: np.random.Generator) -> None:
    """Lay a vivid colour over pixels, float32 `(h, w, 3)`, that differs from what lies under it, in place."""
    pixels += opacity[..., None] * (_colour(pixels[opacity > 0.5].mean(axis=0), rng) - pixels)


def _colour(under: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return a vivid colour, float32 `(3,)`, that differs from what lies under it."""
    while True:
        colour = 255 * np.asarray(colorsys.hsv_to_rgb(rng.uniform(), 1, 1), np.float32)
        if np.abs(colour - under).sum() >= CONTRAST:
            return colour


def open_section(section: Any, split: str, shape: Any) -> SceneSource:
    """Return what `data.source='digit_scenes'` means."""
    return SceneSource(split, section.size)
