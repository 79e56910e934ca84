"""Several views of one image, each augmented on its own, for self-distillation."""

import functools
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from vit_jax.data.base import Example
from vit_jax.data.fields.table import PLANE
from vit_jax.data.images.resizing import Size, check_integer, pair
from vit_jax.data.transforms.base import ImageTransform, Transform, check_interval, checked_image
from vit_jax.data.transforms.crops import RandomResizedCrop
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError

_COLORS = "flip_lr|color_jitter(0.4, 0.4, 0.2, 0.1, probability=0.8)|grayscale(0.2)"
_DINO_GLOBAL = (f"{_COLORS}|gaussian_blur(1.0)", f"{_COLORS}|gaussian_blur(0.1)|solarize(0.2)")
_DINO_LOCAL = f"{_COLORS}|gaussian_blur(0.5)"


@dataclass(frozen=True)
class MultiCrop(Transform):
    """Replace `image` by random resized crops: `global_crops` and `local_crops`, uint8 `(count, h, w, c)`.

    What is done to each crop afterwards are transforms as configurations write them: one text for all global crops or
    one for each, and one for local crops. Defaults are DINO's. With `local_count` 0 there are no `local_crops`.
    An example with `geometry` has that of each crop instead: `global_geometry` and `local_geometry`, `(count, 2, 3)`.

    References: Caron et al. 2020, SwAV, arXiv 2006.09882; Caron et al. 2021, DINO, arXiv 2104.14294.
    """

    global_size: Size = 224
    local_size: Size = 96
    local_count: int = 8
    global_scale: tuple[float, float] = (0.4, 1.0)
    local_scale: tuple[float, float] = (0.05, 0.4)
    global_transforms: str | tuple[str, ...] = _DINO_GLOBAL
    local_transforms: str = _DINO_LOCAL
    global_count: int = 2
    interpolation: str = "bicubic"

    def __post_init__(self) -> None:
        for size, name in ((self.global_size, "global_size"), (self.local_size, "local_size")):
            pair(size, f"multi_crop: {name}")
        check_integer(self.global_count, "multi_crop: global_count", 1)
        check_integer(self.local_count, "multi_crop: local_count", 0)
        check_interval(self.global_scale, "multi_crop: global_scale", 1.0)
        check_interval(self.local_scale, "multi_crop: local_scale", 1.0)
        texts = self.global_transforms
        given = (texts,) * self.global_count if isinstance(texts, str) else texts
        if not isinstance(given, tuple | list) or len(given) != self.global_count:
            raise ConfigError(
                f"multi_crop: global_transforms is {texts!r}; it must be one string, or one for each of the "
                f"{self.global_count} global crops."
            )
        for text in (*given, self.local_transforms):
            if not isinstance(text, str):
                raise ConfigError(
                    f"multi_crop: the transforms {text!r} must be a string such as 'flip_lr|grayscale(0.2)'."
                )
        for view in (*self.views[0], *self.views[1]):
            for transform in view:
                if not isinstance(transform, ImageTransform):
                    raise ConfigError(
                        f"multi_crop: a crop cannot go through {type(transform).__name__}, which works on whole "
                        "examples; put it after multi_crop."
                    )

    @functools.cached_property
    def views(self) -> tuple[list[list[Transform]], list[list[Transform]]]:
        """What makes each global and each local crop."""
        texts = self.global_transforms
        texts = (texts,) * self.global_count if isinstance(texts, str) else texts
        of_global = RandomResizedCrop(self.global_size, self.global_scale, interpolation=self.interpolation)
        of_local = RandomResizedCrop(self.local_size, self.local_scale, interpolation=self.interpolation)
        local = [of_local, *parse(self.local_transforms, "multi_crop: local_transforms")]
        return (
            [[of_global, *parse(text, "multi_crop: global_transforms")] for text in texts],
            [local] * self.local_count,
        )

    def refusal(self, fields: Collection[str]) -> str:
        """Return that something lies in the plane of the image, of which there will be several."""
        odd = ", ".join(sorted(PLANE.intersection(fields)))
        return odd and (
            f"multi_crop makes several images of one, which {odd} cannot follow; leave it out, or give records "
            f"without {odd}."
        )

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Return the example with crops instead of its image."""
        checked_image(example)
        result = {name: value for name, value in example.items() if name not in ("image", "geometry")}
        for kind, views in zip(("global", "local"), self.views):
            crops = [_view(example, view, rng) for view in views]
            if crops:
                result[f"{kind}_crops"] = np.stack([crop["image"] for crop in crops])
            if crops and "geometry" in example:
                result[f"{kind}_geometry"] = np.stack([crop["geometry"] for crop in crops])
        return result


def _view(example: Example, transforms: list[Transform], rng: np.random.Generator) -> Example:
    """Return an example with one crop."""
    for transform in transforms:
        example = transform(example, rng)
    return example
