"""Which patches of an image are hidden from the model, for masked image modelling.

They add `patch_mask` to the example: bool `(n,)`, row by row, True where a patch is hidden.
"""

import math
from dataclasses import dataclass

import numpy as np

from vit_jax.data.base import Example
from vit_jax.data.images.resizing import Size, check_integer, pair
from vit_jax.data.transforms.base import Transform, check_interval, is_number
from vit_jax.errors import ConfigError


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
