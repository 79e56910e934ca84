"""Images that keep their aspect ratio: as many patches as a budget allows, and padding (NaFlex).

Source: Tschannen et al. 2025, SigLIP 2, arXiv 2502.14786; Dehghani et al. 2023, NaViT, arXiv 2307.06304.
"""

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vit_jax.data.base import Example
from vit_jax.data.fields.following import followed
from vit_jax.data.fields.table import PLANE
from vit_jax.data.geometry import resized
from vit_jax.data.images.resizing import INTERPOLATIONS, Size, check_integer, pair, resize
from vit_jax.data.transforms.base import Transform, check_interval, checked_image
from vit_jax.data.transforms.crops import Box, Crop, RandomResizedCrop
from vit_jax.errors import DataError, choose

MOST_ENLARGED = 100  # times; as published


def naflex_grid(
    image: tuple[int, int], patches: int, patch_size: tuple[int, int], most: int = MOST_ENLARGED
) -> tuple[int, int]:
    """Return rows and columns of the patches that an image is resized to.

    The image is scaled by the largest factor with which its patches, those at the edge counted whole, are within the
    budget; then both sides are stretched to whole patches. A side has at least one.

    Args:
      image: height and width.
      patches: the budget, at least 1.
      patch_size: height and width of a patch.
      most: the largest factor.
    """
    (h, w), (p, q) = image, patch_size

    def largest(along: int, across: int) -> int:
        """Return the most patches along a side that leave the others, `across / along` as many, within the budget."""
        count = max(1, min(patches, math.isqrt(patches * along // across)))
        while count > 1 and count * -(-count * across // along) > patches:
            count -= 1
        return count

    # In patches, one side is a*count and the other b*count: only where a side is whole does anything change.
    rows, columns = largest(h * q, w * p), largest(w * p, h * q)
    by_rows = rows, -(-rows * w * p // (h * q))
    by_columns = -(-columns * h * q // (w * p)), columns
    fitting = [grid for grid in (by_rows, by_columns) if grid[0] * grid[1] <= patches]
    limit = -(-most * h // p), -(-most * w // q)
    grid = max(fitting)
    return min(grid[0], limit[0]), min(grid[1], limit[1])


@dataclass(frozen=True)
class Naflex(Transform):
    """Resize to at most `patches` patches, the aspect ratio kept up to whole patches, and cut the image into them.

    `image` becomes uint8 `(patches, p*q*c)`, row by row and zero behind the last patch, and `grid` int32 `(2,)` is how
    many rows and columns there are. It is the last transform. Sizes are those of SigLIP 2's published preprocessing.
    """

    patches: int
    patch_size: Size
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        check_integer(self.patches, "naflex: patches", 1)
        pair(self.patch_size, "naflex: patch_size")
        choose(self.interpolation, INTERPOLATIONS, "naflex: interpolation")

    def refusal(self, fields: Collection[str]) -> str:
        """Return that something lies in the plane of the image, which patches are not, if so."""
        odd = ", ".join(sorted(PLANE.intersection(fields)))
        return odd and (
            f"naflex cuts the image into patches, which {odd} cannot follow; leave it out, or give records without "
            f"{odd}."
        )

    @cached_property
    def _patch(self) -> tuple[int, int]:
        return pair(self.patch_size, "naflex: patch_size")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Return the example with patches as its image, and their `grid`; an error names the record."""
        image = checked_image(example)
        (height, width, _), (p, q) = image.shape, self._patch
        rows, columns = grid = naflex_grid((height, width), self.patches, (p, q))
        size = rows * p, columns * q
        try:
            image = resize(image, size, self.interpolation)
        except DataError as error:
            raise type(error)(f"{example['record']}: {error}") from error
        example = followed(example, resized((height, width), size)) if "geometry" in example else example
        return {**example, "image": cut(image, (p, q), self.patches), "grid": np.asarray(grid, np.int32)}


def cut(image: np.ndarray, patch_size: tuple[int, int], count: int) -> np.ndarray:
    """Return the patches of an image `(h, w, c)`, row by row and zeros behind them, `(count, p*q*c)`."""
    (h, w, c), (p, q) = image.shape, patch_size
    whole = image.reshape(h // p, p, w // q, q, c).swapaxes(1, 2)
    patches = np.zeros((count, p * q * c), image.dtype)
    patches[: (h // p) * (w // q)] = whole.reshape(-1, p * q * c)
    return patches


def joined(patches: np.ndarray, grid: np.ndarray, patch_size: tuple[int, int]) -> np.ndarray:
    """Return the image `(h, w, c)` that patches `(n, p*q*c)` were cut from, `grid` being how many there are."""
    (rows, columns), (p, q) = map(int, grid), patch_size
    whole = patches[: rows * columns].reshape(rows, columns, p, q, -1).swapaxes(1, 2)
    return whole.reshape(rows * p, columns * q, -1)


@dataclass(frozen=True)
class NativeCrop(Crop):
    """A random part of the image as it is: its area uniform in `scale`, its aspect ratio the image's times `ratio`.

    The factor is log-uniform. It is `random_resized_crop` without the resize, for images that keep their shape.
    """

    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)

    def __post_init__(self) -> None:
        check_interval(self.scale, "native_crop: scale", 1.0)
        check_interval(self.ratio, "native_crop: ratio", math.inf)

    def box(self, height: int, width: int, rng: np.random.Generator) -> Box:
        """Return top, left, height and width of a random part of an image of the given size."""
        own = width / height
        low, high = self.ratio
        return RandomResizedCrop(1, self.scale, (low * own, high * own)).box(height, width, rng)

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Return the size that a part has."""
        return height, width

    def finished(self, part: np.ndarray) -> np.ndarray:
        """Return a part as it is."""
        return part
