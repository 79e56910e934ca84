"""What may change of a Hiera when weights are loaded: size, classes, channels, how often it pools."""

import jax.numpy as jnp
import numpy as np

from vit_jax.errors import CheckpointError
from vit_jax.models.adaptation import Adaptation, Change
from vit_jax.models.hiera.config import HieraConfig
from vit_jax.models.layers.positions.resample import resample_positions


class HieraAdaptation(Adaptation):
    """Learned positions are resampled by the rule of the model's source; those by mask unit stay as they are."""

    fixed = (
        "width", "depths", "heads", "mlp_ratio", "patch_kernel", "patch_stride", "shortcut", "position",
    )  # fmt: skip

    def changes(
        self, config: HieraConfig, target: HieraConfig, patch_resample: str = "flexi"
    ) -> dict[str, Change]:
        """Return what must happen to parameters of one model in another, see `Adaptation`."""
        found = super().changes(config, target, patch_resample)
        if config.position == "window":
            for field in ("mask_unit", "position_grid"):
                if getattr(config, field) != getattr(target, field):
                    raise CheckpointError(
                        f"{field} is {getattr(target, field)}, but {getattr(config, field)} in the checkpoint, whose "
                        "positions are of mask units; leave it out."
                    )
        elif config.grid != target.grid:
            how = config.resample, config.resample_antialias

            def resample(table: np.ndarray) -> np.ndarray:
                return np.asarray(resample_positions(jnp.asarray(table), config.grid, target.grid, *how))

            grids = " -> ".join(f"{h}x{w}" for h, w in (config.grid, target.grid))
            found["pos_embed"] = resample, f"{grids}, {config.resample}"
        return found


ADAPTATION = HieraAdaptation()
