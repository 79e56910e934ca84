"""The parts of a run that the loop speaks to in one word each."""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax

from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.errors import DivergedError
from vit_jax.evaluation.evaluator import evaluate
from vit_jax.evaluation.probes.features import compile_features
from vit_jax.evaluation.probes.measuring import Bench
from vit_jax.models.config_json import config_to_json
from vit_jax.processes import from_main, is_main
from vit_jax.training.config.load import to_json
from vit_jax.training.devices.mesh import batch_sharding
from vit_jax.training.experiment import Experiment
from vit_jax.training.guard.incidents import (
    NOT_FINITE,
    SPIKE,
    describe,
    incident_of,
    incident_path,
    write_incident,
)
from vit_jax.training.parts.context import Context
from vit_jax.training.parts.monitor import Improvement
from vit_jax.training.report.goodput import Attempts
from vit_jax.training.report.metrics import MetricWriter
from vit_jax.training.report.progress import Progress
from vit_jax.training.report.report import compiled_evaluation
from vit_jax.training.report.writers.base import About, Writers
from vit_jax.training.state import TrainState

_VERDICTS = ("finite", "spike")  # what a step says beside its metrics


class Run:
    """Metrics, evaluation, checkpoints and times of a run.

    Args:
      experiment: what is run.
      checkpoints: where its states go.
      context: where everything else goes, and who is told.
      progress: shows it to people.
      resumed: the metadata of the state it is resumed from, empty for a new run.

    Attributes:
      stopped: why the run ended before its duration was over, or None.
    """

    def __init__(
        self,
        experiment: Experiment,
        checkpoints: Checkpoints,
        context: Context,
        progress: Progress,
        resumed: Mapping[str, Any],
    ) -> None:
        self.experiment, self.checkpoints, self.context = experiment, checkpoints, context
        self.clock, self.progress, workdir = context.clock, progress, context.workdir
        main = is_main()
        self.writer = MetricWriter(
            workdir,
            tensorboard=experiment.config.log.tensorboard,
            resumed_step=resumed.get("step"),
            enabled=main,
            staging=checkpoints.staging,
        )
        settings = json.loads(to_json(experiment.config))
        self.services = Writers(
            experiment.config.log.writers if main else (),
            About(workdir.absolute().name, experiment.config.log.project, settings, workdir.absolute()),
            progress.write,
        )
        self.attempts = Attempts(
            workdir,
            context.clock,
            resumed.get("step", 0),
            enabled=main,
            patient=checkpoints.staging is not None,
        )
        self.evaluation = compiled_evaluation(experiment)
        self._bench = Bench(
            compile_features(
                experiment.task.objective.features,
                experiment.devices.replicated,
                experiment.devices.placement,
                experiment.devices.evaluation_options,
            ),
            experiment.bank_batches,
            partial(experiment.eval_batches, numbered=True),
            experiment.data.train_source.num_classes,
            batch_sharding(experiment.devices.mesh),
            progress.write,
        )
        self._constants = experiment.devices.constants.fingerprints
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None
        # Sums of the metrics since the last line, saved with the state: the line that a resumed run writes is
        # that of a run that was never interrupted.
        self._sums: dict[str, float] = dict(resumed.get("metric_sums", {}))
        self._count: int = resumed.get("metric_count", 0)
        self._learning_rate = 0.0
        self._told: set[str] = set()  # kinds of concerns
        self.skipped_steps: dict[str, int] = {NOT_FINITE: 0, SPIKE: 0} | resumed.get("skipped_steps", {})
        self.improvement = Improvement(experiment.task.monitor, resumed.get("monitored"))
        self.improved = False  # at the last evaluation
        self.stopped = _still_stopped(experiment, self.improvement, resumed)

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
        self.context.callbacks.tell(
            "on_step", number, {name: x for name, x in fetched.items() if name not in _VERDICTS}
        )
        finite, spike = fetched.pop("finite"), fetched.pop("spike", 0.0)
        if not finite or spike:
            self._left_out(number, SPIKE if finite else NOT_FINITE, fetched)
        if not finite:
            return
        del fetched["learning_rate"]
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in fetched.items()}
        self._count += 1

    def means(self) -> dict[str, float]:
        """Return the mean metrics of the steps fetched since the last line; of none at all if none was finite."""
        return {name: total / self._count for name, total in self._sums.items() if self._count}

    def log(self, number: int, skipped: int) -> dict[str, float]:
        """Write and return the mean metrics since the last time, the last learning rate, and how many records this host
        has skipped since it started, if any."""
        with self.clock("step"):
            self.flush()
        means = self.means() | {"learning_rate": self._learning_rate}
        if skipped:
            means["skipped_records"] = float(skipped)
        for kind, count in self.skipped_steps.items():
            if count:
                means[f"skipped_{kind.replace(' ', '_')}"] = float(count)
        self._sums, self._count = {}, 0
        self._write(number, means, "train")
        self._tell_concerns(number, means)
        self.attempts.note()
        return means

    def evaluates(self, number: int) -> bool:
        """Return whether the model is evaluated or probed after a step."""
        optimisation = self.experiment.optimisation
        return any(
            number % every == 0 for every in (optimisation.eval_every, *optimisation.probe_every.values())
        )

    def evaluate(self, number: int, state: TrainState, *, whole: bool) -> dict[str, float]:
        """Write and return the metrics of the evaluation split and of probes, of the moving average if there is one.

        Args:
          number: of the step just made.
          state: after it.
          whole: measure everything, and not only what is due.
        """
        optimisation = self.experiment.optimisation
        probes = [
            probe
            for probe in self.experiment.task.probes
            if whole or number % optimisation.probe_every[probe.name] == 0
        ]
        with self.clock("step"):
            self.flush()
            jax.block_until_ready(state)
        with self.clock("evaluation"), jax.transfer_guard("allow"):
            params = state.params if state.ema is None else state.ema
            metrics: dict[str, float] = {}
            if whole or number % optimisation.eval_every == 0:
                batches = self.experiment.eval_batches(numbered=self.evaluation.rows)
                metrics |= evaluate(self.evaluation, params, state.buffers, batches)
            if probes:
                metrics |= self._bench.measure(probes, params, state.buffers)
        self._write(number, metrics, "eval")
        self.improved = self.improvement.monitor.name in metrics and self.improvement.note(number, metrics)
        self.context.callbacks.tell("on_evaluation", number, metrics)
        return metrics

    @property
    def is_kept_best(self) -> bool:
        """Whether the state just evaluated is the best so far, and is to be found when the run has stopped early."""
        return bool(
            self.improved
            and self.improvement.monitor.patience
            and self.experiment.config.checkpoint.keep_best
        )

    def ends(self) -> bool:
        """Return whether the run is to end here although its duration is not over; `stopped` then says why.

        All processes must ask, and get the same answer.
        """
        exhausted = from_main("early stopping", self.improvement.exhausted)
        wish = self.context.callbacks.wish
        if wish is not None:
            self.stopped = {"by": "callback", "reason": wish}
        elif exhausted:
            self.stopped = {"by": "patience", "reason": self.improvement.reason()}
        return self.stopped is not None

    def save(self, number: int, state: TrainState, metrics: dict[str, float] | None) -> None:
        """Start saving a state.

        Raises:
          DivergedError: it is not finite; it is not saved.
        """
        with self.clock("step"):
            self.flush()
        with self.clock("checkpoint"):
            objective = self.experiment.task.objective
            metadata = {
                "config": json.loads(to_json(self.experiment.config)),
                "model": config_to_json(objective.network or objective.model),
                "encoder": objective.encoder,
                "encoders": dict(objective.encoders),
                "constants": self._constants,
                "class_names": list(self.experiment.data.train_source.class_names),
                "outputs_named": objective.outputs_named,
                "data": self.experiment.data.identity,
                "classes_named": self.experiment.data.train_source.named,
                "objective": self.experiment.task.kind,
                "eval_transforms": self.experiment.data.transforms[1],
                "monitor": self.experiment.task.monitor.name,
                "monitor_mode": self.experiment.task.monitor.mode,
                "metric_sums": self._sums,
                "metric_count": self._count,
                "skipped_steps": self.skipped_steps,
                "monitored": self.improvement.to_json(),
                "stopped_early": self.stopped,
            }
            self.checkpoints.save(number, state, metadata, metrics)
        self.attempts.note()

    def _write(self, number: int, metrics: Mapping[str, float], prefix: str) -> None:
        named = {f"{prefix}/{name}": value for name, value in metrics.items()}
        self.writer.write(number, metrics, prefix)
        self.services.write(number, named)

    def _tell_concerns(self, number: int, means: Mapping[str, float]) -> None:
        """Tell once of each kind what the objective finds wrong; at first everything looks so."""
        if number < self.experiment.optimisation.total_steps / 10:
            return
        for kind, line in self.experiment.task.objective.concerns(means).items():
            if kind not in self._told:
                self._told.add(kind)
                self.progress.write(f"step {number}: {line}")

    def _left_out(self, number: int, kind: str, metrics: Mapping[str, float]) -> None:
        """Note a step whose update was left out; raise `DivergedError` if there were too many."""
        allowed = self.experiment.config.divergence.max_skipped
        self.skipped_steps = self.skipped_steps | {kind: self.skipped_steps[kind] + 1}
        count = self.skipped_steps[kind]
        workdir = self.context.workdir
        fatal = kind == NOT_FINITE and count > allowed
        if fatal:
            self.checkpoints.wait()
        if is_main():
            saved = [step for step in self.checkpoints.steps() if step < number]
            incident = incident_of(self.experiment, number, kind, metrics, max(saved, default=None))
            write_incident(workdir, incident)
        path = incident_path(workdir, number)
        done = f"step {number}: {describe(kind, metrics)}; its update was skipped, and the step recorded in {path}"
        if not fatal:
            limit = "" if kind == SPIKE else f" of {allowed}"
            self.progress.write(f"{done} ({kind}, {count}{limit})")
            return
        raise DivergedError(
            f"{done}; the newest checkpoint is {self._newest()}. See why with vit-jax replay --workdir {workdir}; "
            f"lower optimizer.learning_rate, lengthen schedule.warmup, clip with optimizer.clip_norm, or resume "
            f"past it with divergence.max_skipped={count}."
        )

    def _newest(self) -> str:
        """Return the newest checkpoint on disk, in words."""
        self.checkpoints.wait()
        saved = self.checkpoints.steps()
        return f"step {saved[-1]}" if saved else "not written yet"


def _still_stopped(
    experiment: Experiment, improvement: Improvement, resumed: Mapping[str, Any]
) -> dict[str, str] | None:
    """Return why the run ended early when it was saved, unless it is asked to go on now."""
    stopped = resumed.get("stopped_early")
    if stopped is None:
        return None
    if stopped["by"] == "patience":
        return stopped if improvement.exhausted else None
    return stopped if resumed["config"]["duration"] == experiment.config.duration else None
