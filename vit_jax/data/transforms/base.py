"""What a transform is: something done to an example, given an explicit random generator.

A transform is a frozen dataclass called with `(example, rng)`. Its arguments are checked when it is made, so
that mistakes in a configuration are found before any image is read. `transforms.registry` has the names that
configurations use.
"""

import math
from abc import ABC, abstractmethod
from typing import Any, TypeGuard

import numpy as np

from vit_jax.data.base import Example
from vit_jax.errors import ConfigError, DataError


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


def is_number(value: object) -> TypeGuard[float]:
    """Return whether a value is an integer or float."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def check_probability(value: object, name: str) -> None:
    """Raise `ConfigError` unless `value` is a number from 0 to 1."""
    if not is_number(value) or not 0 <= value <= 1:
        raise ConfigError(f"{name} is {value!r}; it must be from 0 to 1.")


def check_interval(interval: object, name: str, most: float) -> None:
    """Raise `ConfigError` unless `interval` is two numbers, `0 < low <= high <= most`."""
    pair = interval if isinstance(interval, tuple | list) and len(interval) == 2 else None
    if pair is None or not all(is_number(end) for end in pair) or not 0 < pair[0] <= pair[1] <= most:
        limit = f" <= {most:g}" if most < math.inf else ""
        raise ConfigError(f"{name} is {interval!r}; it must be two numbers, 0 < low <= high{limit}.")
