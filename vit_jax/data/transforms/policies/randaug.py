"""RandAugment as big_vision defines it, and so AugReg and the "better baseline"."""

import functools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vit_jax.data.transforms.base import is_number
from vit_jax.data.transforms.policies import geometric as g
from vit_jax.data.transforms.policies import photometric as p
from vit_jax.data.transforms.policies.operations import (
    Operation,
    PolicyTransform,
    check_count,
    check_pixels,
    signed,
)
from vit_jax.errors import ConfigError


@dataclass(frozen=True)
class RandAug(PolicyTransform):
    """Apply `number` operations drawn at random, each always, at one `magnitude`.

    What is published has two mistakes, which `as_published` repeats: `contrast` mixes with a grey that depends on the
    image's size instead of its mean (later corrected), and TensorFlow takes the threshold of `solarize`, 25.6 times
    the magnitude, modulo 256, so that magnitudes 10 and 20 invert all of the image. Pixels are moved to the
    nearest, and 128 is filled in. Against TensorFlow 2.21: brightness and contrast equal, colour and sharpness
    within 1, fewer than 1 in 1000 pixels moved elsewhere by rotations.

    Reference: Cubuk et al. 2019, RandAugment, arXiv 1909.13719; used by Steiner et al. 2021, arXiv 2106.10270,
    and Beyer et al. 2022, arXiv 2205.01580.
    """

    interpolation: ClassVar[str] = "nearest"  # pyright: ignore[reportIncompatibleVariableOverride]
    fill: ClassVar[g.Fill] = 128  # pyright: ignore[reportIncompatibleVariableOverride]

    number: int = 2
    magnitude: float = 10
    as_published: bool = True

    def __post_init__(self) -> None:
        check_count(self.number, "randaug: number")
        if not is_number(self.magnitude) or not 0 <= self.magnitude <= 30:
            raise ConfigError(f"randaug: magnitude is {self.magnitude!r}; it must be from 0 to 30.")
        if not isinstance(self.as_published, bool):
            raise ConfigError(f"randaug: as_published is {self.as_published!r}; it must be True or False.")

    def chosen(self, image: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[Operation, float]]:
        """Yield the operations of an image."""
        check_pixels(image, "randaug")
        operations = _operations(self.as_published)
        for _ in range(self.number):
            yield operations[int(rng.random() * len(operations))], self.magnitude


@functools.cache
def _operations(as_published: bool) -> tuple[Operation, ...]:
    """Return the sixteen operations."""

    def enhanced(level: float, rng: np.random.Generator) -> float:
        return level / 10 * 1.8 + 0.1

    modulus = 256 if as_published else 513
    return (
        Operation(p.autocontrast),
        Operation(p.equalize),
        Operation(p.invert),
        Operation(g.rotate, signed(30), g.rotated),
        Operation(p.posterize, lambda level, rng: int(level / 10 * 4)),
        Operation(p.solarize, lambda level, rng: int(level / 10 * 256) % modulus),
        Operation(p.color, enhanced),
        Operation(p.contrast_with_area if as_published else p.contrast, enhanced),
        Operation(p.brightness, enhanced),
        Operation(p.sharpness, enhanced),
        Operation(_shear_x, signed(0.3), _sheared_x),
        Operation(_shear_y, signed(0.3), _sheared_y),
        Operation(g.translate_x, signed(100), g.shifted_x),
        Operation(g.translate_y, signed(100), g.shifted_y),
        Operation(_cutout, lambda level, rng: (int(level / 10 * 40), rng.random(), rng.random()), _staying),
        Operation(p.solarize_add, lambda level, rng: int(level / 10 * 110)),
    )


def _sheared_x(height: int, width: int, factor: float) -> g.Matrix:
    """Return a shear about the first pixel's centre, as TensorFlow's; Pillow shears about its corner."""
    return 1, factor, -factor / 2, 0, 1, 0


def _sheared_y(height: int, width: int, factor: float) -> g.Matrix:
    return 1, 0, 0, factor, 1, -factor / 2


def _staying(height: int, width: int, where: object) -> g.Matrix:
    return 1, 0, 0, 0, 1, 0


def _shear_x(image: np.ndarray, factor: float, interpolation: str, fill: g.Fill) -> np.ndarray:
    return g.affine(image, _sheared_x(image.shape[0], image.shape[1], factor), interpolation, fill)


def _shear_y(image: np.ndarray, factor: float, interpolation: str, fill: g.Fill) -> np.ndarray:
    return g.affine(image, _sheared_y(image.shape[0], image.shape[1], factor), interpolation, fill)


def _cutout(
    image: np.ndarray, where: tuple[int, float, float], interpolation: str, fill: g.Fill
) -> np.ndarray:
    """Fill a square about a random pixel; `where` is half its side, and the shares of height and width before it.

    Reference: DeVries, Taylor 2017, arXiv 1708.04552.
    """
    half, *shares = where
    y, x = (math.floor(share * size) for share, size in zip(shares, image.shape))
    image = image.copy()
    image[max(0, y - half) : y + half, max(0, x - half) : x + half] = fill
    return image
