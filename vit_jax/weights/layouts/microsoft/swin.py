"""Files of the authors' Swin Transformers, github.com/microsoft/Swin-Transformer, written; read with timm's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.errors import ConfigError
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.layers.positions.windows import Cut, log_offsets, offset_rows
from vit_jax.models.swin.config import SwinConfig
from vit_jax.weights.layouts.layout import Written
from vit_jax.weights.layouts.timm import swin

_HIDDEN = -100.0  # added to scores between places that the shift brought together


def write(config: SwinConfig, params: Mapping[str, Any], class_names: Sequence[str]) -> Written:
    """Return a model as the authors' file has it, with the tables that their code computes and keeps.

    Raises:
      ConfigError: the authors' code has no such model.
    """
    rows, columns = config.grid
    if rows != columns or config.pool != "mean" or config.window_fit != "clamp":
        raise ConfigError(
            "the authors' Swin Transformer is written for square grids of patches, with one output for an image and "
            "windows no larger than their maps (window_fit 'clamp'); choose 'timm', 'hf' or 'orbax'."
        )
    constants = {name: table for stage in range(len(config.depths)) for name, table in _tables(config, stage)}
    return Written(
        config, params, swin.rules(replace(config, mask_token=False), authors=True), constants=constants
    )


def _tables(config: SwinConfig, stage: int) -> list[tuple[str, np.ndarray]]:
    """Return the tables of a stage's blocks, by name."""
    fit, sides = config.fit(stage), config.map_size(stage)
    cut = Cut(fit.window, fit.shift, fit.pad_first)
    halved = stage == len(config.depths) - 1 or not sides[0] % 2
    if not cut.fills(sides) or not halved:
        raise ConfigError(
            f"the authors' Swin Transformer has maps that windows divide and that can be halved, but that of stage "
            f"{stage + 1} is {sides[0]}x{sides[1]} and its window {fit.window[0]}; choose 'timm', 'hf' or 'orbax'."
        )
    attention = {"relative_position_index": offset_rows(fit.window, fit.window).astype(np.int64)}
    if config.position_bias == "log":
        side = fit.table[0]
        pretrained = config.pretrained_windows[stage] if config.pretrained_windows else 0
        offsets = log_offsets(fit.table, (pretrained or side,) * 2)
        attention["relative_coords_table"] = offsets.reshape(1, 2 * side - 1, 2 * side - 1, 2)
    neighbours = cut.neighbours(sides)
    found = []
    for block in range(config.depths[stage]):
        theirs = f"layers.{stage}.blocks.{block}"
        found += [(f"{theirs}.attn.{name}", table) for name, table in attention.items()]
        if block % 2 and neighbours is not None:
            found.append((f"{theirs}.attn_mask", np.where(neighbours, 0, _HIDDEN).astype(np.float32)))
    return found
