"""Images of many scales and numbers of objects brought to one size, as dense tasks want it."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_jax.data.base import Example
from vit_jax.data.fields.following import is_of_objects
from vit_jax.data.fields.table import KINDS
from vit_jax.data.geometry import IDENTITY, Geometry
from vit_jax.data.images.resizing import INTERPOLATIONS, Size, check_integer, pad_to, pair
from vit_jax.data.transforms.base import Transform, check_interval
from vit_jax.data.transforms.sizes import Resizing, check_fill, fitting
from vit_jax.data.transforms.spatial import DrawnTransform
from vit_jax.errors import choose

_MOST_SCALE = 16.0


@dataclass(frozen=True)
class ScaleJitter(Resizing):
    """Resize to the largest size of the same aspect ratio that fits into `size` times a random factor.

    The factor is uniform in `scale`. With `random_crop(size, fill=0)` after it, which pads what is smaller, it is the
    large scale jitter of detection (`scale` (0.1, 2.0)) and the usual augmentation of segmentation ((0.5, 2.0)).

    Reference: Ghiasi et al. 2020, Simple Copy-Paste, arXiv 2012.07177.
    """

    size: Size
    scale: tuple[float, float] = (0.5, 2.0)
    interpolation: str = "bilinear"

    def __post_init__(self) -> None:
        pair(self.size, "scale_jitter: size")
        check_interval(self.scale, "scale_jitter: scale", _MOST_SCALE)
        choose(self.interpolation, INTERPOLATIONS, "scale_jitter: interpolation")

    def draw(self, height: int, width: int, rng: np.random.Generator) -> float:
        """Return the factor."""
        low, high = self.scale
        return low + (high - low) * rng.random()

    def size_of(self, height: int, width: int, drawn: float) -> tuple[int, int]:
        """Return the size that fits."""
        h, w = (max(1, round(drawn * side)) for side in pair(self.size, "scale_jitter: size"))
        return fitting((height, width), (h, w))


@dataclass(frozen=True)
class Pad(DrawnTransform):
    """Add `fill` below and to the right until the image is at least `size`; label maps are ignored there."""

    size: Size
    fill: int | tuple[int, ...] = 0

    def __post_init__(self) -> None:
        pair(self.size, "pad: size")
        check_fill(self.fill, "pad")

    def moved(self, image: np.ndarray, drawn: None) -> np.ndarray:
        """Return the padded image."""
        return pad_to(image, pair(self.size, "pad: size"), self.fill, after=True)

    def geometry(self, height: int, width: int, drawn: None) -> Geometry:
        """Return that pixels stay where they are."""
        h, w = pair(self.size, "pad: size")
        return Geometry(IDENTITY, (max(h, height), max(w, width)))


@dataclass(frozen=True)
class PadObjects(Transform):
    """Give every record `count` objects: added ones have class -1 and zeros else; of more, the largest are kept."""

    count: int

    def __post_init__(self) -> None:
        check_integer(self.count, "pad_objects: count", 1)

    def refusal(self, fields: Collection[str]) -> str:
        """Return that records have no objects, if so."""
        if any(KINDS[name].of_objects for name in fields if name in KINDS):
            return ""
        return f"pad_objects needs objects, but records have the fields {', '.join(fields)}; leave it out."

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Return the example with `count` rows in every field of objects."""
        rows = self._rows(example)
        result: dict[str, Any] = dict(example)
        for name, value in example.items():
            if is_of_objects(name, value) and rows is not None:
                padded = np.full((self.count, *value.shape[1:]), KINDS[name].padding, value.dtype)
                padded[: len(rows)] = value[rows]
                result[name] = padded
        return result

    def _rows(self, example: Example) -> np.ndarray | None:
        """Return which objects are kept, in their order; None if there are none to have."""
        areas = None
        if "boxes" in example:
            areas = np.prod(example["boxes"][:, 2:] - example["boxes"][:, :2], axis=1)
        elif "masks" in example:
            areas = example["masks"].sum((1, 2), dtype=np.int64)
        else:
            counts = [len(value) for name, value in example.items() if is_of_objects(name, value)]
            areas = np.zeros(counts[0]) if counts else None
        return None if areas is None else np.sort(np.argsort(-areas, kind="stable")[: self.count])
