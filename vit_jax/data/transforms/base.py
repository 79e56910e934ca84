"""What a transform is: something done to an example, given an explicit random generator.

A transform is a frozen dataclass called with `(example, rng)`. Its arguments are checked when it is made, so
that mistakes in a configuration are found before any image is read. `transforms.registry` has the names that
configurations use.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Collection
from typing import Any, ClassVar, TypeGuard

import numpy as np

from vit_jax.data.base import Example
from vit_jax.errors import ConfigError, DataError

_PIXELS = (np.dtype(np.uint8), np.dtype(np.float32))
_NOTHING = object()


class Transform(ABC):
    """Something done to an example; may read and write any of its entries."""

    def refusal(self, fields: Collection[str]) -> str:
        """Return why records with these fields cannot go through it, or nothing: by default all can."""
        return ""

    @abstractmethod
    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Return the changed example; the given one stays as it is."""


class MisfitError(DataError):
    """Records and transforms that do not go together: no record is to blame, so none is skipped."""


class ImageTransform(Transform):
    """Something done to the image alone.

    Attributes:
      takes_files: whether it takes the contents of image files, and not only pixels.
      colours: what channels mean after it, where that is another thing: training and evaluation must mean the same.
    """

    takes_files: ClassVar[bool] = False
    colours: ClassVar[str] = ""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Return the example with another image; an error names the record."""
        image = checked_image(example, self.takes_files)
        try:
            return {**example, "image": self.image(image, rng)}
        except DataError as error:
            raise type(error)(f"{example['record']}: {error}") from error

    @abstractmethod
    def image(self, image: Any, rng: np.random.Generator) -> np.ndarray:
        """Return the changed image, `(h, w, c)`."""


def checked_image(example: Example, takes_files: bool = False) -> Any:
    """Return the image of an example.

    Raises:
      MisfitError: there is none, it is still encoded, or it is not one array of pixels.
    """
    image = example.get("image", _NOTHING)
    if isinstance(image, np.ndarray) and image.ndim == 3 and image.size and image.dtype in _PIXELS:
        return image
    if isinstance(image, bytes) and takes_files:
        return image
    record = example.get("record", "the image")
    if isinstance(image, bytes):
        raise MisfitError(f"{record} is still encoded; begin the transforms with decode.")
    if image is _NOTHING:
        left = ", ".join(sorted(example.keys() - {"label", "record"})) or "nothing"
        raise MisfitError(
            f"{record} has {left} but no image any more; put image transforms before multi_crop."
        )
    if not isinstance(image, np.ndarray):
        raise MisfitError(
            f"{record} is a {type(image).__name__}; give arrays (h, w, c), or the bytes of image files."
        )
    raise MisfitError(
        f"{record} is {image.dtype} of shape {image.shape}; transforms take one image, uint8 or float32 (h, w, c) "
        "with values from 0 to 255."
    )


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
