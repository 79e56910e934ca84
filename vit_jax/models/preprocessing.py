"""How an image becomes a model's input; a model carries this with its weights. Needs no jax."""

import math
from dataclasses import dataclass, fields, replace
from typing import Any

from vit_jax.errors import ConfigError, choose, nearest

INCEPTION_MEAN = (0.5, 0.5, 0.5)
INCEPTION_STD = (0.5, 0.5, 0.5)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)

CHOICES = {
    "interpolation": ("nearest", "bilinear", "bicubic", "lanczos"),
    "crop_mode": ("center", "squash", "border"),
    "crop_rounding": ("even", "down", "corner"),
}


@dataclass(frozen=True)
class Preprocessing:
    """Evaluation preprocessing: resize, centre crop, scale to [0, 1], subtract mean, divide by std.

    Attributes:
      mean, std: per channel, of values in [0, 1]; one value serves any number of channels.
      interpolation: `nearest`, `bilinear`, `bicubic` or `lanczos`, antialiased.
      crop: share of the resized image that the centre crop keeps (timm's `crop_pct`).
      crop_mode: `center` resizes the short side then crops; `squash` resizes both sides, ignoring aspect;
        `border` resizes the long side and pads with the mean.
      crop_rounding: where the crop starts when an odd number of pixels is left out: at the `even` one of the
        two pixels nearest to the middle (torchvision, timm), or at the first (`down`: transformers,
        big_vision). `corner` is no centre crop: it keeps the top left, as patches do that do not cover an image.
      uncovered: rows at the bottom and columns on the right that the centre crop takes beside the model's image, and
        patches then leave out.
      transforms: what is done to images instead of resizing and cropping, as configurations write it; empty for nothing
        else. Only our own formats keep it.
    """

    mean: tuple[float, ...] = INCEPTION_MEAN
    std: tuple[float, ...] = INCEPTION_STD
    interpolation: str = "bicubic"
    crop: float = 0.9
    crop_mode: str = "center"
    crop_rounding: str = "even"
    uncovered: tuple[int, int] = (0, 0)
    transforms: str = ""

    def __post_init__(self) -> None:
        for field, allowed in CHOICES.items():
            choose(getattr(self, field), allowed, f"preprocessing: {field}")
        if not 0 < self.crop < math.inf:
            raise ConfigError(f"preprocessing: crop is {self.crop}; it must be above 0.")
        left = self.uncovered
        if len(left) != 2 or not all(isinstance(side, int) and 0 <= side < 10_000 for side in left):
            raise ConfigError(
                f"preprocessing: uncovered is {left}; it must be two numbers of pixels, 0 or more."
            )

    def resized(self, image_size: tuple[int, int]) -> tuple[int, int]:
        """Return the height and width to resize to, of which the centre crop leaves `image_size`."""
        # 224 / (224 / 248) is a little below 248 in floating point.
        height, width = (math.floor(side / self.crop + 1e-6) for side in image_size)
        return height, width


def covered(
    preprocessing: Preprocessing, image_size: tuple[int, int], patch_size: tuple[int, int]
) -> tuple[Preprocessing, tuple[int, int]]:
    """Return preprocessing and image size without the rows and columns that patches leave uncovered.

    SigLIP So400m/14 takes images of 384 pixels and its patches 378 of them, from the top left.

    Args:
      preprocessing: for images of `image_size`.
      image_size: height and width.
      patch_size: height and width of a patch.
    """
    height, width = (side // patch * patch for side, patch in zip(image_size, patch_size))
    if (height, width) == image_size:
        return preprocessing, image_size
    resized = preprocessing.resized(image_size)
    whole = preprocessing.crop_mode == "squash" and resized == image_size
    rest = (
        dict(crop_rounding="corner")
        if whole
        else dict(uncovered=(image_size[0] - height, image_size[1] - width))
    )
    return replace(preprocessing, crop=height / resized[0], **rest), (height, width)


def uncut(
    preprocessing: Preprocessing, image_size: tuple[int, int], patch_size: tuple[int, int]
) -> tuple[Preprocessing, tuple[int, int]]:
    """Return what `covered` made preprocessing and image size of; as they are if it made nothing of them.

    Args:
      preprocessing: for images of `image_size`.
      image_size: height and width.
      patch_size: height and width of a patch.
    """
    resized = preprocessing.resized(image_size)
    whole = image_size[0] + preprocessing.uncovered[0], image_size[1] + preprocessing.uncovered[1]
    before = replace(preprocessing, crop=whole[0] / resized[0], uncovered=(0, 0)), whole
    if preprocessing.crop_rounding == "corner":
        before = replace(preprocessing, crop=1.0, crop_rounding="even"), resized
    return (
        before if covered(*before, patch_size) == (preprocessing, image_size) else (preprocessing, image_size)
    )


def as_preprocessing(value: Any) -> Preprocessing:
    """Return a Preprocessing as it is, or made of a dict as read from JSON; else raise ConfigError."""
    if isinstance(value, Preprocessing):
        return value
    if not isinstance(value, dict):
        raise ConfigError(f"preprocessing is {value!r}; it must be a Preprocessing or a dict of its fields.")
    names = [field.name for field in fields(Preprocessing)]
    for name in value:
        if name not in names:
            raise ConfigError(
                f"preprocessing has no {name!r}; it has {', '.join(names)}.{nearest(name, names)}"
            )
    values: dict[str, Any] = {name: tuple(v) if isinstance(v, list) else v for name, v in value.items()}
    return Preprocessing(**values)


INCEPTION = Preprocessing()
IMAGENET = Preprocessing(IMAGENET_MEAN, IMAGENET_STD)
CLIP = Preprocessing(CLIP_MEAN, CLIP_STD)
