"""Random erasing on the host; `classification.erasing` does it on the device, where normal noise is cheaper."""

import math
from dataclasses import dataclass

import numpy as np

from vit_jax.data.images.resizing import check_integer
from vit_jax.data.transforms.base import ImageTransform, check_interval, check_probability, is_number
from vit_jax.errors import ConfigError, DataError, choose

_MODES = ("const", "rand", "pixel")


@dataclass(frozen=True)
class RandomErasing(ImageTransform):
    """Fill random rectangles, with the given probability.

    Their number is `count`; their areas together are uniform in `scale` (shares of the image), the ratio of height
    to width is log-uniform in `ratio`; one that does not fit in ten draws is left out. `mode` says what fills:
    `const` the mean, `rand` one colour, `pixel` noise; both normal with `mean` and `std` (one value or one per
    channel; the default is ImageNet's). timm fills the normalised image; here values are rounded to 0 to 255.

    References: Zhong et al. 2017, arXiv 1708.04896; timm 1.0.31.
    """

    probability: float = 0.25
    mode: str = "pixel"
    count: int = 1
    scale: tuple[float, float] = (0.02, 1 / 3)
    ratio: tuple[float, float] = (0.3, 1 / 0.3)
    mean: float | tuple[float, ...] = (123.675, 116.28, 103.53)
    std: float | tuple[float, ...] = (58.395, 57.12, 57.375)

    def __post_init__(self) -> None:
        check_probability(self.probability, "random_erasing: probability")
        choose(self.mode, _MODES, "random_erasing: mode")
        check_integer(self.count, "random_erasing: count", 1)
        check_interval(self.scale, "random_erasing: scale", 1.0)
        check_interval(self.ratio, "random_erasing: ratio", math.inf)
        for values, name in ((self.mean, "mean"), (self.std, "std")):
            present = values if isinstance(values, tuple | list) else (values,)
            if not present or not all(is_number(v) and 0 <= v <= 255 for v in present):
                raise ConfigError(f"random_erasing: {name} is {values!r}; it must be numbers from 0 to 255.")

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the image, maybe with parts erased."""
        mean, std = np.asarray(self.mean, np.float32), np.asarray(self.std, np.float32)
        for values in (mean, std):
            if values.ndim and len(values) != image.shape[-1]:
                raise DataError(
                    f"the image has {image.shape[-1]} channels, but random_erasing has a mean or std of "
                    f"{len(values)}; give one value, or one per channel."
                )
        if rng.random() >= self.probability:
            return image
        image = image.copy()
        h, w, channels = image.shape
        for _ in range(self.count):
            box = self._box(h, w, rng)
            if box is None:
                continue
            top, left, height, width = box
            shape = {"const": (), "rand": (channels,), "pixel": (height, width, channels)}[self.mode]
            noise = rng.standard_normal(shape, np.float32) if shape else np.float32(0)
            image[top : top + height, left : left + width] = np.clip(np.rint(mean + std * noise), 0, 255)
        return image

    def _box(self, h: int, w: int, rng: np.random.Generator) -> tuple[int, int, int, int] | None:
        """Return top, left, height and width of a rectangle smaller than the image, or None."""
        for _ in range(10):
            area = rng.uniform(*self.scale) * h * w / self.count
            ratio = math.exp(rng.uniform(math.log(self.ratio[0]), math.log(self.ratio[1])))
            height, width = round(math.sqrt(area * ratio)), round(math.sqrt(area / ratio))
            if height < h and width < w:
                return int(rng.integers(h - height + 1)), int(rng.integers(w - width + 1)), height, width
        return None
