"""What a run ends with."""

from base64 import b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from vit_jax.training.experiment import Experiment
from vit_jax.training.report.beginning import model_name
from vit_jax.training.state import TrainState


@dataclass(frozen=True)
class TrainResult:
    """What a run ends with.

    Attributes:
      metrics: of the last evaluation, `{"accuracy": 0.98, ...}`.
      step: number of updates made.
      state: the last state.
      summary: what `summary.json` says; its paths begin in the workdir.
      experiment: what was run.
      workdir: where it left its files.
    """

    metrics: dict[str, float]
    step: int
    state: TrainState
    summary: dict[str, Any]
    experiment: Experiment
    workdir: Path

    def __repr__(self) -> str:
        """Return what came out, on one screen; `state` and `experiment` have the rest."""
        return "\n".join(["TrainResult", *(f"  {name:<12} {value}" for name, value in self._lines())])

    def _repr_html_(self) -> str:
        """Return the same as a table, for notebooks, with the figure below it."""
        rows = "".join(
            f"<tr><th style='text-align:left'>{escape(name)}</th><td "
            f"style='text-align:left'>{escape(value)}</td></tr>"
            for name, value in self._lines()
        )
        return f"<table>{rows}</table>{self._figure()}"

    def _lines(self) -> list[tuple[str, str]]:
        summary = self.summary
        stopped = summary["stopped_early"]
        early = f", stopped early: {stopped['reason']}" if stopped else ""
        lines = [
            ("step", f"{self.step:,} of {self.experiment.optimisation.total_steps:,}{early}"),
            ("metrics", _numbers(self.metrics)),
            ("model", f"{model_name(self.experiment.config.model)}, {summary['parameters']:,} parameters"),
            ("devices", summary["devices"]),
        ]
        if summary["images_per_second"]:
            lines.append(("speed", f"{summary['images_per_second']:,.0f} images/s"))
        if "baselines" in summary:
            lines.append(("baselines", _numbers(summary["baselines"])))
        files = [summary[name] for name in ("checkpoint", "figure") if name in summary]
        return [*lines, ("workdir", f"{self.workdir}: {', '.join(files)}")]

    def _figure(self) -> str:
        try:
            content = (self.workdir / self.summary["figure"]).read_bytes()
        except (KeyError, OSError):  # none was made, or it has been moved
            return ""
        return f"<img src='data:image/png;base64,{b64encode(content).decode()}' style='max-width:100%'>"


def _numbers(values: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in values.items())
