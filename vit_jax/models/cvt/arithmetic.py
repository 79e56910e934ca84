"""Multiply-adds and parameters of a CvT. Needs no jax."""

from math import prod

from vit_jax.models.arithmetic import dense_parameters
from vit_jax.models.cvt.config import CvtConfig


def macs(config: CvtConfig, visible: float | None = 1.0) -> int:
    """Return the multiply-adds of one image; see `models.flops.forward_macs`."""
    count, channels = config.widths[-1] * config.num_classes, config.in_channels
    for index, grid in enumerate(config.grids(config.image_size)):
        blocks, places, keys = config.stage(index), prod(grid), prod(config.keys(grid))
        d, first = blocks.width, index == len(config.depths) - 1
        queries, pairs = places + first, keys + first
        count += places * config.kernels[index] ** 2 * channels * d
        block = (places + 2 * keys) * config.projection_kernel**2 * d
        block += 2 * (queries + pairs) * d**2 + 2 * queries * pairs * d + 2 * queries * d * blocks.mlp_dim
        count, channels = count + blocks.depth * block, d
    return count


def parameters(config: CvtConfig) -> int:
    """Return the number of parameters; the statistics of batch norms are none."""
    d, classes = config.widths[-1], config.num_classes
    count, channels = d + 2 * d * config.final_norm + (d + 1) * classes * bool(classes), config.in_channels
    for index in range(len(config.depths)):
        blocks = config.stage(index)
        d, m = blocks.width, blocks.mlp_dim
        count += dense_parameters(config.kernels[index] ** 2 * channels, d) + 2 * d
        block = 3 * (config.projection_kernel**2 * d + 2 * d + dense_parameters(d, d, config.qkv_bias))
        block += dense_parameters(d, d) + dense_parameters(d, m) + dense_parameters(m, d) + 2 * 2 * d
        count, channels = count + blocks.depth * block, d
    return count
