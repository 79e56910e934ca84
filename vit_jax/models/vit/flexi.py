"""Patches of other sizes than the parameters are for (FlexiViT, Beyer et al. 2022, arXiv 2212.08013).

The same rules hold where weights are loaded and where training draws a size for each step, so that what a model is at a
size does not depend on when it is asked.
"""

from typing import TypeVar

import jax
import numpy as np

from vit_jax.models.draws import drawn
from vit_jax.models.layers.positions.resample import resample_patch_kernel, resample_positions
from vit_jax.models.vit.config import ViTConfig, replace

A = TypeVar("A", np.ndarray, jax.Array)


def at_drawn_size(config: ViTConfig) -> ViTConfig:
    """Return the configuration with the patch size that this step of training drew; as it is where none was."""
    size = drawn(config)
    return config if size is None else replace(config, patch_size=size, patch_sizes=())


def resized_kernel(config: ViTConfig, kernel: A, size: tuple[int, int], method: str = "flexi") -> A:
    """Return the patch kernel `(p, q, c, d)` of a model for patches of another size."""
    inverse_of, antialias = "bicubic", True
    if config.load_resample:
        inverse_of, antialias = config.load_resample, config.load_antialias
        if inverse_of == "zoom":  # which is for positions
            inverse_of, antialias = "bilinear", False
    elif config.patch_sizes:
        inverse_of, antialias = "bilinear", False
    return resample_patch_kernel(kernel, size, method, inverse_of, antialias)


def resized_positions(config: ViTConfig, table: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """Return the learned positions `(slots, d)` of a model for another grid, not of one call but of its parameters."""
    method, antialias, offset = position_rule(config)
    prefix = config.position_slots - config.num_patches
    return resample_positions(table, config.grid, grid, method, antialias, prefix, offset)


def position_rule(config: ViTConfig) -> tuple[str, bool, float]:
    """Return method, antialiasing and offset by which positions go to another grid when parameters do."""
    if config.load_resample:
        return config.load_resample, config.load_antialias, 0.0
    if config.patch_sizes:
        return "bilinear", True, 0.0
    return config.resample, config.resample_antialias, config.resample_offset
