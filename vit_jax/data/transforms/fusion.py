"""Transforms that are faster together than one after the other."""

from collections.abc import Sequence

from vit_jax.data.transforms.base import Transform
from vit_jax.data.transforms.crops import Crop, DecodedCrop
from vit_jax.data.transforms.decoding import Decode


def fused(transforms: Sequence[Transform]) -> list[Transform]:
    """Return transforms with every `decode` that a crop follows made one with it."""
    result: list[Transform] = []
    for transform in transforms:
        if isinstance(transform, Crop) and result and isinstance(result[-1], Decode):
            transform = DecodedCrop(result.pop(), transform)  # pyright: ignore[reportArgumentType]
        result.append(transform)
    return result
