"""Crops of an image: how many and how large, and whether a model takes those of another size."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.errors import ConfigError
from vit_jax.models.families import family_of
from vit_jax.models.registry import model_functions
from vit_jax.objectives.protocol import Field


@dataclass(frozen=True)
class Crops:
    """Crops of an image of one size: how many, and height and width in pixels."""

    count: int
    size: tuple[int, int]


def crops_of(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Crops, ...]:
    """Return the crops among fields of these shapes, global ones first; nothing where there are none."""
    found = [shapes[name] for name in ("global_crops", "local_crops") if name in shapes]
    return tuple(Crops(count, (h, w)) for count, h, w, _ in found) if "global_crops" in shapes else ()


def crop_fields(model: Any, size: tuple[int, int], crops: tuple[Crops, ...]) -> dict[str, Field]:
    """Return the fields that are crops for a model: global ones of a size, and local ones if there are any."""
    local = {"local_crops": Field((None, None, None, model.in_channels), "uint8")} if len(crops) > 1 else {}
    return {"global_crops": Field((None, *size, model.in_channels), "uint8"), **local}


def check_local(model: Any, crops: tuple[Crops, ...]) -> None:
    """Raise `ConfigError` where local crops, which come after the first of `crops`, are no images of a model."""
    for one in crops[1:]:
        if any(side > most for side, most in zip(one.size, model.image_size)):
            raise ConfigError(
                f"multi_crop's local crops are {by(one.size)}, larger than the model's images, "
                f"{by(model.image_size)}; choose a smaller local_size or a larger model.image_size."
            )
        stride = family_of(model).levels(model)[0].stride
        if any(side % step for side, step in zip(one.size, stride)):
            raise ConfigError(
                f"multi_crop's local crops are {by(one.size)}, which patches of {by(stride)} do not divide; choose a "
                "multiple for local_size."
            )


def check_sizes(model: Any, crops: tuple[Crops, ...]) -> None:
    """Raise `ConfigError` unless a model takes images as large as local crops are; it is traced, not compiled."""
    functions = model_functions(model)
    for one in crops[1:]:
        images = jax.ShapeDtypeStruct((1, *one.size, model.in_channels), jnp.float32)
        try:
            jax.eval_shape(functions.apply_state, functions.abstract, functions.abstract_buffers, images)
        except ConfigError as error:
            raise ConfigError(f"multi_crop's local crops are {by(one.size)}, but {error}") from None


def of_any_size(model: Any, crops: tuple[Crops, ...]) -> dict[str, bool]:
    """Return what of a model's configuration must change so that it takes these crops."""
    other = any(one.size != model.image_size for one in crops[1:])
    return {"dynamic_image_size": True} if other and hasattr(model, "dynamic_image_size") else {}


def flat(crops: jax.Array) -> jax.Array:
    """Return crops of images `(b, v, ...)` one after the other, `(b*v, ...)`."""
    return crops.reshape(-1, *crops.shape[2:])


def by(size: tuple[int, int]) -> str:
    """Return a size as text, `8x8`."""
    return "x".join(map(str, size))
