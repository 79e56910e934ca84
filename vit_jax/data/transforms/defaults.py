"""The standard transforms of a model, as configurations write them."""

from typing import Any

from vit_jax.data.base import Source
from vit_jax.data.images.resizing import Size, pair


def default_transforms(
    preprocessing: Any, image_size: Size, channels: int, source: Source | None = None, budget: Any = None
) -> tuple[str, str]:
    """Return the standard training and evaluation transforms, as configurations write them.

    Image files: random resized crop and flip; evaluation as the model's preprocessing says. Arrays of the
    model's size: nothing. Other arrays: resized. Of a model whose images keep their aspect ratio: the same without
    resizing, and patches at the end.

    Args:
      preprocessing: of the model; a `models.preprocessing.Preprocessing`.
      image_size: of the model.
      channels: of the model.
      source: where images come from; None for image files.
      budget: of the model, a `models.family.Budget`, if its images keep their aspect ratio.
    """
    height, width = pair(image_size, "image_size")
    size = _text((height, width))
    interpolation = repr(preprocessing.interpolation)
    if source is not None and source.image_shape is not None:
        present = source.image_shape
        steps = [f"to_channels({channels})"] * (present[2] != channels)
        if budget is not None:
            steps += [_patches(preprocessing, budget)]
        else:
            steps += [f"resize({size}, {interpolation})"] * (present[:2] != (height, width))
        return "|".join(steps), "|".join(steps)
    decoding = "decode" if channels == 3 else f"decode({channels})"
    if budget is not None:
        patches = _patches(preprocessing, budget)
        train, evaluation = f"{decoding}|native_crop|flip_lr|{patches}", f"{decoding}|{patches}"
        return train, preprocessing.transforms or evaluation
    train = f"{decoding}|random_resized_crop({size}, interpolation={interpolation})|flip_lr"
    evaluation = "|".join([decoding, *_evaluation(preprocessing, (height, width), channels)])
    return train, preprocessing.transforms or evaluation


def with_decoding(spec: str, interpolation: str, image_size: Size, channels: int, budget: Any = None) -> str:
    """Return evaluation transforms that take files too: those made for arrays decode before and resize after.

    Patches are made of images of any size, and not resized.

    Args:
      spec: transforms, as configurations write them.
      interpolation: of the resizing.
      image_size, channels, budget: of the model, see `default_transforms`.
    """
    if spec.startswith("decode"):
        return spec
    resizing = f"resize({_text(pair(image_size, 'image_size'))}, {interpolation!r})"
    return "|".join(filter(None, [f"decode({channels})", spec, resizing * (budget is None)]))


def _evaluation(preprocessing: Any, size: tuple[int, int], channels: int) -> list[str]:
    """Return resizing and cropping."""
    resized, mode = preprocessing.resized(size), preprocessing.crop_mode
    kind = {"center": "resize_short", "squash": "resize", "border": "resize_long"}[mode]
    resizing = f"{kind}({_text(resized)}, {preprocessing.interpolation!r})"
    if mode == "squash" and resized == size:
        return [resizing]
    options = f", {preprocessing.crop_rounding!r}" if preprocessing.crop_rounding != "even" else ""
    if mode == "border":
        mean = tuple(round(255 * value) for value in preprocessing.mean)
        options += f", fill={mean if len(mean) == channels else round(sum(mean) / len(mean))}"
    whole = size[0] + preprocessing.uncovered[0], size[1] + preprocessing.uncovered[1]
    if mode != "border" and (resized[0] < whole[0] or resized[1] < whole[1]):
        options += ", fill=0"
    steps = [resizing, f"center_crop({_text(whole)}{options})"]
    return steps if whole == size else [*steps, f"center_crop({_text(size)}, 'corner')"]


def _patches(preprocessing: Any, budget: Any) -> str:
    return f"naflex({budget.patches}, {_text(budget.size)}, {preprocessing.interpolation!r})"


def _text(size: tuple[int, int]) -> str:
    return str(size[0]) if size[0] == size[1] else str(size)
