"""Segmentation models with a linear head as a family. Needs no jax."""

import math

from vit_jax.models.families import family_of
from vit_jax.models.family import Family
from vit_jax.models.heads import on_backbone
from vit_jax.models.heads.linear.config import LinearSegConfig


def _channels(config: LinearSegConfig) -> int:
    return sum(level.channels for level in config.levels)


def _outputs(config: LinearSegConfig) -> int:
    return config.cells**2 * config.num_classes


def _macs(config: LinearSegConfig, visible: float | None = 1.0) -> int:
    places = max(math.prod(level.grid) for level in config.levels)
    encoder = family_of(config.encoder).macs(config.encoder, visible)
    level = config.detail_level if config.detail else None
    detail = math.prod(level.grid) * level.channels * config.num_classes if level else 0
    return encoder + places * _channels(config) * _outputs(config) + detail


def _parameters(config: LinearSegConfig) -> int:
    """Return the parameters; the statistics of a batch norm are none."""
    norm = 2 * _channels(config)
    encoder = family_of(config.encoder).parameters(config.encoder)
    level = config.detail_level if config.detail else None
    detail = level.channels * config.num_classes if level else 0
    return encoder + norm + (_channels(config) + 1) * _outputs(config) + detail


FAMILY = Family(
    name="linear_segmenter",
    config=LinearSegConfig,
    module="vit_jax.models.heads.linear.model:LinearSegmenter",
    macs=_macs,
    parameters=_parameters,
    rules=((r"(^|/)detail/kernel$", "fsdp"),),
    **on_backbone.COMMON,
)
