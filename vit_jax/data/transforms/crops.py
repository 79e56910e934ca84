"""Random crops that are resized, flips, and random shifts."""

import math
from abc import abstractmethod
from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from vit_jax.data.geometry import IDENTITY, Geometry, cropped, mirrored
from vit_jax.data.images.jpeg import REDUCTIONS
from vit_jax.data.images.resizing import INTERPOLATIONS, Size, check_integer, pair, resize, resize_fast
from vit_jax.data.transforms.base import check_interval, check_probability
from vit_jax.data.transforms.spatial import DrawnTransform
from vit_jax.errors import DataError, choose

ANTIALIASING = ("fast", "pillow", "none")

Box = tuple[int, int, int, int]


class Crop(DrawnTransform):
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

    @abstractmethod
    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Return the height and width of what becomes of a part of this size."""

    def draw(self, height: int, width: int, rng: np.random.Generator) -> Box:
        """Return the box."""
        return self.box(height, width, rng)

    def moved(self, image: np.ndarray, drawn: Box) -> np.ndarray:
        """Return the finished part."""
        top, left, h, w = drawn
        return self.finished(image[top : top + h, left : left + w])

    def geometry(self, height: int, width: int, drawn: Box) -> Geometry:
        """Return where pixels go."""
        return cropped(drawn, self.size_of(drawn[2], drawn[3]))


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
    def target(self) -> tuple[int, int]:
        """Height and width of the result."""
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
        wanted = self.target
        if self.antialias == "pillow" or self.interpolation == "nearest":
            return 1
        return max(
            by for by in REDUCTIONS if by == 1 or (height >= by * wanted[0] and width >= by * wanted[1])
        )

    def size_of(self, height: int, width: int) -> tuple[int, int]:
        """Return the wanted size."""
        return self.target

    def finished(self, part: np.ndarray) -> np.ndarray:
        """Return a part at the wanted size."""
        height, width = self.target
        if self.antialias == "pillow":
            return resize(part, (height, width), self.interpolation)
        return resize_fast(part, (height, width), self.interpolation, self.antialias == "fast")


@dataclass(frozen=True)
class FlipLeftRight(DrawnTransform):
    """Mirror with the given probability."""

    probability: float = 0.5

    def __post_init__(self) -> None:
        check_probability(self.probability, "flip_lr: probability")

    def draw(self, height: int, width: int, rng: np.random.Generator) -> bool:
        """Return whether to mirror."""
        return rng.random() < self.probability

    def moved(self, image: np.ndarray, drawn: bool) -> np.ndarray:
        """Return the image or its mirror image."""
        if not drawn:
            return image
        # Copying a mirrored view costs far more.
        return cv2.flip(image, 1) if image.shape[-1] == 3 else image[:, ::-1]

    def geometry(self, height: int, width: int, drawn: bool) -> Geometry:
        """Return where pixels go."""
        return mirrored(height, width, horizontal=True) if drawn else Geometry(IDENTITY, (height, width))


@dataclass(frozen=True)
class PadCrop(DrawnTransform):
    """Pad every side with `padding` zeros and take a random part of `size`: a random shift."""

    size: Size
    padding: int

    def __post_init__(self) -> None:
        pair(self.size, "pad_crop: size")
        check_integer(self.padding, "pad_crop: padding", 0)

    @cached_property
    def _size(self) -> tuple[int, int]:
        return pair(self.size, "pad_crop: size")

    def draw(self, height: int, width: int, rng: np.random.Generator) -> tuple[int, int]:
        """Return top and left of the part in the padded image."""
        (h, w), p = self._size, self.padding
        rows, columns = height + 2 * p - h, width + 2 * p - w
        if rows < 0 or columns < 0:
            raise DataError(
                f"the image is {height}x{width}, too small for pad_crop({(h, w)}, {p}); resize it first."
            )
        # One draw for both shifts: drawing costs more than copying a small image.
        return divmod(int(rng.integers((rows + 1) * (columns + 1))), columns + 1)

    def moved(self, image: np.ndarray, drawn: tuple[int, int]) -> np.ndarray:
        """Return the shifted image."""
        (height, width), (top, left) = self._size, drawn
        h, w, channels = image.shape
        p = self.padding
        padded = np.zeros((h + 2 * p, w + 2 * p, channels), image.dtype)
        padded[p : p + h, p : p + w] = image
        return padded[top : top + height, left : left + width]

    def geometry(self, height: int, width: int, drawn: tuple[int, int]) -> Geometry:
        """Return where pixels go."""
        return cropped((drawn[0] - self.padding, drawn[1] - self.padding, *self._size))
