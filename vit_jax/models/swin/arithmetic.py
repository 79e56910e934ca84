"""Multiply-adds and parameters of a Swin Transformer. Needs no jax."""

import math

from vit_jax.models.arithmetic import blocks_parameters, dense_parameters
from vit_jax.models.swin.config import BIAS_UNITS, SwinConfig


def macs(config: SwinConfig, visible: float | None = 1.0) -> int:
    """Return the multiply-adds of one image.

    Projections and attention are counted over whole windows, also where zeros fill them; and with each image, as in the
    published tables, the MLP that makes the bias of version 2, though a batch does with one.
    """
    count = config.num_patches * math.prod(config.patch_size) * config.in_channels * config.width
    for stage, depth in enumerate(config.depths):
        blocks, fit, sides = config.blocks(stage), config.fit(stage), config.map_size(stage)
        d, places, each = blocks.width, math.prod(sides), math.prod(fit.window)
        windows = math.prod(-(-side // size) for side, size in zip(sides, fit.window))
        attention = windows * each * (4 * d**2 + 2 * each * d)
        offsets = math.prod(2 * side - 1 for side in fit.table) * (config.position_bias == "log")
        bias = offsets * BIAS_UNITS * (2 + blocks.heads)
        count += depth * (attention + bias + places * 2 * d * blocks.mlp_dim)
        count += places * 2 * d * d * (stage > 0)
    places = math.prod(config.map_size(len(config.depths) - 1)) if config.pool == "patches" else 1
    return count + places * config.feature_width * config.num_classes


def parameters(config: SwinConfig) -> int:
    """Return the number of parameters."""
    values = math.prod(config.patch_size) * config.in_channels
    count = dense_parameters(values, config.width) + 2 * config.width + config.width * config.mask_token
    for stage, depth in enumerate(config.depths):
        blocks = config.blocks(stage)
        d, heads = blocks.width, blocks.heads
        count += blocks_parameters(blocks) - 2 * d
        positions = math.prod(2 * side - 1 for side in config.fit(stage).table) * heads
        if config.position_bias == "log":
            positions = dense_parameters(2, BIAS_UNITS) + BIAS_UNITS * heads
        count += depth * (positions + heads * config.cosine)
        if stage:
            count += 2 * d * d + 2 * (d if config.branch_norm == "after" else 2 * d)
    count += 2 * config.feature_width
    if config.num_classes:
        count += dense_parameters(config.feature_width, config.num_classes)
    return count
