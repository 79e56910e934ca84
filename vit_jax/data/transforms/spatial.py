"""Transforms that move pixels: what each does to the plane is a `Geometry`, which all other fields follow."""

from abc import abstractmethod
from typing import Any

import numpy as np

from vit_jax.data.base import Example
from vit_jax.data.fields.following import FOLLOWING, followed
from vit_jax.data.geometry import Geometry
from vit_jax.data.transforms.base import ImageTransform, MisfitError, checked_image
from vit_jax.errors import DataError


class SpatialTransform(ImageTransform):
    """Something done to the image that moves its pixels; what lies in its plane goes with them."""

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Return the example with another image and what follows it; an error names the record."""
        image = checked_image(example, self.takes_files)
        if "token_image" in example:
            raise MisfitError(
                f"{type(self).__name__} would move image and not token_image; put it before token_crop or token_image."
            )
        try:
            if FOLLOWING.isdisjoint(example):
                return {**example, "image": self.image(image, rng)}
            image, geometry = self.placed(image, rng)
        except DataError as error:
            raise type(error)(f"{example['record']}: {error}") from error
        return {**followed(example, geometry), "image": image}

    @abstractmethod
    def placed(self, image: Any, rng: np.random.Generator) -> tuple[np.ndarray, Geometry]:
        """Return the image that `image` returns, `(h, w, c)`, and where its pixels went."""


class DrawnTransform(SpatialTransform):
    """A transform that draws all it needs to know from the size of an image: so images alone need no geometry."""

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Any:
        """Return what is random, for an image of the given size; nothing by default."""
        return None

    @abstractmethod
    def moved(self, image: np.ndarray, drawn: Any) -> np.ndarray:
        """Return the changed image, `(h, w, c)`."""

    @abstractmethod
    def geometry(self, height: int, width: int, drawn: Any) -> Geometry:
        """Return where the pixels of an image of the given size go."""

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the changed image, `(h, w, c)`."""
        height, width, _ = image.shape
        return self.moved(image, self.draw(height, width, rng))

    def placed(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Geometry]:
        """Return the changed image and where its pixels went."""
        height, width, _ = image.shape
        drawn = self.draw(height, width, rng)
        return self.moved(image, drawn), self.geometry(height, width, drawn)
