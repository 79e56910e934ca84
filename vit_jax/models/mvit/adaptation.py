"""What may change of an MViT when weights are loaded: size, classes, channels."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from vit_jax.models.adaptation import Adaptation, Change
from vit_jax.models.mvit.attention import axes_of, resized
from vit_jax.models.mvit.config import MvitConfig


class MvitAdaptation(Adaptation):
    """Tables of relative positions are interpolated, as they are at call time."""

    fixed = (
        "width", "depths", "head_dim", "mlp_ratio", "widen", "qkv_bias", "patch_kernel", "patch_stride", "patch_pad",
        "pool_kernel", "kv_stride", "class_token",
    )  # fmt: skip

    def changes(
        self, config: MvitConfig, target: MvitConfig, patch_resample: str = "flexi"
    ) -> dict[str, Change]:
        """Return what must happen to parameters of one model in another, see `Adaptation`."""
        found = super().changes(config, target, patch_resample)
        for stage, (before, after) in enumerate(zip(config.stages(), target.stages())):
            for run, (old, new) in enumerate(zip(before, after)):
                for axis, rows, wanted in zip(axes_of(old.grid), old.tables, new.tables):
                    if rows != wanted:
                        path = f"stages/{stage}/runs/{run}/blocks/attn/positions/{axis}"
                        found[path] = (_resample(wanted), f"{rows} -> {wanted} distances, linear")
        return found


def _resample(size: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda tables: np.stack([np.asarray(resized(jnp.asarray(table), size)) for table in tables])


ADAPTATION = MvitAdaptation()
