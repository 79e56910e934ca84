"""Random changes of colour and sharpness, one at a time."""

from dataclasses import dataclass

import numpy as np

from vit_jax.data.transforms.base import ImageTransform, check_interval, check_probability, is_number
from vit_jax.data.transforms.policies import photometric as p
from vit_jax.data.transforms.policies.operations import check_pixels
from vit_jax.errors import ConfigError, DataError

Strength = float | tuple[float, float]


def _factors(value: Strength, name: str) -> tuple[float, float]:
    """Return the interval of factors that a strength means: around 1, and not negative.

    Raises:
      ConfigError: neither a number of at least 0 nor an interval.
    """
    if is_number(value) and value >= 0:
        return max(0.0, 1 - value), 1 + value
    return _interval(value, name, 0.0, 1e6)


def _shifts(value: Strength, name: str) -> tuple[float, float]:
    """Return the interval of shifts of hue that a strength means."""
    if is_number(value) and 0 <= value <= 0.5:
        return -value, value
    return _interval(value, name, -0.5, 0.5)


def _interval(value: object, name: str, least: float, most: float) -> tuple[float, float]:
    pair = value if isinstance(value, tuple | list) and len(value) == 2 else None
    if pair is None or not all(is_number(end) for end in pair) or not least <= pair[0] <= pair[1] <= most:
        allowed = "from 0 to 0.5" if least < 0 else "of at least 0"
        raise ConfigError(f"{name} is {value!r}; it must be a number {allowed}, or (low, high).")
    return pair[0], pair[1]


@dataclass(frozen=True)
class ColorJitter(ImageTransform):
    """Change brightness, contrast, saturation and hue, in random order, with the given probability.

    A number `s` means factors from `1 - s` to `1 + s` (for hue, shifts from `-s` to `s` of the circle of colours);
    two numbers are the interval. As torchvision does with Pillow's images.
    """

    brightness: Strength = 0.0
    contrast: Strength = 0.0
    saturation: Strength = 0.0
    hue: Strength = 0.0
    probability: float = 1.0

    def __post_init__(self) -> None:
        self.changes()
        check_probability(self.probability, "color_jitter: probability")

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the changed image."""
        check_pixels(image, "color_jitter")
        if rng.random() >= self.probability:
            return image
        changes = self.changes()
        for index in rng.permutation(len(changes)):
            name, low, high = changes[index]
            image = getattr(p, name)(image, rng.uniform(low, high))
        return image

    def changes(self) -> list[tuple[str, float, float]]:
        """Return names of functions in `photometric` with the intervals of their arguments, without those that change
        nothing."""
        changes = [
            ("brightness", *_factors(self.brightness, "color_jitter: brightness")),
            ("contrast", *_factors(self.contrast, "color_jitter: contrast")),
            ("color", *_factors(self.saturation, "color_jitter: saturation")),
            ("hue", *_shifts(self.hue, "color_jitter: hue")),
        ]
        return [(name, low, high) for name, low, high in changes if (low, high) not in ((1, 1), (0, 0))]


@dataclass(frozen=True)
class Grayscale(ImageTransform):
    """Take the colour away with the given probability; the number of channels stays."""

    probability: float = 0.1

    def __post_init__(self) -> None:
        check_probability(self.probability, "grayscale: probability")

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the image or its grey version."""
        check_pixels(image, "grayscale")
        return p.grayscale(image) if rng.random() < self.probability else image


@dataclass(frozen=True)
class Hsv(ImageTransform):
    """Say colours by hue, saturation and value instead of red, green and blue: the model's channels are these three.

    It must be among the transforms of training and of evaluation; the latter travel with a checkpoint.
    """

    colours = "hsv"

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the converted image.

        Raises:
          DataError: the image has one channel, and so no colours.
        """
        check_pixels(image, "hsv")
        if image.shape[-1] != 3:
            raise DataError(
                f"hsv: the image has {image.shape[-1]} channel, and hues need 3; put to_channels(3) before it."
            )
        return p.hsv(image)


@dataclass(frozen=True)
class GaussianBlur(ImageTransform):
    """Blur with the given probability, with a standard deviation uniform in `radius`, in pixels.

    The default radii are those of DINO, SimCLR and DeiT III.
    """

    probability: float = 0.5
    radius: tuple[float, float] = (0.1, 2.0)

    def __post_init__(self) -> None:
        check_probability(self.probability, "gaussian_blur: probability")
        check_interval(self.radius, "gaussian_blur: radius", 1000)

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the image or its blurred version."""
        check_pixels(image, "gaussian_blur")
        return p.gaussian_blur(image, rng.uniform(*self.radius)) if rng.random() < self.probability else image


@dataclass(frozen=True)
class Solarize(ImageTransform):
    """Invert values of at least `threshold`, with the given probability."""

    probability: float = 0.2
    threshold: float = 128

    def __post_init__(self) -> None:
        check_probability(self.probability, "solarize: probability")
        if not is_number(self.threshold) or not 0 <= self.threshold <= 256:
            raise ConfigError(f"solarize: threshold is {self.threshold!r}; it must be from 0 to 256.")

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the image or its solarised version."""
        check_pixels(image, "solarize")
        return p.solarize(image, self.threshold) if rng.random() < self.probability else image


@dataclass(frozen=True)
class ThreeAugment(ImageTransform):
    """Make grey, solarise, or blur, one of the three: DeiT III's 3-Augment.

    In its recipes `color_jitter(0.3, 0.3, 0.3)` follows.

    Reference: Touvron et al. 2022, DeiT III, arXiv 2204.07118.
    """

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the augmented image."""
        check_pixels(image, "three_augment")
        which = int(3 * rng.random())
        if which == 0:
            return p.grayscale(image)
        return p.solarize(image) if which == 1 else p.gaussian_blur(image, rng.uniform(0.1, 2.0))
