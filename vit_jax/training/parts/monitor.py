"""The evaluation metric that decides: which checkpoint is best, and when a run stops improving."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_jax.errors import ConfigError, choose
from vit_jax.evaluation.evaluator import metric_names
from vit_jax.evaluation.probes.base import Probe
from vit_jax.objectives.base import Moment, Objective
from vit_jax.training.step import NO_CONSTANTS


@dataclass(frozen=True)
class Monitor:
    """Which metric decides, and how long it may stay without improvement.

    Attributes:
      name: of an evaluation metric.
      mode: `max` or `min`, what is better.
      patience: evaluations without improvement after which the run stops; 0: it never does.
      min_delta: what the metric must gain to count as improved.
    """

    name: str
    mode: str
    patience: int = 0
    min_delta: float = 0.0

    def improves(self, value: float, best: float | None) -> bool:
        """Return whether a value is better than the best so far by more than `min_delta`; no number never is."""
        if not math.isfinite(value):
            return False
        if best is None:
            return True
        return value - self.min_delta > best if self.mode == "max" else value + self.min_delta < best


class Improvement:
    """How the monitored metric has gone so far; it goes with the checkpoints, so a restart changes nothing.

    Args:
      monitor: what is watched.
      saved: what `to_json` returned when the run was saved; None or that of another metric begins anew.

    Attributes:
      best: the best value so far, or None.
      step: where it was reached.
      waited: evaluations since then.
    """

    def __init__(self, monitor: Monitor, saved: Mapping[str, Any] | None = None):
        self.monitor = monitor
        self.best: float | None = None
        self.step, self.waited = 0, 0
        if saved is not None and saved["metric"] == monitor.name:
            self.best, self.step, self.waited = saved["best"], saved["step"], saved["waited"]

    def note(self, step: int, metrics: Mapping[str, float]) -> bool:
        """Count an evaluation and return whether it was the best.

        Args:
          step: after which it was made.
          metrics: of it.
        """
        value = metrics.get(self.monitor.name, math.nan)
        if self.monitor.improves(value, self.best):
            self.best, self.step, self.waited = value, step, 0
            return True
        self.waited += 1
        return False

    @property
    def exhausted(self) -> bool:
        """Whether the run is to stop."""
        return 0 < self.monitor.patience <= self.waited

    def reason(self) -> str:
        """Return why the run stopped, in words."""
        name = self.monitor.name
        best = (
            f"{name} was never finite" if self.best is None else f"{name} {self.best:.4f} at step {self.step}"
        )
        return f"{self.waited} evaluations without improvement on {best}" if self.step else best

    def to_json(self) -> dict[str, Any]:
        """Return what to save."""
        return {"metric": self.monitor.name, "best": self.best, "step": self.step, "waited": self.waited}


def make_monitor(
    section: Any,
    objective: Objective,
    abstract_batch: Mapping[str, Any],
    probes: Sequence[Probe] = (),
    constants: Mapping[str, Any] = NO_CONSTANTS,
    *,
    every: bool = False,
) -> Monitor:
    """Return the monitor of a configuration; nothing is compiled.

    Args:
      section: `evaluation` of the configuration; an empty `monitor` is the objective's own.
      objective: says for every metric whether larger is better.
      abstract_batch: shapes and dtypes of an evaluation batch.
      probes: what is measured beside; more is better of all their metrics.
      constants: shapes and dtypes of the objective's frozen networks, by name.
      every: whether all metrics are looked at, also where the monitor is the objective's own.

    Raises:
      ConfigError: there is no such metric; all that exist are named. Or one of which is not known what is better.
    """
    name = section.monitor or objective.monitor
    probed = [metric for probe in probes for metric in probe.metrics]
    if name in probed:
        return Monitor(name, "max", section.patience, section.min_delta)
    if section.monitor or every:
        found = metric_names(objective, abstract_batch, Moment(np.int32(1), 1, 1, constants))
        choose(name, [*sorted(found), *probed], "evaluation.monitor")
    mode = objective.metric_modes.get(name)
    if mode not in ("max", "min"):
        raise ConfigError(
            f"evaluation.monitor is {name!r}, and {type(objective).__name__}.metric_modes gives it {mode!r}; it "
            "must be 'max' or 'min'."
        )
    return Monitor(name, mode, section.patience, section.min_delta)
