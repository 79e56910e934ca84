"""How an image becomes a model's input; a model carries this with its weights. Needs no jax."""

from dataclasses import dataclass

INCEPTION_MEAN = (0.5, 0.5, 0.5)
INCEPTION_STD = (0.5, 0.5, 0.5)
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class Preprocessing:
    """Evaluation preprocessing: resize, centre crop, scale to [0, 1], subtract mean, divide by std.

    Attributes:
      mean, std: per channel, of values in [0, 1]; one value serves any number of channels.
      interpolation: `bilinear` or `bicubic`.
      crop: share of the resized short side that the centre crop keeps (timm's `crop_pct`).
      crop_mode: `center` resizes the short side then crops; `squash` resizes both sides, ignoring aspect.
    """

    mean: tuple[float, ...] = INCEPTION_MEAN
    std: tuple[float, ...] = INCEPTION_STD
    interpolation: str = "bicubic"
    crop: float = 0.9
    crop_mode: str = "center"


INCEPTION = Preprocessing()
IMAGENET = Preprocessing(IMAGENET_MEAN, IMAGENET_STD)
