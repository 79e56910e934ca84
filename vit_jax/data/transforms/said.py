"""What was done to images for evaluation, as the preprocessing that a model carries with its weights."""

import dataclasses
from collections.abc import Iterator
from typing import Any

from vit_jax.data.images.resizing import pair
from vit_jax.data.transforms.base import Transform
from vit_jax.data.transforms.decoding import Decode, ToChannels
from vit_jax.data.transforms.defaults import default_transforms, with_decoding
from vit_jax.data.transforms.sizes import CenterCrop, Resize, ResizeLong, ResizeShort
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError

_MODES = {Resize: "squash", ResizeShort: "center", ResizeLong: "border"}


def preprocessing_of(
    spec: str, preprocessing: Any, image_size: tuple[int, int], channels: int, budget: Any = None
) -> Any:
    """Return a model's preprocessing changed to what its images were evaluated with.

    Mean and std stay. Where no resize and centre crop do the same, `transforms` says it in full.

    Args:
      spec: the evaluation transforms of a run.
      preprocessing: of its model, a `models.preprocessing.Preprocessing`.
      image_size: of the model.
      channels: of the model's images.
      budget: of the model, see `default_transforms`.
    """
    model = image_size, channels
    steps = _steps(with_decoding(spec, preprocessing.interpolation, *model, budget), image_size)
    for values in ({}, *_guesses(steps, image_size)):
        try:
            candidate = dataclasses.replace(preprocessing, **values, transforms="")
        except ConfigError:  # an interpolation or crop that it does not have
            continue
        if _steps(default_transforms(candidate, *model, budget=budget)[1], image_size) == steps:
            return candidate
    return dataclasses.replace(preprocessing, transforms=spec)


def _guesses(steps: list[Any], image_size: tuple[int, int]) -> Iterator[dict[str, Any]]:
    """Yield fields that may say the same: of a resize, then at most two crops."""
    kinds = {step[0] for step in steps}
    if not steps or steps[0][0] not in _MODES or not kinds <= {*_MODES, CenterCrop}:
        return
    kind, resized, interpolation = steps[0]
    crops = steps[1:]
    kept = crops[0][1] if crops else resized
    values = dict(
        crop_mode=_MODES[kind],
        interpolation=interpolation,
        # The side that is kept, of the model's image: what patches leave out is said apart.
        crop=image_size[0] / resized[0],
        uncovered=(max(0, kept[0] - image_size[0]), max(0, kept[1] - image_size[1]))
        if len(crops) > 1
        else (0, 0),
    )
    for rounding in ("even", "down", "corner"):
        yield values | dict(crop_rounding=rounding)


def _steps(spec: str, image_size: tuple[int, int]) -> list[Any]:
    """Return what is done to a decoded image, in a form in which equal steps compare equal."""
    steps = [_plain(transform) for transform in parse(spec) if not isinstance(transform, Decode | ToChannels)]
    # A resize to the size that an image already has changes nothing.
    while (
        len(steps) > 1
        and steps[-1][0] is Resize
        and steps[-1][1] == image_size
        and steps[-2][1] == image_size
    ):
        steps.pop()
    return steps


def _plain(transform: Transform) -> Any:
    if isinstance(transform, Resize | ResizeShort | ResizeLong):
        return type(transform), pair(transform.size, "size"), transform.interpolation
    if isinstance(transform, CenterCrop):
        return CenterCrop, pair(transform.size, "size"), transform.rounding, transform.fill
    return type(transform), transform
