"""MLflow. Where it writes, `MLFLOW_TRACKING_URI`, is mlflow's own affair."""

import os
import time
from collections.abc import Mapping
from typing import Any

from vit_jax.training.config.defaults import flatten
from vit_jax.training.report.writers.base import About

MOST_PARAMETERS, LONGEST_VALUE = 100, 5000  # that a server takes: in one request, characters of one


class Mlflow:
    """A run of MLflow; an interrupted one goes on under the same id.

    The client is used, not `mlflow.log_metric`: a user's own active run stays what it is.

    Args:
      mlflow: the module.
      about: the run; its `project` is an experiment.
    """

    def __init__(self, mlflow: Any, about: About):
        self._entities, self._client = mlflow.entities, mlflow.MlflowClient()
        if about.run is None:
            self.run = self._begin(about)
        else:
            self.run = about.run
            self._client.update_run(self.run, status="RUNNING")

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Log the metrics of a step."""
        now = int(time.time() * 1000)
        values = [self._entities.Metric(name, float(value), now, step) for name, value in metrics.items()]
        self._client.log_batch(self.run, metrics=values)

    def close(self) -> None:
        """Say that the run is finished."""
        self._client.set_terminated(self.run)

    def _begin(self, about: About) -> str:
        experiment = os.environ.get("MLFLOW_EXPERIMENT_ID", "")
        if about.project or not experiment:
            name = about.project or os.environ.get("MLFLOW_EXPERIMENT_NAME") or "Default"
            known = self._client.get_experiment_by_name(name)
            experiment = self._client.create_experiment(name) if known is None else known.experiment_id
        run = self._client.create_run(experiment, run_name=about.name).info.run_id
        flat = [
            self._entities.Param(name, str(value)[:LONGEST_VALUE])
            for name, value in flatten(about.config).items()
        ]
        for first in range(0, len(flat), MOST_PARAMETERS):
            self._client.log_batch(run, params=flat[first : first + MOST_PARAMETERS])
        return run


open_run = Mlflow
