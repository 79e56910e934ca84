"""What may change of a Swin Transformer when weights are loaded: size, windows, patch, classes, channels."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vit_jax.models.adaptation import Adaptation, Change
from vit_jax.models.layers.positions.relative import geometric_matrix
from vit_jax.models.layers.positions.resample import resample_patch_kernel, resize_matrix
from vit_jax.models.swin.config import SwinConfig


class SwinAdaptation(Adaptation):
    """Tables of version 1 are resampled; version 2 keeps the scale of the offsets that it learned."""

    fixed = (
        "width", "depths", "heads", "mlp_ratio", "position_bias", "cosine", "branch_norm", "qkv_bias", "k_bias",
    )  # fmt: skip

    def adapted(self, config: SwinConfig, options: Mapping[str, Any], new_head: bool = False) -> SwinConfig:
        """Return the configuration of a checkpoint's model with other fields, see `Adaptation`."""
        target = super().adapted(config, options, new_head)
        if config.position_bias != "log" or "pretrained_windows" in options or config.pretrained_windows:
            return target
        before, after = (_tables(model) for model in (config, target))
        if before == after:
            return target
        # One number a stage: of windows that are no squares, the height.
        return super().adapted(target, {"pretrained_windows": tuple(height for height, _ in before)})

    def changes(
        self, config: SwinConfig, target: SwinConfig, patch_resample: str = "flexi"
    ) -> dict[str, Change]:
        """Return what must happen to parameters of one model in another, see `Adaptation`."""
        found = super().changes(config, target, patch_resample)
        if config.position_bias != "table":
            return found
        for stage, (before, after) in enumerate(zip(_tables(config), _tables(target))):
            if before != after:
                moved = f"windows {_by(before)} -> {_by(after)}, {config.bias_resample}"
                resample = _resampled(before, after, config.bias_resample)
                found[f"stages/{stage}/blocks/attn/position_bias"] = (resample, moved)
        return found

    def first_kernel_steps(self, config: SwinConfig, target: SwinConfig, patch_resample: str) -> list[Change]:
        """Return how the patch kernel goes to another size."""
        if config.patch_size == target.patch_size:
            return []
        said = f"patches {_by(config.patch_size)} -> {_by(target.patch_size)}, {patch_resample}"
        return [(lambda kernel: resample_patch_kernel(kernel, target.patch_size, patch_resample), said)]

    def other_head(self, config: SwinConfig, num_classes: int) -> dict[str, Any]:
        """Return fields of a model with another head: of one output for an image."""
        return super().other_head(config, num_classes) | ({"pool": "mean"} if num_classes else {})


ADAPTATION = SwinAdaptation()


def _tables(config: SwinConfig) -> list[tuple[int, int]]:
    return [config.fit(stage).table for stage in range(len(config.depths))]


def _resampled(
    before: tuple[int, int], after: tuple[int, int], method: str
) -> Callable[[np.ndarray], np.ndarray]:
    sizes = [(2 * old - 1, 2 * new - 1) for old, new in zip(before, after)]
    how = geometric_matrix if method == "geometric" else lambda old, new: resize_matrix(old, new, "bicubic")
    matrices = [np.eye(old) if old == new else how(old, new) for old, new in sizes]

    def resample(tables: np.ndarray) -> np.ndarray:
        grids = tables.reshape(len(tables), sizes[0][0], sizes[1][0], -1).astype(np.float64)
        moved = np.einsum("Hh,lhwk,Ww->lHWk", matrices[0], grids, matrices[1])
        return moved.reshape(len(tables), -1, tables.shape[-1]).astype(tables.dtype)

    return resample


def _by(sides: tuple[int, int]) -> str:
    return f"{sides[0]}x{sides[1]}"
