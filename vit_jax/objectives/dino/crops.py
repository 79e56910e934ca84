"""Whether a model can learn from crops by the options, and their pixels and maps at other sizes."""

from typing import Any

import jax

from vit_jax.errors import ConfigError
from vit_jax.models.families import family_of
from vit_jax.models.family import Level
from vit_jax.models.layers.positions.resample import resample_grid
from vit_jax.models.registry import model_functions
from vit_jax.objectives.crops import Crops, by, check_local, flat
from vit_jax.objectives.dino.masks import most_masked
from vit_jax.objectives.dino.options import DinoOptions


def check_model(model: Any, options: DinoOptions, crops: tuple[Crops, ...]) -> None:
    """Raise `ConfigError` unless a model can learn by these options from such crops, if there are any."""
    kind = type(model).__name__.removesuffix("Config")
    if model_functions(model).abstract_buffers:
        raise ConfigError(
            f"a {kind} has batch statistics, which a moving teacher would have to follow; choose a model without, "
            "such as a Vision Transformer or a Swin Transformer."
        )
    maps = [name for name in ("patch_weight", "gram_weight") if getattr(options, name)]
    for field in ("patch_drop_rate", "merge_tokens"):
        if maps and getattr(model, field, None):
            raise ConfigError(
                f"model.{field} is {getattr(model, field)}, but objective.{maps[0]} compares all patches; leave one of "
                "them out."
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
            f"objective.gram_size is {options.gram_size}, but the model's images are {by(model.image_size)}; it must "
            "be at least as large."
        )
    check_local(model, crops)


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
