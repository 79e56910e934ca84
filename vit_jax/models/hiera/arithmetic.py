"""Multiply-adds and parameters of a Hiera. Needs no jax."""

from vit_jax.models.arithmetic import dense_parameters
from vit_jax.models.hiera.config import HieraConfig, Stage


def macs(config: HieraConfig, visible: float | None = 1.0) -> int:
    """Return the multiply-adds of one image; see `models.flops.forward_macs`."""
    (h, w), visible = config.grid, 1.0 if visible is None else visible
    units = (h // config.mask_unit) * (w // config.mask_unit)
    tokens = int(units * visible) * config.mask_unit**2
    count = h * w * config.patch_kernel**2 * config.in_channels * config.width
    for stage in config.stages:
        if stage.enters:
            count += _entry_macs(stage, tokens, projects=config.shortcut == "project")
            tokens //= 4 if stage.pooling else 1
        d, m = stage.blocks.width, stage.blocks.mlp_dim
        seen = stage.unit if stage.windowed else tokens
        count += stage.rest * tokens * (4 * d**2 + 2 * seen * d + 2 * d * m)
    return count + config.feature_width * config.num_classes


def _entry_macs(stage: Stage, tokens: int, *, projects: bool) -> int:
    i, d, m = stage.inputs, stage.blocks.width, stage.blocks.mlp_dim
    fewer = 4 if stage.pooling else 1
    seen = stage.unit * fewer if stage.entry_windowed else tokens
    after = tokens // fewer
    return tokens * i * d * (3 + projects) + after * (2 * seen * d + d**2 + 2 * d * m)


def parameters(config: HieraConfig) -> int:
    """Return the number of parameters."""
    (h, w), d = config.grid, config.width
    count = dense_parameters(config.patch_kernel**2 * config.in_channels, d)
    count += d * (h * w if config.position == "learned" else _window_positions(config))
    for stage in config.stages:
        count += stage.rest * _block_parameters(stage, stage.blocks.width)
        if stage.enters:
            count += _block_parameters(stage, stage.inputs)
            count += dense_parameters(stage.inputs, stage.blocks.width) * (config.shortcut == "project")
    widths = (d, *(stage.blocks.width for stage in config.stages))
    count += 2 * sum(widths[level] for level in config.level_norms)
    count += 2 * config.feature_width * config.pool_norm
    return count + dense_parameters(config.feature_width, config.num_classes)


def _window_positions(config: HieraConfig) -> int:
    return config.position_grid[0] * config.position_grid[1] + config.mask_unit**2


def _block_parameters(stage: Stage, inputs: int) -> int:
    d, m = stage.blocks.width, stage.blocks.mlp_dim
    attention = dense_parameters(inputs, 3 * d) + dense_parameters(d, d)
    scales = 0 if stage.blocks.layer_scale is None else 2 * d
    return attention + dense_parameters(d, m) + dense_parameters(m, d) + 2 * (inputs + d) + scales
