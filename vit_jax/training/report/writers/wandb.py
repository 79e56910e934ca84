"""Weights & Biases. Who is logged in, or `WANDB_MODE=offline`, is wandb's own affair."""

from collections.abc import Mapping
from typing import Any

from vit_jax.training.report.writers.base import About


class Wandb:
    """A run of wandb; an interrupted one goes on under the same id.

    Args:
      wandb: the module.
      about: the run.
    """

    def __init__(self, wandb: Any, about: About):
        self._run = wandb.init(
            project=about.project or None,
            name=about.name,
            id=about.run,
            resume="allow",
            config=about.config,
            dir=str(about.folder),
            settings=wandb.Settings(console="off"),  # what the command prints stays the command's
        )
        self.run: str = self._run.id

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step; steps that an earlier attempt has logged are left out by wandb."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Upload the rest."""
        self._run.finish()


open_run = Wandb
