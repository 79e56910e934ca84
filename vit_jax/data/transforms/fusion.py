"""Transforms that are faster together than one after the other: only the needed part of an encoded image is decoded."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from vit_jax.data.base import Example
from vit_jax.data.fields.following import FOLLOWING, followed
from vit_jax.data.images.decode import check_decoded_channels, decode, jpeg_header, to_channels
from vit_jax.data.images.jpeg import decode_jpeg
from vit_jax.data.transforms.base import ImageTransform, Transform, checked_image
from vit_jax.data.transforms.crops import Crop
from vit_jax.data.transforms.decoding import Decode, sized
from vit_jax.errors import DataError


def fused(transforms: Sequence[Transform]) -> list[Transform]:
    """Return transforms with every `decode` that a crop follows made one with it."""
    result: list[Transform] = []
    for transform in transforms:
        if isinstance(transform, Crop) and result and isinstance(result[-1], Decode):
            transform = DecodedCrop(result.pop(), transform)  # pyright: ignore[reportArgumentType]
        result.append(transform)
    return result


@dataclass(frozen=True)
class DecodedCrop(ImageTransform):
    """`decode` and a crop in one: of a JPEG file, only what the crop needs is decoded.

    Pixels are those of the two one after the other; but a part more than twice as large as what becomes of it is
    reduced by 2, 4 or 8 while it is decoded. That moves pixels by up to one of the result, so it is not done where
    other fields lie in the plane.
    """

    takes_files: ClassVar[bool] = True

    decode: Decode
    crop: Crop

    def __call__(self, example: Example, rng: np.random.Generator) -> Example:
        """Return the example with another image and what follows it; an error names the record."""
        if FOLLOWING.isdisjoint(example):
            return super().__call__(example, rng)
        image, channels = checked_image(example, self.takes_files), self.decode.channels
        try:
            header = jpeg_header(image, self.decode.max_pixels) if isinstance(image, bytes) else None
        except DataError as error:
            raise type(error)(f"{example['record']}: {error}") from error
        if header is None or header.orientation > 1:
            return self.crop(self.decode(example, rng), rng)
        example = sized(example, (header.height, header.width))
        try:
            check_decoded_channels(channels)
            top, left, h, w = box = self.crop.box(header.height, header.width, rng)
            part = decode_jpeg(image, header, top + h)[top : top + h, left : left + w]
            image = self.crop.finished(to_channels(part, channels))
        except DataError as error:
            raise type(error)(f"{example['record']}: {error}") from error
        return {**followed(example, self.crop.geometry(header.height, header.width, box)), "image": image}

    def image(self, image: bytes | np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the finished random part of an encoded image."""
        channels = self.decode.channels
        if not isinstance(image, bytes):
            return self.crop.image(self.decode.image(image, rng), rng)
        check_decoded_channels(channels)
        header = jpeg_header(image, self.decode.max_pixels)
        if header is None or header.orientation > 1:
            return self.crop.image(decode(image, channels, self.decode.max_pixels), rng)
        top, left, h, w = self.crop.box(header.height, header.width, rng)
        by = self.crop.reduction(h, w)
        pixels = decode_jpeg(image, header, top + h, by)
        part = pixels[top // by : (top + h) // by, left // by : (left + w) // by]
        return self.crop.finished(to_channels(part, channels))
