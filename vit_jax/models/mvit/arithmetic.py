"""Multiply-adds and parameters of an MViT. Needs no jax."""

from math import prod

from vit_jax.models.arithmetic import dense_parameters
from vit_jax.models.mvit.config import MvitConfig, Run


def macs(config: MvitConfig, visible: float | None = 1.0) -> int:
    """Return the multiply-adds of one image; see `models.flops.forward_macs`."""
    grid = config.patches(config.image_size)
    count = prod(grid) * config.patch_kernel**2 * config.in_channels * config.width
    count += sum(run.depth * _block_macs(config, run) for runs in config.stages() for run in runs)
    return count + config.last_width * config.num_classes


def _block_macs(config: MvitConfig, run: Run) -> int:
    d, prefix = run.width, config.prefix_tokens
    inputs, queries, keys = (prod(grid) + prefix for grid in (run.grid, run.queries, run.keys))
    count = inputs * run.inputs * 3 * d
    count += (prod(run.queries) + 2 * prod(run.keys)) * config.pool_kernel**2 * d
    count += 2 * queries * keys * d + prod(run.queries) * sum(run.keys) * d + queries * d**2
    count += queries * int(d * config.mlp_ratio) * (d + run.outputs)
    if run.inputs != d:
        count += inputs * run.inputs * d
    if run.outputs != d:
        count += queries * d * run.outputs
    return count


def parameters(config: MvitConfig) -> int:
    """Return the number of parameters."""
    d, classes = config.last_width, config.num_classes
    count = dense_parameters(config.patch_kernel**2 * config.in_channels, config.width)
    count += config.width * config.prefix_tokens
    count += sum(run.depth * _block_parameters(config, run) for runs in config.stages() for run in runs)
    return count + 2 * d + (d + 1) * classes * bool(classes)


def _block_parameters(config: MvitConfig, run: Run) -> int:
    d, k = run.width, config.head_dim
    hidden = int(d * config.mlp_ratio)
    count = 2 * run.inputs + 2 * d
    count += dense_parameters(run.inputs, 3 * d, config.qkv_bias) + dense_parameters(d, d)
    count += 3 * (config.pool_kernel**2 * k + 2 * k) + sum(run.tables) * k
    count += dense_parameters(d, hidden) + dense_parameters(hidden, run.outputs)
    count += dense_parameters(run.inputs, d) * (run.inputs != d)
    return count + dense_parameters(d, run.outputs) * (run.outputs != d)
