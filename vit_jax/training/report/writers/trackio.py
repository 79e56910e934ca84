"""Hugging Face trackio: local, or in the Space that `TRACKIO_SPACE_ID` names."""

import uuid
from collections.abc import Mapping
from typing import Any

from vit_jax.training.report.writers.base import About


class Trackio:
    """A run of trackio, which knows runs by their names; an interrupted one goes on under the same.

    Args:
      trackio: the module.
      about: the run.
    """

    def __init__(self, trackio: Any, about: About):
        self.run = about.run or f"{about.name}-{uuid.uuid4().hex[:6]}"
        project = about.project or "vit_jax"
        self._run = trackio.init(project, name=self.run, config=about.config, resume="allow", embed=False)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step."""
        self._run.log(dict(metrics), step=step)

    def close(self) -> None:
        """Write the rest."""
        self._run.finish()


open_run = Trackio
