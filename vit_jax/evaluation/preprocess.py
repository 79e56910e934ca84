"""Images of any kind to what a model takes, as the model's weights want it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.data.decode import read_bytes
from vit_jax.data.transforms.defaults import default_transforms
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import DataError
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.text_config import ImageTextConfig
from vit_jax.models.towers import image_config
from vit_jax.models.vit_config import MaeConfig, ViTConfig
from vit_jax.objectives.images import channel_values

Picture = str | Path | bytes | np.ndarray


@dataclass(frozen=True)
class Preprocessor:
    """Evaluation preprocessing of one model; call it with an image or several.

    Attributes:
      config: the model.
      transforms: what happens to a file or array, as text. None is the model's own; text without `decode` was
        made for arrays, and whatever else comes is decoded before and resized after.
    """

    config: ViTConfig
    transforms: str | None = None

    @property
    def settings(self) -> Preprocessing:
        """Mean, std, interpolation and crop."""
        return self.config.preprocessing

    @property
    def spec(self) -> str:
        """The transforms as configurations write them, decoding first."""
        config, spec = self.config, self.transforms
        if spec is None:
            spec = default_transforms(config.preprocessing, config.image_size, config.in_channels)[1]
        if spec.startswith("decode"):
            return spec
        resizing = f"resize({config.image_size}, {config.preprocessing.interpolation!r})"
        return "|".join(filter(None, [f"decode({config.in_channels})", spec, resizing]))

    def pixels(self, images: Picture | Sequence[Picture]) -> np.ndarray:
        """Return decoded, resized and cropped images, uint8 `(b, h, w, c)`.

        Args:
          images: paths, bytes of image files, or arrays `(h, w, c)` uint8; one or several.

        Raises:
          DataError: an image cannot be read, or does not come out at the model's size.
        """
        transforms, expected = parse(self.spec), (*self.config.image_size, self.config.in_channels)
        rows = []
        for index, image in enumerate(several(images)):
            name = name_of(image, index)
            if not isinstance(image, str | Path | bytes | np.ndarray):
                raise DataError(
                    f"{name} is a {type(image).__name__}; give a path, the bytes of a file or a uint8 array."
                )
            if isinstance(image, np.ndarray) and (image.dtype != np.uint8 or image.ndim != 3):
                raise DataError(
                    f"{name} is {image.dtype} of shape {image.shape}; it must be uint8 (h, w, c)."
                )
            pixels = read_bytes(image) if isinstance(image, str | Path) else image
            example: dict[str, Any] = {"image": pixels, "label": 0, "record": name}
            rng = np.random.default_rng(0)  # evaluation transforms draw nothing from it
            for transform in transforms:
                example = transform(example, rng)
            if example["image"].shape != expected:
                raise DataError(
                    f"{name} has shape {example['image'].shape} after the transforms {self.spec!r}; the model takes "
                    f"{expected}."
                )
            rows.append(example["image"])
        return np.stack(rows) if rows else np.zeros((0, *expected), np.uint8)

    def __call__(self, images: Picture | Sequence[Picture]) -> np.ndarray:
        """Return the model's input, float32 `(b, h, w, c)`, for one image or several."""
        mean, std = channel_values(self.settings, self.config.in_channels)
        return (self.pixels(images).astype(np.float32) / 255 - mean) / std


def several(images: Picture | Sequence[Picture]) -> Sequence[Picture]:
    """Return one image, or an array of three dimensions, as a sequence; sequences stay as they are."""
    single = isinstance(images, str | Path | bytes) or (isinstance(images, np.ndarray) and images.ndim == 3)
    return [images] if single else images  # pyright: ignore[reportReturnType]


def name_of(image: Picture, index: int) -> str:
    """Return what messages and predictions call an image: its path, or its number."""
    return str(image) if isinstance(image, str | Path) else f"image {index}"


def preprocessing(model: Any) -> Preprocessor:
    """Return the preprocessing that a model's weights want.

    Args:
      model: a model, or its configuration.
    """
    configured = isinstance(model, ViTConfig | MaeConfig | ImageTextConfig)
    return Preprocessor(image_config(model if configured else model.config))
