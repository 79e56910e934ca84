"""Crops of an image: how many and how large, whether a model takes them, and their pixels and maps at other sizes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.errors import ConfigError
from vit_jax.models.families import family_of
from vit_jax.models.family import Level
from vit_jax.models.layers.positions.resample import resample_grid
from vit_jax.models.registry import model_functions
from vit_jax.objectives.dino.masks import most_masked
from vit_jax.objectives.dino.options import DinoOptions


@dataclass(frozen=True)
class Crops:
    """Crops of an image of one size: how many, and height and width in pixels."""

    count: int
    size: tuple[int, int]


def crops_of(shapes: Mapping[str, tuple[int, ...]]) -> tuple[Crops, ...]:
    """Return the crops among fields of these shapes, global ones first; nothing where there are none."""
    found = [shapes[name] for name in ("global_crops", "local_crops") if name in shapes]
    return tuple(Crops(count, (h, w)) for count, h, w, _ in found) if "global_crops" in shapes else ()


def check_model(model: Any, options: DinoOptions, crops: tuple[Crops, ...]) -> None:
    """Raise `ConfigError` unless a model can learn by these options from such crops, if there are any."""
    kind = type(model).__name__.removesuffix("Config")
    if model_functions(model).abstract_buffers:
        raise ConfigError(
            f"a {kind} has batch statistics, which a moving teacher would have to follow; choose a model without, "
            "such as a Vision Transformer or a Swin Transformer."
        )
    maps = [name for name in ("patch_weight", "gram_weight") if getattr(options, name)]
    if maps and getattr(model, "patch_drop_rate", 0):
        raise ConfigError(
            f"model.patch_drop_rate is {model.patch_drop_rate}, but objective.{maps[0]} compares all patches; set one "
            "of them to 0."
        )
    if options.patch_weight:
        _check_masks(model, options, crops)
    if not crops:
        return
    whole, *local = crops
    if whole.count + sum(one.count for one in local) < 2:
        raise ConfigError(
            "one global crop and no local one leave the student nothing to compare; give multi_crop a global_count or "
            "local_count of at least 2."
        )
    if options.gram_size and options.gram_size < max(model.image_size):
        raise ConfigError(
            f"objective.gram_size is {options.gram_size}, but the model's images are {_by(model.image_size)}; it must "
            "be at least as large."
        )
    for one in local:
        if any(side > most for side, most in zip(one.size, model.image_size)):
            raise ConfigError(
                f"multi_crop's local crops are {_by(one.size)}, larger than the model's images, "
                f"{_by(model.image_size)}; choose a smaller local_size or a larger model.image_size."
            )
        stride = family_of(model).levels(model)[0].stride
        if any(side % step for side, step in zip(one.size, stride)):
            raise ConfigError(
                f"multi_crop's local crops are {_by(one.size)}, which patches of {_by(stride)} do not divide; choose a "
                "multiple for local_size."
            )


def check_sizes(model: Any, crops: tuple[Crops, ...]) -> None:
    """Raise `ConfigError` unless a model takes images as large as local crops are; it is traced, not compiled."""
    functions = model_functions(model)
    for one in crops[1:]:
        images = jax.ShapeDtypeStruct((1, *one.size, model.in_channels), jnp.float32)
        try:
            jax.eval_shape(functions.apply, functions.abstract, images)
        except ConfigError as error:
            raise ConfigError(f"multi_crop's local crops are {_by(one.size)}, but {error}") from None


def _check_masks(model: Any, options: DinoOptions, crops: tuple[Crops, ...]) -> None:
    levels = family_of(model).levels(model)
    if len(levels) != 1 or not getattr(model, "mask_token", False):
        raise ConfigError(
            f"objective.patch_weight needs a model with a mask token and one map of its patches, and a "
            f"{type(model).__name__.removesuffix('Config')} has not; choose a Vision Transformer, or patch_weight=0."
        )
    grid = levels[-1].grid
    if most_masked(grid, options.mask_ratio) < 1:
        raise ConfigError(
            f"objective.mask_ratio is {options.mask_ratio}, which hides none of {grid[0] * grid[1]} patches; choose "
            "larger ratios, or smaller patches."
        )
    if crops and options.masked_crops > crops[0].count:
        raise ConfigError(
            f"objective.masked_crops is {options.masked_crops}, but there are {crops[0].count} global crops; choose at "
            "most as many."
        )


def flat(crops: jax.Array) -> jax.Array:
    """Return crops of images `(b, v, ...)` one after the other, `(b*v, ...)`."""
    return crops.reshape(-1, *crops.shape[2:])


def shrunk(crops: jax.Array, size: tuple[int, int]) -> jax.Array:
    """Return crops `(b, v, h, w, c)` at another size, bicubic with antialiasing."""
    small = jax.vmap(lambda grid: resample_grid(grid, size, "bicubic", antialias=True))(flat(crops))
    return small.reshape(*crops.shape[:2], *small.shape[1:])


def as_maps(features: jax.Array, level: Level, grid: tuple[int, int]) -> jax.Array:
    """Return patches `(b, n, d)` of a captured level as a grid of another size has them, bicubic."""
    maps = features
    if features.ndim == 3:
        maps = features[:, level.prefix :].reshape(len(features), *level.grid, -1)
    found = jax.vmap(lambda one: resample_grid(one, grid, "bicubic"))(maps)
    return found.reshape(len(found), -1, found.shape[-1])


def _by(size: tuple[int, int]) -> str:
    return "x".join(map(str, size))
