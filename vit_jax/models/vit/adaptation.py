"""What may change of a Vision Transformer when weights are loaded: size, patch, classes, channels."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np

from vit_jax.errors import CheckpointError
from vit_jax.models.adaptation import Adaptation, Change
from vit_jax.models.layers.positions.relative import RelativePositions
from vit_jax.models.preprocessing import Preprocessing, uncut
from vit_jax.models.vit.config import ViTConfig
from vit_jax.models.vit.flexi import position_rule, resized_kernel, resized_positions


class ViTAdaptation(Adaptation):
    """Positions and patch kernels are resampled by the rule of the model's source."""

    fixed = (
        "width", "depth", "heads", "mlp_dim", "mlp", "stem", "stem_strides", "stem_kind", "backbone", "position",
        "position_bias", "qkv_bias", "k_bias", "norm", "branch_bias", "patch_norm", "mlp_scale", "register_position",
        "pool_heads", "pool_mlp_dim", "differential", "parallel",
    )  # fmt: skip
    head_fields = ("representation_size", "head_batch_norm", "head_bias", "problem")

    def changes(
        self, config: ViTConfig, target: ViTConfig, patch_resample: str = "flexi"
    ) -> dict[str, Change]:
        """Return what must happen to parameters of one model in another, see `Adaptation`."""
        kernels = super().changes(config, target, patch_resample)
        found: dict[str, Change] = {}
        if config.grid != target.grid:
            moved = f"{_by(config.grid)} -> {_by(target.grid)}"
            if config.position == "learned":
                resample = _positions(config, target)
                found["pos_embed"] = (resample, f"{moved}, {position_rule(config)[0]}")
            tables = {"shared": "position_bias", "blocks": "blocks/attn/position_bias"}
            if config.position_bias in tables:
                found[tables[config.position_bias]] = (
                    _relative(config, target),
                    f"{moved}, {config.bias_resample}",
                )
        elif config.position_slots != target.position_slots and config.position == "learned":
            raise CheckpointError(
                "class_position cannot change: the checkpoint's positions have other slots."
            )
        return found | kernels

    def first_kernel(self, config: ViTConfig) -> str:
        """Return the path of the kernel that sees the pixels."""
        if config.backbone:
            return "backbone/conv_root/kernel"
        return "stem/0/kernel" if config.stem else "patch_embed/kernel"

    def first_kernel_steps(self, config: ViTConfig, target: ViTConfig, patch_resample: str) -> list[Change]:
        """Return how the patch kernel goes to another size."""
        if config.patch_size == target.patch_size:
            return []
        if config.stem or config.backbone:
            raise CheckpointError("patch_size cannot change behind a stem or a backbone; leave it out.")
        said = f"patches {_by(config.patch_size)} -> {_by(target.patch_size)}, {patch_resample}"
        return [(lambda kernel: resized_kernel(config, kernel, target.patch_size, patch_resample), said)]

    def other_head(self, config: ViTConfig, num_classes: int) -> dict[str, Any]:
        """Return fields of a model with another head: without the layer before it, and one row for an image."""
        changes = super().other_head(config, num_classes)
        if num_classes:
            changes |= {"representation_size": 0, "head_batch_norm": False, "head_bias": True}
            if config.pool in ("patches", "none"):
                changes |= {"pool": "cls" if config.class_token else "mean"}
        return changes

    def resized_preprocessing(self, config: ViTConfig) -> Preprocessing:
        """Return the preprocessing without the rows and columns that patches left uncovered."""
        return uncut(config.preprocessing, config.image_size, config.token_stride)[0]


ADAPTATION = ViTAdaptation()


def _positions(config: ViTConfig, target: ViTConfig) -> Callable[[np.ndarray], np.ndarray]:
    slots = [(c.class_position, c.class_token, c.register_position) for c in (config, target)]
    if slots[0] != slots[1]:
        raise CheckpointError(
            "class_token and class_position cannot change: the checkpoint's positions have other slots."
        )
    return lambda table: np.asarray(resized_positions(config, jnp.asarray(table), target.grid))


def _relative(config: ViTConfig, target: ViTConfig) -> Callable[[np.ndarray], np.ndarray]:
    own = RelativePositions(config.grid, config.bias_resample)

    def resample(tables: np.ndarray) -> np.ndarray:
        stacked = tables if tables.ndim == 3 else tables[None]
        moved = np.stack([np.asarray(own.resized(jnp.asarray(table), target.grid)) for table in stacked])
        return moved if tables.ndim == 3 else moved[0]

    return resample


def _by(pair: tuple[int, int]) -> str:
    return f"{pair[0]}x{pair[1]}"
