"""Random crops that are resized, and flips; only the needed part of an encoded image is decoded."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from vit_jax.data.decode import decode, jpeg_header, to_channels
from vit_jax.data.jpeg import REDUCTIONS, decode_jpeg
from vit_jax.data.resizing import INTERPOLATIONS, Size, check_integer, pair, resize, resize_fast
from vit_jax.data.transforms.base import ImageTransform, check_interval, check_probability
from vit_jax.data.transforms.decoding import Decode
from vit_jax.errors import DataError, choose

ANTIALIASING = ("fast", "pillow", "none")

Box = tuple[int, int, int, int]


class Crop(ImageTransform):
    """A random box of an image and what becomes of it; the rest of the image is not needed."""

    @abstractmethod
    def box(self, height: int, width: int, rng: np.random.Generator) -> Box:
        """Return top, left, height and width of a random part of an image of the given size."""

    @abstractmethod
    def finished(self, part: np.ndarray) -> np.ndarray:
        """Return what becomes of a part."""

    def reduction(self, height: int, width: int) -> int:
        """Return by how much a part of this size may be reduced while it is decoded, from `REDUCTIONS`."""
        return 1

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the finished random part."""
        top, left, h, w = self.box(image.shape[0], image.shape[1], rng)
        return self.finished(image[top : top + h, left : left + w])


@dataclass(frozen=True)
class DecodedCrop(ImageTransform):
    """`decode` and a crop in one: of a JPEG file, only what the crop needs is decoded.

    Pixels are those of the two one after the other; but a part more than twice as large as what becomes of it is
    reduced by 2, 4 or 8 while it is decoded.
    """

    decode: Decode
    crop: Crop

    def image(self, image: bytes | np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the finished random part of an encoded image."""
        channels = self.decode.channels
        if not isinstance(image, bytes):
            return self.crop.image(self.decode.image(image, rng), rng)
        header = jpeg_header(image)
        if header is None or header.orientation > 1:
            return self.crop.image(decode(image, channels), rng)
        top, left, h, w = self.crop.box(header.height, header.width, rng)
        by = self.crop.reduction(h, w)
        pixels = decode_jpeg(image, header, top + h, by)
        part = pixels[top // by : (top + h) // by, left // by : (left + w) // by]
        return self.crop.finished(to_channels(part, channels))


@dataclass(frozen=True)
class RandomResizedCrop(Crop):
    """A random part of the image with random area and aspect ratio, resized to `size`.

    Area is uniform in `scale` (shares of the image), the ratio of width to height log-uniform in `ratio`. If
    ten draws do not fit into the image, the largest centred part with an allowed ratio is taken. `antialias` says
    how parts shrink: `fast` is nearly Pillow's filter (`resizing.resize_fast`), `pillow` is that filter, as in timm and
    torchvision, which takes longer, and `none` interpolates between neighbours, as TensorFlow and big_vision do.

    Reference: Szegedy et al. 2014, Going Deeper with Convolutions, arXiv 1409.4842.
    """

    size: Size
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bilinear"
    antialias: str = "fast"

    def __post_init__(self) -> None:
        pair(self.size, "random_resized_crop: size")
        check_interval(self.scale, "random_resized_crop: scale", 1.0)
        check_interval(self.ratio, "random_resized_crop: ratio", math.inf)
        choose(self.interpolation, INTERPOLATIONS, "random_resized_crop: interpolation")
        choose(self.antialias, ANTIALIASING, "random_resized_crop: antialias")

    @cached_property
    def _size(self) -> tuple[int, int]:
        return pair(self.size, "random_resized_crop: size")

    @cached_property
    def _log_ratio(self) -> tuple[float, float]:
        return math.log(self.ratio[0]), math.log(self.ratio[1])

    def box(self, height: int, width: int, rng: np.random.Generator) -> Box:
        """Return top, left, height and width of a random part of an image of the given size."""
        low, high = self._log_ratio
        for _ in range(10):
            # `uniform` and `integers` of NumPy cost far more for a single number.
            area = height * width * (self.scale[0] + (self.scale[1] - self.scale[0]) * rng.random())
            ratio = math.exp(low + (high - low) * rng.random())
            h, w = round(math.sqrt(area / ratio)), round(math.sqrt(area * ratio))
            if 0 < h <= height and 0 < w <= width:
                return int((height - h + 1) * rng.random()), int((width - w + 1) * rng.random()), h, w
        ratio = min(max(width / height, self.ratio[0]), self.ratio[1])
        h = max(1, min(height, round(width / ratio)))
        w = max(1, min(width, round(height * ratio)))
        return (height - h) // 2, (width - w) // 2, h, w

    def reduction(self, height: int, width: int) -> int:
        """Return the largest reduction that leaves a part at least as large as the result."""
        wanted = self._size
        if self.antialias == "pillow" or self.interpolation == "nearest":
            return 1
        return max(
            by for by in REDUCTIONS if by == 1 or (height >= by * wanted[0] and width >= by * wanted[1])
        )

    def finished(self, part: np.ndarray) -> np.ndarray:
        """Return a part at the wanted size."""
        height, width = self._size
        if self.antialias == "pillow":
            return resize(part, (height, width), self.interpolation)
        return resize_fast(part, (height, width), self.interpolation, self.antialias == "fast")


@dataclass(frozen=True)
class FlipLeftRight(ImageTransform):
    """Mirror with the given probability."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        check_probability(self.probability, "flip_lr: probability")

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the image or its mirror image."""
        if rng.random() >= self.probability:
            return image
        # Copying a mirrored view costs far more.
        return cv2.flip(image, 1) if image.shape[-1] == 3 else image[:, ::-1]


@dataclass(frozen=True)
class PadCrop(ImageTransform):
    """Pad every side with `padding` zeros and take a random part of `size`: a random shift."""

    size: Size
    padding: int

    def __post_init__(self) -> None:
        pair(self.size, "pad_crop: size")
        check_integer(self.padding, "pad_crop: padding", 0)

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the shifted image."""
        height, width = pair(self.size, "pad_crop: size")
        h, w, channels = image.shape
        p = self.padding
        rows, columns = h + 2 * p - height, w + 2 * p - width
        if rows < 0 or columns < 0:
            raise DataError(
                f"the image is {h}x{w}, too small for pad_crop({(height, width)}, {p}); resize before."
            )
        padded = np.zeros((h + 2 * p, w + 2 * p, channels), image.dtype)
        padded[p : p + h, p : p + w] = image
        # One draw for both shifts: drawing costs more than copying a small image.
        top, left = divmod(int(rng.integers((rows + 1) * (columns + 1))), columns + 1)
        return padded[top : top + height, left : left + width]
