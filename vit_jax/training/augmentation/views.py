"""`multi_crop` on a device: from whole images of one size to crops, each augmented on its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.data.transforms.base import Transform
from vit_jax.data.transforms.crops import FlipLeftRight, RandomResizedCrop
from vit_jax.data.transforms.multi_crop import MultiCrop
from vit_jax.data.transforms.policies import colors
from vit_jax.data.transforms.spec import parse, text_of
from vit_jax.errors import ConfigError
from vit_jax.random import fold
from vit_jax.training.augmentation import pixels
from vit_jax.training.augmentation.crops import METHODS, draw_box, resized_crop

Image = jax.Array  # (h, w, c), whole values from 0 to 255


def _crop(transform: RandomResizedCrop, image: Image, key: jax.Array) -> Image:
    box = draw_box(transform, image.shape[0], image.shape[1], key)
    return resized_crop(image, box, transform.target, transform.interpolation)


def _flip(transform: FlipLeftRight, image: Image, key: jax.Array) -> Image:
    return _maybe(transform.probability, key, image[:, ::-1], image)


def _jitter(transform: colors.ColorJitter, image: Image, key: jax.Array) -> Image:
    changes = transform.changes()
    if not changes:
        return image
    limits = jnp.asarray([(low, high) for _, low, high in changes])
    amounts = jax.random.uniform(
        fold(key, "amounts"), (len(changes),), minval=limits[:, 0], maxval=limits[:, 1]
    )
    order = jax.random.permutation(fold(key, "order"), len(changes))
    functions = [getattr(pixels, name) for name, _, _ in changes]

    def change(place: jax.Array, image: Image) -> Image:
        # Each image has an order of its own: all changes are made, and one is taken.
        made = [function(image, amount) for function, amount in zip(functions, amounts)]
        return _chosen(order[place], made)

    changed = jax.lax.fori_loop(0, len(changes), change, image)
    return _maybe(transform.probability, key, changed, image)


def _chosen(index: jax.Array, made: list[Image]) -> Image:
    image = made[0]
    for number, other in enumerate(made[1:], 1):
        image = jnp.where(index == number, other, image)
    return image


def _grey(transform: colors.Grayscale, image: Image, key: jax.Array) -> Image:
    return _maybe(transform.probability, key, pixels.grayscale(image), image)


def _blur(transform: colors.GaussianBlur, image: Image, key: jax.Array) -> Image:
    low, high = transform.radius
    radius = jax.random.uniform(fold(key, "radius"), minval=low, maxval=high)
    return _maybe(transform.probability, key, pixels.gaussian_blur(image, radius, high), image)


def _solarize(transform: colors.Solarize, image: Image, key: jax.Array) -> Image:
    return _maybe(transform.probability, key, pixels.solarize(image, transform.threshold), image)


def _maybe(probability: float, key: jax.Array, changed: Image, image: Image) -> Image:
    return jnp.where(jax.random.uniform(fold(key, "whether")) < probability, changed, image)


# What a transform does to an image on a device, by its class.
ON_DEVICE: dict[type[Transform], Callable[[Any, Image, jax.Array], Image]] = {
    RandomResizedCrop: _crop,
    FlipLeftRight: _flip,
    colors.ColorJitter: _jitter,
    colors.Grayscale: _grey,
    colors.GaussianBlur: _blur,
    colors.Solarize: _solarize,
}


def device_views(spec: str) -> "DeviceViews":
    """Return what is done on devices of training transforms: the last of them, which must be `multi_crop`.

    Raises:
      ConfigError: it is another, or cannot be done there.
    """
    steps = parse(spec, "data.train_transforms")
    if not steps or not isinstance(steps[-1], MultiCrop):
        raise ConfigError(
            f"data.augment_on is 'device', where multi_crop is done, but data.train_transforms are {spec!r}; "
            "end them with it, after what makes all images one size, or set data.augment_on='cpu'."
        )
    return DeviceViews(steps[-1])


def on_host(spec: str) -> str:
    """Return training transforms without the last."""
    return text_of(parse(spec, "data.train_transforms")[:-1])


@dataclass(frozen=True)
class DeviceViews:
    """`multi_crop` inside the jitted step.

    Attributes:
      transform: with sizes, scales, and what is done to each crop.

    Raises:
      ConfigError: something is done to a crop that cannot be done on a device.
    """

    transform: MultiCrop

    def __post_init__(self) -> None:
        if self.transform.interpolation not in METHODS:
            raise ConfigError(
                f"multi_crop: interpolation is {self.transform.interpolation!r}, but data.augment_on 'device' knows "
                f"{' and '.join(METHODS)}; choose one of them."
            )
        for step in (step for views in self.transform.views for view in views for step in view):
            if type(step) not in ON_DEVICE:
                known = ", ".join(sorted(kind.__name__ for kind in ON_DEVICE))
                raise ConfigError(
                    f"data.augment_on is 'device', where {type(step).__name__} is not known ({known} are); leave it "
                    "out, or set data.augment_on='cpu'."
                )

    def __call__(self, batch: Mapping[str, jax.Array], key: jax.Array) -> dict[str, jax.Array]:
        """Return a batch with `global_crops` and perhaps `local_crops` instead of its images.

        Args:
          batch: with `image`, uint8 `(b, h, w, c)`.
          key: of the step; that of an image follows from its row, and of a crop from its number.

        Returns:
          Crops are uint8 `(b, v, h, w, c)`; all other fields are as they were.
        """
        images = batch["image"]
        if images.dtype != jnp.uint8:
            raise ConfigError(
                f"images are {images.dtype}, but data.augment_on 'device' takes uint8; set data.augment_on='cpu'."
            )
        made = {name: rows for name, rows in batch.items() if name != "image"}
        for kind, views in zip(("global_crops", "local_crops"), self.transform.views):
            if views:
                keys = jax.random.split(fold(key, kind), (len(images), len(views)))
                made[kind] = jax.vmap(lambda image, own, views=views: _views(views, image, own))(images, keys)
        return made


def _views(views: list[list[Transform]], image: jax.Array, keys: jax.Array) -> jax.Array:
    """Return views of an image `(v, h, w, c)` uint8; those made alike are made at once."""

    def one(steps: list[Transform], key: jax.Array) -> jax.Array:
        made = image.astype(jnp.float32)
        for number, step in enumerate(steps):
            made = ON_DEVICE[type(step)](step, made, fold(key, number))
        return made.astype(jnp.uint8)

    made, first = [], 0
    for steps, alike in groupby(views):
        last = first + len(list(alike))
        made.append(jax.vmap(lambda key, steps=steps: one(steps, key))(keys[first:last]))
        first = last
    return jnp.concatenate(made)
