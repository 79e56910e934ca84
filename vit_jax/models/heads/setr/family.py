"""Segmentation models with SETR's decoders as a family. Needs no jax."""

import math

from vit_jax.models.arithmetic import dense_parameters
from vit_jax.models.families import family_of
from vit_jax.models.family import Family
from vit_jax.models.heads import on_backbone
from vit_jax.models.heads.setr.config import SetrConfig


def _convolutions(config: SetrConfig) -> list[tuple[int, int, int, int]]:
    """Return places, side of the kernel, inputs and outputs of each convolution that a norm follows."""
    d, levels = config.channels, config.levels
    if config.decoder == "up":
        places = [math.prod(levels[-1].grid) * config.scale ** (2 * index) for index in range(config.convs)]
        widths = [levels[-1].channels] + [d] * config.convs
        return [(n, config.kernel, i, o) for n, i, o in zip(places, widths, widths[1:])]
    found = []
    for level in levels:
        places, b = math.prod(level.grid), config.branch_channels
        found += [(places, 1, level.channels, d), (places, 3, d, d), (places, 3, d, b), (places, 3, b, b)]
    return found


def _head(config: SetrConfig) -> tuple[int, int]:
    """Return places and inputs of the dense layer that gives the classes."""
    places = math.prod(config.levels[-1].grid)
    if config.decoder == "up":
        return places * config.scale ** (2 * config.convs), config.channels
    return 16 * places, config.branch_channels * len(config.levels)


def _macs(config: SetrConfig, visible: float | None = 1.0) -> int:
    count = family_of(config.encoder).macs(config.encoder, visible)
    count += sum(places * side**2 * i * o for places, side, i, o in _convolutions(config))
    return count + math.prod(_head(config)) * config.num_classes


def _parameters(config: SetrConfig) -> int:
    """Return the parameters; the statistics of batch norms are none."""
    d, classes, levels = config.channels, config.num_classes, config.levels
    count = family_of(config.encoder).parameters(config.encoder)
    count += sum(side**2 * i * o + 2 * o for _, side, i, o in _convolutions(config))
    count += dense_parameters(_head(config)[1], classes)
    count += 2 * sum(level.channels for level in (levels if config.decoder == "mla" else levels[-1:]))
    for number in config.auxiliary:
        count += dense_parameters(d, classes)
        if config.decoder == "up":
            width = levels[number].channels
            count += 2 * width + config.kernel**2 * width * d + 2 * d
    return count


FAMILY = Family(
    name="setr",
    config=SetrConfig,
    module="vit_jax.models.heads.setr.model:Setr",
    macs=_macs,
    parameters=_parameters,
    **on_backbone.COMMON,
)
