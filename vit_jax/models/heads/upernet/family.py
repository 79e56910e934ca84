"""Segmentation models with UPerNet's decoder as a family. Needs no jax."""

import math
from itertools import pairwise

from vit_jax.models.families import family_of
from vit_jax.models.family import Family
from vit_jax.models.heads import on_backbone
from vit_jax.models.heads.upernet.config import UperNetConfig


def _convolutions(config: UperNetConfig) -> list[tuple[int, int, int, int]]:
    """Return places, side of the kernel, inputs and outputs of each convolution that a norm follows."""
    d, scales, maps = config.width, config.pool_scales, list(zip(config.levels, _places(config)))
    (top, fewest), *lower = maps[::-1]
    found = [(scale * scale, 1, top.channels, d) for scale in scales]
    found.append((fewest, 3, top.channels + len(scales) * d, d))
    for level, places in lower[::-1]:
        found += [(places, 1, level.channels, d), (places, 3, d, d)]
    return [*found, (maps[0][1], 3, len(maps) * d, d)]


def _places(config: UperNetConfig) -> list[int]:
    """Return the number of places of each map that the decoder sees."""
    grids = [level.grid for level in config.levels]
    if not config.has_neck:
        return [math.prod(grid) for grid in grids]
    h, w = grids[0]
    return [16 * h * w, 4 * h * w, h * w, (h // 2) * (w // 2)]


def _auxiliary(config: UperNetConfig) -> list[tuple[int, int, int, int]]:
    d, channels = config.levels[-2].channels, config.auxiliary_channels
    if not channels:
        return []
    places = _places(config)[-2]
    sizes = [d, *[channels] * config.auxiliary_convs]
    found = [(places, 3, i, o) for i, o in pairwise(sizes)]
    return found + [(places, 3, d + channels, channels)] * config.auxiliary_concat


def _macs(config: UperNetConfig, visible: float | None = 1.0) -> int:
    places = _places(config)
    count = family_of(config.encoder).macs(config.encoder, visible)
    if config.has_neck:  # it doubles the first map twice and the second once
        count += (1 + 4 + 1) * places[2] * 4 * config.levels[0].channels ** 2
    count += sum(places * side * side * i * o for places, side, i, o in _convolutions(config))
    return count + places[0] * config.width * config.num_classes


def _parameters(config: UperNetConfig) -> int:
    """Return the parameters; the statistics of batch norms are none."""
    d, norm = config.levels[0].channels, 2
    count = family_of(config.encoder).parameters(config.encoder)
    count += (3 * (4 * d * d + d) + norm * d) * config.has_neck
    convolutions = (*_convolutions(config), *_auxiliary(config))
    count += sum(side * side * i * o + norm * o for _, side, i, o in convolutions)
    return count + sum(
        (width + 1) * config.num_classes for width in (config.width, config.auxiliary_channels) if width
    )


FAMILY = Family(
    name="upernet",
    config=UperNetConfig,
    module="vit_jax.models.heads.upernet.model:UperNet",
    macs=_macs,
    parameters=_parameters,
    **on_backbone.COMMON,
)
