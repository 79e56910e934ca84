"""The parts of a run that the loop speaks to in one word each."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax

from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.errors import DivergedError
from vit_jax.evaluation.evaluator import compile_evaluation, evaluate
from vit_jax.models.config_json import config_to_json
from vit_jax.processes import is_main
from vit_jax.training.config import to_json
from vit_jax.training.experiment import Experiment
from vit_jax.training.goodput import Attempts
from vit_jax.training.incidents import NOT_FINITE, SPIKE, describe, incident_of, incident_path, write_incident
from vit_jax.training.mesh import replicated
from vit_jax.training.metrics import Clock, MetricWriter
from vit_jax.training.state import TrainState


class Run:
    """Metrics, evaluation, checkpoints and times of a run.

    Args:
      experiment: what is run.
      checkpoints: where its states go.
      workdir: where everything else goes.
      clock: divides its time.
      resumed: the metadata of the state it goes on from, empty for a new run.
      report: told of steps whose update was left out.
    """

    def __init__(
        self,
        experiment: Experiment,
        checkpoints: Checkpoints,
        workdir: Path,
        clock: Clock,
        resumed: Mapping[str, Any],
        report: Callable[[str], None],
    ) -> None:
        self.experiment, self.checkpoints, self.clock = experiment, checkpoints, clock
        self.workdir, self.report = workdir, report
        main = is_main()
        self.writer = MetricWriter(
            workdir,
            tensorboard=experiment.config.log.tensorboard,
            resumed_step=resumed.get("step"),
            enabled=main,
            staging=checkpoints.staging,
        )
        self.attempts = Attempts(
            workdir, clock, resumed.get("step", 0), enabled=main, patient=checkpoints.staging is not None
        )
        self._evaluate = compile_evaluation(
            experiment.objective,
            replicated(experiment.mesh),
            experiment.placement,
            experiment.evaluation_options,
        )
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None
        # Sums of the metrics since the last line, saved with the state: the line that a resumed run writes is
        # that of a run that was never interrupted.
        self._sums: dict[str, float] = dict(resumed.get("metric_sums", {}))
        self._count: int = resumed.get("metric_count", 0)
        self._learning_rate = 0.0
        self.skipped_steps: dict[str, int] = {NOT_FINITE: 0, SPIKE: 0} | resumed.get("skipped_steps", {})

    def receive(self, number: int, values: Mapping[str, jax.Array]) -> None:
        """Note the metrics of a step just dispatched; fetch and check those of the one before."""
        self.flush()
        self._pending = (number, values)
        self.attempts.step = number

    def flush(self) -> None:
        """Fetch, check and add up the metrics still on the device."""
        if self._pending is None:
            return
        number, values = self._pending
        self._pending = None
        fetched = {name: float(value) for name, value in jax.device_get(values).items()}
        self._learning_rate = fetched["learning_rate"]
        finite, spike = fetched.pop("finite"), fetched.pop("spike", 0.0)
        if not finite or spike:
            self._left_out(number, SPIKE if finite else NOT_FINITE, fetched)
        if not finite:
            return
        del fetched["learning_rate"]
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in fetched.items()}
        self._count += 1

    def log(self, number: int, skipped: int) -> dict[str, float]:
        """Write and return the mean metrics since the last time, the last learning rate, and how many records this host
        has skipped since it started, if any."""
        with self.clock("step"):
            self.flush()
        # None at all were added up if no step was finite.
        means = {name: total / self._count for name, total in self._sums.items() if self._count}
        means["learning_rate"] = self._learning_rate
        if skipped:
            means["skipped_records"] = float(skipped)
        for kind, count in self.skipped_steps.items():
            if count:
                means[f"skipped_{kind.replace(' ', '_')}"] = float(count)
        self._sums, self._count = {}, 0
        self.writer.write(number, means, "train")
        self.attempts.note()
        return means

    def evaluate(self, number: int, state: TrainState) -> dict[str, float]:
        """Write and return the metrics of the evaluation split, of the moving average if there is one."""
        with self.clock("step"):
            self.flush()
            jax.block_until_ready(state)
        with self.clock("evaluation"), jax.transfer_guard("allow"):
            params = state.params if state.ema is None else state.ema
            metrics = evaluate(self._evaluate, params, state.buffers, self.experiment.eval_batches())
        self.writer.write(number, metrics, "eval")
        return metrics

    def save(self, number: int, state: TrainState, metrics: dict[str, float] | None) -> None:
        """Start saving a state.

        Raises:
          DivergedError: it is not finite; it is not saved.
        """
        with self.clock("step"):
            self.flush()
        with self.clock("checkpoint"):
            metadata = {
                "config": json.loads(to_json(self.experiment.config)),
                "model": config_to_json(self.experiment.objective.network),
                "class_names": list(self.experiment.train_source.class_names),
                "eval_transforms": self.experiment.transforms[1],
                "monitor": self.experiment.objective.monitor,
                "monitor_mode": self.experiment.objective.monitor_mode,
                "metric_sums": self._sums,
                "metric_count": self._count,
                "skipped_steps": self.skipped_steps,
            }
            self.checkpoints.save(number, state, metadata, metrics)
        self.attempts.note()

    def _left_out(self, number: int, kind: str, metrics: Mapping[str, float]) -> None:
        """Note a step whose update was left out; raise `DivergedError` if there were too many."""
        allowed = self.experiment.config.divergence.max_skipped
        self.skipped_steps = self.skipped_steps | {kind: self.skipped_steps[kind] + 1}
        count = self.skipped_steps[kind]
        fatal = kind == NOT_FINITE and count > allowed
        if fatal:
            self.checkpoints.wait()
        if is_main():
            saved = [step for step in self.checkpoints.steps() if step < number]
            incident = incident_of(self.experiment, number, kind, metrics, max(saved, default=None))
            write_incident(self.workdir, incident)
        path = incident_path(self.workdir, number)
        done = f"step {number}: {describe(kind, metrics)}; its update was left out, and recorded in {path}"
        if not fatal:
            limit = "" if kind == SPIKE else f" of {allowed}"
            self.report(f"{done} ({kind}, {count}{limit})")
            return
        raise DivergedError(
            f"{done}; the newest checkpoint is {self._newest()}. See why with vit-jax replay --workdir {self.workdir}; "
            "lower optimizer.learning_rate, lengthen schedule.warmup, clip with optimizer.clip_norm, or go on past it "
            f"with divergence.max_skipped={count}."
        )

    def _newest(self) -> str:
        """Return the newest checkpoint on disk, in words."""
        self.checkpoints.wait()
        saved = self.checkpoints.steps()
        return f"step {saved[-1]}" if saved else "not written yet"
