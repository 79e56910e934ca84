"""What masked image modelling needs of an image beside its pixels.

Masks add `patch_mask` to the example: bool `(n,)`, row by row, True where a patch is hidden from the model. What a
tokenizer sees of the same part of the record, in another size, is `token_image`, `(h, w, c)` uint8 (BEiT, Bao et al.
2021, arXiv 2106.08254): transforms that move pixels stand before it, and those of colours that stand after it change
`image` alone.
"""

import copy
import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vit_jax.data.base import Example
from vit_jax.data.fields.table import PLANE
from vit_jax.data.images.resizing import INTERPOLATIONS, Size, check_integer, pair, resize
from vit_jax.data.transforms.base import Transform, check_interval, checked_image, is_number
from vit_jax.data.transforms.crops import RandomResizedCrop
from vit_jax.errors import ConfigError, choose


@dataclass(frozen=True)
class MaeMask(Transform):
    """Hide the same number of patches in every image, all choices equally likely.

    Of `n` patches in a grid, `int(n * (1 - ratio))` stay visible.

    Reference: He et al. 2021, Masked Autoencoders, arXiv 2111.06377.
    """

    grid: Size
    ratio: float = 0.75

    def __post_init__(self) -> None:
        pair(self.grid, "mae_mask: grid")
        if not is_number(self.ratio) or not 0 <= self.ratio < 1:
            raise ConfigError(f"mae_mask: ratio is {self.ratio!r}; it must be from 0 to below 1.")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Return the example with `patch_mask`."""
        number = math.prod(pair(self.grid, "mae_mask: grid"))
        mask = np.ones(number, bool)
        mask[: int(number * (1 - self.ratio))] = False
        return {**example, "patch_mask": rng.permutation(mask)}


@dataclass(frozen=True)
class BlockMask(Transform):
    """Hide rectangles of patches, until `most` patches are hidden or no further rectangle fits.

    Each has an area uniform from `min_area` to what may still be hidden, and a ratio of height to width log-uniform
    in `ratio`; it must be smaller than the grid, and hide something new, but not more than still may be. After ten
    draws without success masking ends: how many are hidden varies, and is at most `most`.

    Reference: Bao et al. 2021, BEiT, arXiv 2106.08254.
    """

    grid: Size
    most: int = 75
    min_area: int = 16
    ratio: tuple[float, float] = (0.3, 1 / 0.3)

    def __post_init__(self) -> None:
        number = math.prod(pair(self.grid, "block_mask: grid"))
        check_integer(self.most, "block_mask: most", 1)
        check_integer(self.min_area, "block_mask: min_area", 1)
        check_interval(self.ratio, "block_mask: ratio", math.inf)
        if self.most > number:
            raise ConfigError(f"block_mask: most is {self.most}; the grid has only {number} patches.")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Return the example with `patch_mask`."""
        mask = np.zeros(pair(self.grid, "block_mask: grid"), bool)
        remaining = self.most
        while remaining > 0 and (added := self._add_rectangle(mask, remaining, rng)):
            remaining -= added
        return {**example, "patch_mask": mask.reshape(-1)}

    def _add_rectangle(self, mask: np.ndarray, remaining: int, rng: np.random.Generator) -> int:
        """Hide one more rectangle in `mask`; return how many patches it adds, 0 if none was found."""
        low, high = math.log(self.ratio[0]), math.log(self.ratio[1])
        for _ in range(10):
            # The reference draws between the two also when less than the least area remains.
            area = self.min_area + (remaining - self.min_area) * rng.random()
            ratio = math.exp(rng.uniform(low, high))
            h, w = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if not (0 < h < mask.shape[0] and 0 < w < mask.shape[1]):
                continue
            top, left = int(rng.integers(mask.shape[0] - h + 1)), int(rng.integers(mask.shape[1] - w + 1))
            rectangle = mask[top : top + h, left : left + w]
            added = h * w - int(np.count_nonzero(rectangle))
            if 0 < added <= remaining:
                rectangle[:] = True
                return added
        return 0


@dataclass(frozen=True)
class TokenCrop(Transform):
    """A random resized crop as `image`, and the same crop of another size as `token_image`.

    Arguments are those of `random_resized_crop`; the tokenizer's image has its own size and interpolation.
    """

    size: Size
    token_size: Size
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bicubic"
    token_interpolation: str = "lanczos"
    antialias: str = "fast"

    def __post_init__(self) -> None:
        pair(self.token_size, "token_crop: token_size")
        _ = self._crops  # which check their arguments

    @cached_property
    def _crops(self) -> tuple[RandomResizedCrop, RandomResizedCrop]:
        return (
            RandomResizedCrop(self.size, self.scale, self.ratio, self.interpolation, self.antialias),
            RandomResizedCrop(
                self.token_size, self.scale, self.ratio, self.token_interpolation, self.antialias
            ),
        )

    def refusal(self, fields: Collection[str]) -> str:
        """Return that something lies in the plane of the image, of which there will be two."""
        odd = ", ".join(sorted(PLANE.intersection(fields)))
        return odd and f"token_crop makes two images of one, which {odd} cannot follow; leave it out."

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Return the example with both images."""
        crop, token_crop = self._crops
        again = copy.deepcopy(rng)  # draws the same box
        return {**crop(example, rng), "token_image": token_crop(example, again)["image"]}


@dataclass(frozen=True)
class TokenImage(Transform):
    """The image as it is, resized to `size`, as `token_image`: for evaluation, where nothing is cropped at random."""

    size: Size
    interpolation: str = "lanczos"

    def __post_init__(self) -> None:
        pair(self.size, "token_image: size")
        choose(self.interpolation, INTERPOLATIONS, "token_image: interpolation")

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Return the example with the tokenizer's image."""
        size = pair(self.size, "token_image: size")
        return {**example, "token_image": resize(checked_image(example), size, self.interpolation)}
