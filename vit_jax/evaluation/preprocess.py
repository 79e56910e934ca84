"""Images of any kind to what a model takes, as the model's weights want it."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_jax.data.geometry import IDENTITY
from vit_jax.data.images.decode import check_megapixels, read_bytes
from vit_jax.data.sources.pictures import Given, Pictures, each
from vit_jax.data.transforms.base import Transform
from vit_jax.data.transforms.decoding import Decode
from vit_jax.data.transforms.defaults import default_transforms, with_decoding
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import DataError
from vit_jax.models.families import family_of, image_config, is_config
from vit_jax.models.family import Budget
from vit_jax.models.patches import Patches
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.objectives.images import channel_values
from vit_jax.paths import expanded

FILE_CHANNELS = (1, 3)


class Taken(NamedTuple):
    """What a model sees of an image.

    Attributes:
      pixels: uint8 `(h, w, c)`; of a model whose images keep their shape patches `(n, p*q*c)`.
      size: height and width of the image as it was given, turned upright.
      geometry: float32 `(2, 3)`, from its pixels to these, see `data.geometry`.
      grid: int32 `(2,)`, rows and columns of patches, if they are patches.
    """

    pixels: np.ndarray
    size: tuple[int, int]
    geometry: np.ndarray
    grid: np.ndarray | None = None


@dataclass(frozen=True)
class Preprocessor:
    """Evaluation preprocessing of one model; call it with an image or several.

    Attributes:
      config: the model.
      transforms: what happens to a file or array, as text. None is the model's own; text without `decode` was
        made for arrays, and whatever else comes is decoded before and resized after.
      max_megapixels: largest area accepted of an image file, in millions of pixels; None for what the transforms say.
      size: height and width that come out; empty for the model's, over larger ones its windows slide.

    Raises:
      ConfigError: `max_megapixels` is no such number.
    """

    config: Any
    transforms: str | None = None
    max_megapixels: float | None = None
    size: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        if self.max_megapixels is not None:
            check_megapixels(self.max_megapixels, "max_megapixels")

    @property
    def settings(self) -> Preprocessing:
        """Mean, std, interpolation and crop."""
        return self.config.preprocessing

    @property
    def spec(self) -> str:
        """The transforms as configurations write them, decoding first; of other than 1 or 3 channels only arrays."""
        config, spec = self.config, self.transforms
        channels = config.in_channels
        if spec is None:
            spec = default_transforms(config.preprocessing, config.image_size, channels, budget=self._budget)[
                1
            ]
        settings = config.preprocessing.interpolation, config.image_size, channels, self._budget
        return with_decoding(spec, *settings)

    @property
    def shape(self) -> tuple[int, ...]:
        """Height, width and channels of what comes out; of a model whose images keep their shape, that of patches."""
        if self._budget is not None:
            return self.config.input_shape
        height, width = self.size or self.config.image_size
        return height, width, self.config.in_channels

    def limited(self, max_megapixels: float | None) -> "Preprocessor":
        """Return the same with another limit; None keeps it."""
        return self if max_megapixels is None else replace(self, max_megapixels=max_megapixels)

    def each(self, images: Pictures) -> Iterator[Given]:
        """Yield images one by one, not yet decoded, see `data.sources.pictures.each`."""
        return each(images, self.config.image_size, self.config.in_channels, self._decode.max_pixels)

    def take(self, given: Given) -> Taken:
        """Return one image decoded, resized and cropped, and from where in the given one it was taken.

        Raises:
          DataError: it cannot be read, or does not come out at the model's size; it is named.
        """
        name, content = given
        if isinstance(content, DataError):
            raise content
        if isinstance(content, Path | bytes) and self._decode.channels not in FILE_CHANNELS:
            raise DataError(
                f"{name} is an image file, which has 1 or 3 channels; the model takes arrays uint8 "
                f"(h, w, {self.config.in_channels})."
            )
        if isinstance(content, Path):
            content = read_bytes(content)
        example: dict[str, Any] = {"image": content, "label": 0, "record": name, "geometry": IDENTITY}
        rng = np.random.default_rng(0)  # evaluation transforms draw nothing from it
        decode, *others = self._steps
        example = decode(example, rng)
        height, width = example["image"].shape[:2]
        for transform in others:
            example = transform(example, rng)
        if example["image"].shape != self.shape:
            raise DataError(
                f"{name} has shape {example['image'].shape} after the transforms {self.spec!r}; the model takes "
                f"{self.shape}."
            )
        geometry = np.asarray(example["geometry"], np.float32)
        return Taken(example["image"], (height, width), geometry, example.get("grid"))

    def original(self, path: str | Path) -> np.ndarray:
        """Return an image file as it is, uint8 `(h, w, c)` with the model's channels.

        Raises:
          DataError: it cannot be read.
        """
        content = read_bytes(Path(expanded(path)))
        example = {"image": content, "label": 0, "record": str(path)}
        return self._decode(example, np.random.default_rng(0))["image"]

    def stacked(self, taken: Sequence[Taken | None], count: int) -> Any:
        """Return images as `count` rows, uint8 `(b, h, w, c)` or `Patches` of such, with zeros where there are none."""
        rows = np.zeros((count, *self.shape), np.uint8)
        grids = np.zeros((count, 2), np.int32)
        for index, one in enumerate(taken):
            if one is not None:
                rows[index] = one.pixels
                if one.grid is not None:
                    grids[index] = one.grid
        return rows if self._budget is None else Patches(rows, grids)

    def pixels(self, images: Pictures) -> Any:
        """Return decoded, resized and cropped images, uint8 `(b, h, w, c)`, or `Patches` where they keep their shape.

        Args:
          images: one or several, see `data.sources.pictures.each`.

        Raises:
          DataError: an image cannot be read, or does not come out at the model's size.
        """
        rows = [self.take(given) for given in self.each(images)]
        return self.stacked(rows, len(rows))

    def __call__(self, images: Pictures) -> Any:
        """Return the model's input for one image or several, float32 `(b, h, w, c)`; or `models.patches.Patches`."""
        channels = self.config.in_channels
        mean, std = channel_values(self.settings, channels)
        pixels = self.pixels(images)
        values = pixels.values if isinstance(pixels, Patches) else pixels
        shown = values.reshape(*values.shape[:2], math.prod(values.shape[2:]) // channels, channels)
        values = ((shown.astype(np.float32) / 255 - mean) / std).reshape(values.shape)
        return Patches(values, pixels.sizes) if isinstance(pixels, Patches) else values

    @cached_property
    def _budget(self) -> Budget | None:
        return family_of(self.config).budget(self.config)

    @property
    def _decode(self) -> Decode:
        decode = self._steps[0]
        assert isinstance(decode, Decode)
        return decode

    @cached_property
    def _steps(self) -> list[Transform]:
        first, *others = parse(self.spec)
        if isinstance(first, Decode) and self.max_megapixels is not None:
            first = replace(first, max_megapixels=self.max_megapixels)
        return [first, *others]


def preprocessing(model: Any) -> Preprocessor:
    """Return the preprocessing that a model's weights want.

    Args:
      model: a model, or its configuration.
    """
    return Preprocessor(image_config(model if is_config(model) else model.config))
