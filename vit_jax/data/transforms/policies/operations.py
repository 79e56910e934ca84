"""The operations that augmentation policies choose from, and what their levels mean.

A policy says how strong an operation is as a level; what number that becomes differs between libraries, so each has
a table of its own.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from vit_jax.data.geometry import IDENTITY, Geometry, inverse
from vit_jax.data.images.resizing import check_integer
from vit_jax.data.transforms.policies import geometric as g
from vit_jax.data.transforms.policies import photometric as p
from vit_jax.data.transforms.spatial import SpatialTransform
from vit_jax.errors import ConfigError, DataError, choose

Argument = Callable[[float, np.random.Generator], object]


class Operation(NamedTuple):
    """One operation of a table.

    Attributes:
      function: called with the image, its argument (if it takes one), and if it moves pixels, interpolation and
        fill.
      argument: what a level means, with random signs; None if the operation has no strength.
      moves: where pixels come from, called with height, width and argument; None if they stay.
    """

    function: Callable[..., np.ndarray]
    argument: Argument | None = None
    moves: Callable[[int, int, Any], g.Matrix] | None = None

    def drawn(
        self, level: float, rng: np.random.Generator, interpolation: str, fill: g.Fill
    ) -> tuple[object, ...]:
        """Return what the function takes beside the image; interpolation `random` is bilinear or bicubic."""
        if self.argument is None:
            return ()
        argument = self.argument(level, rng)
        if self.moves is None:
            return (argument,)
        if interpolation == "random":
            interpolation = "bilinear" if rng.random() < 0.5 else "bicubic"
        return argument, interpolation, fill

    def apply(
        self,
        image: np.ndarray,
        level: float,
        rng: np.random.Generator,
        interpolation: str = "nearest",
        fill: g.Fill = 0,
    ) -> np.ndarray:
        """Return the changed image."""
        return self.function(image, *self.drawn(level, rng, interpolation, fill))

    def geometry(self, height: int, width: int, drawn: tuple[object, ...]) -> Geometry:
        """Return where the pixels of an image of the given size go."""
        if self.moves is None:
            return Geometry(IDENTITY, (height, width))
        source = np.array(self.moves(height, width, drawn[0])).reshape(2, 3)
        return Geometry(inverse(source), (height, width))


class PolicyTransform(SpatialTransform):
    """Operations one after the other, some of which move pixels.

    Attributes:
      interpolation: of what moves: `random`, or a key of `geometric.INTERPOLATIONS`.
      fill: value of pixels that come from outside.
    """

    interpolation: str
    fill: g.Fill

    @abstractmethod
    def chosen(self, image: np.ndarray, rng: np.random.Generator) -> Iterator[tuple[Operation, float]]:
        """Yield operations and their levels; each is drawn once what the one before needs is.

        Raises:
          DataError: the image is not of the kind that they take.
        """

    def image(self, image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Return the augmented image."""
        for operation, level in self.chosen(image, rng):
            image = operation.apply(image, level, rng, self.interpolation, self.fill)
        return image

    def placed(self, image: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, Geometry]:
        """Return the augmented image, and where its pixels went."""
        height, width, _ = image.shape
        whole = Geometry(IDENTITY, (height, width))
        for operation, level in self.chosen(image, rng):
            drawn = operation.drawn(level, rng, self.interpolation, self.fill)
            image, whole = (
                operation.function(image, *drawn),
                whole.then(operation.geometry(height, width, drawn)),
            )
        return image, whole


def check_moving(interpolation: object, fill: object, name: str, interpolations: tuple[str, ...]) -> None:
    """Raise `ConfigError` unless the interpolation is allowed and `fill` is one value or one per channel."""
    choose(str(interpolation), interpolations, f"{name}: interpolation")
    values = fill if isinstance(fill, tuple | list) else (fill,)
    if len(values) not in (1, 3) or not all(
        isinstance(v, int) and not isinstance(v, bool) and 0 <= v <= 255 for v in values
    ):
        raise ConfigError(
            f"{name}: fill is {fill!r}; it must be an integer from 0 to 255, or one for each of 3 channels."
        )


def check_count(value: object, name: str) -> None:
    """Raise `ConfigError` unless `value` is an integer of at least 1."""
    check_integer(value, name, 1)


def check_pixels(image: np.ndarray, name: str, fill: object = 0) -> None:
    """Raise `DataError` unless the image is uint8, of one or three channels, as many as `fill` has."""
    channels = image.shape[-1]
    if image.dtype != np.uint8 or channels not in (1, 3):
        raise DataError(
            f"the image has type {image.dtype} and {channels} channels; {name} needs uint8 images of 1 or 3 "
            "channels: use it directly after decoding and cropping, or leave it out."
        )
    if isinstance(fill, tuple | list) and len(fill) != channels:
        raise DataError(
            f"the image has {channels} channels, but {name} fills with {fill}; give fill one value."
        )


def timm_operations(translation: float = 0.45) -> dict[str, Operation]:
    """Return timm's operations, whose levels reach from 0 to 10.

    `_increasing` ones grow stronger with the level; `posterize`, `solarize`, and the mixtures from `color` to
    `sharpness` do not, as in TensorFlow's first implementation.

    Args:
      translation: at level 10, as a share of the image's size.
    """
    operations = {
        "autocontrast": Operation(p.autocontrast),
        "equalize": Operation(p.equalize),
        "invert": Operation(p.invert),
        "rotate": Operation(g.rotate, signed(30), g.rotated),
        "posterize": Operation(p.posterize, _posterize_bits),
        "posterize_increasing": Operation(p.posterize, lambda level, rng: 4 - _posterize_bits(level, rng)),
        "posterize_original": Operation(p.posterize, lambda level, rng: 4 + _posterize_bits(level, rng)),
        "solarize": Operation(p.solarize, _solarize_threshold),
        "solarize_increasing": Operation(
            p.solarize, lambda level, rng: 256 - _solarize_threshold(level, rng)
        ),
        "solarize_add": Operation(p.solarize_add, lambda level, rng: min(128, int(level / 10 * 110))),
        "shear_x": Operation(g.shear_x, signed(0.3), g.sheared_x),
        "shear_y": Operation(g.shear_y, signed(0.3), g.sheared_y),
        "translate_x_rel": Operation(g.translate_x_rel, signed(translation), g.shifted_x_rel),
        "translate_y_rel": Operation(g.translate_y_rel, signed(translation), g.shifted_y_rel),
        "desaturate": Operation(p.desaturate, lambda level, rng: 0.5 + 0.5 * min(1.0, level / 10)),
        "gaussian_blur": Operation(p.gaussian_blur, lambda level, rng: 0.1 + 1.9 * min(1.0, level / 10)),
        "gaussian_blur_random": Operation(p.gaussian_blur, _blur_radius),
    }
    for name, function in MIXTURES.items():
        operations[name] = Operation(function, lambda level, rng: level / 10 * 1.8 + 0.1)
        operations[f"{name}_increasing"] = Operation(
            function, lambda level, rng: max(0.1, 1 + random_sign(rng) * (level / 10 * 0.9))
        )
    return operations


MIXTURES = {"color": p.color, "contrast": p.contrast, "brightness": p.brightness, "sharpness": p.sharpness}


def random_sign(rng: np.random.Generator) -> int:
    """Return 1 or -1."""
    return 1 if rng.random() < 0.5 else -1


def signed(most: float) -> Argument:
    """Return what gives `most` at level 10, with either sign."""
    return lambda level, rng: random_sign(rng) * (level / 10 * most)


def _posterize_bits(level: float, rng: np.random.Generator) -> int:
    return int(level / 10 * 4)


def _solarize_threshold(level: float, rng: np.random.Generator) -> int:
    return min(256, int(level / 10 * 256))


def _blur_radius(level: float, rng: np.random.Generator) -> float:
    return rng.uniform(0.1, 2 * min(1.0, level / 10))
