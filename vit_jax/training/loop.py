"""The training loop, for every objective."""

import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from vit_jax.checkpoints import fingerprint
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.data.base import Source
from vit_jax.errors import ConfigError, DivergedError, Preempted
from vit_jax.evaluation.evaluator import compile_evaluation, evaluate
from vit_jax.models.config_json import config_to_json
from vit_jax.processes import is_main, together, wait_for_all
from vit_jax.training.agreement import check_data, check_settings, check_workdir
from vit_jax.training.config import check_resumable, read_saved, to_json
from vit_jax.training.defaults import Config
from vit_jax.training.experiment import Experiment, build
from vit_jax.training.mesh import replicated, shard_batch
from vit_jax.training.metrics import Clock, MetricWriter, write_summary
from vit_jax.training.optimizer import summary as optimizer_summary
from vit_jax.training.progress import Progress
from vit_jax.training.report import earlier_performance, performance, write_report
from vit_jax.training.state import TrainState
from vit_jax.training.step import compile_step
from vit_jax.training.stopping import StopRequest

REPORT_TIMEOUT = 1800.0  # seconds that the others wait for baselines and pictures


@dataclass(frozen=True)
class TrainResult:
    """What a run ends with.

    Attributes:
      metrics: of the last evaluation, `{"accuracy": 0.98, ...}`.
      step: number of updates made.
      state: the last state.
      summary: what `summary.json` says.
      experiment: what was run.
    """

    metrics: dict[str, float]
    step: int
    state: TrainState
    summary: dict[str, Any]
    experiment: Experiment


def train(
    config: Config,
    workdir: str | Path,
    *,
    allow_change: Iterable[str] = (),
    sources: tuple[Source, Source] | None = None,
) -> TrainResult:
    """Train as configured, from the start or from where an earlier call with this workdir was interrupted.

    Args:
      config: a checked configuration, see `training.config.load_config`.
      workdir: folder for checkpoints, `metrics.jsonl`, TensorBoard events and `summary.json`.
      allow_change: configuration keys that may differ from the run being resumed.
      sources: records to train on and to evaluate on, instead of those the configuration names.

    Returns:
      The last state, its metrics and the summary.

    Raises:
      VitError: wrong input, before anything is compiled; unreadable checkpoints; numbers that are not finite
        (`DivergedError`; the last finite checkpoint stays the newest); a request to stop (`Preempted`; the
        state was saved).
    """
    workdir, clock = Path(workdir), Clock()
    check_settings(config)
    experiment = together("building", lambda: build(config, sources, earlier=_earlier_model(config, workdir)))
    check_data(experiment.train_source, experiment.eval_source)
    check_workdir(workdir)
    objective, total = experiment.objective, experiment.total_steps
    checkpoints = Checkpoints(
        workdir / "checkpoints",
        keep_last=config.checkpoint.keep_last,
        keep_best=config.checkpoint.keep_best,
        monitor=objective.monitor,
        monitor_mode=objective.monitor_mode,
    )
    with checkpoints, StopRequest() as stop:
        with clock("checkpoint"):
            resumed = _resume(experiment, checkpoints, allow_change)
        state, start = (None, 0) if resumed is None else (resumed[0], resumed[1]["step"])
        metrics = resumed[1]["metrics"] if resumed and start == total else None
        run = _Run(experiment, checkpoints, workdir, clock, resumed[1] if resumed else {})
        progress = Progress(
            total,
            step=start,
            images_per_step=config.data.batch_size,
            bar=config.log.progress,
            enabled=is_main(),
        )
        with run.writer, progress:
            if start == 0:
                for line in _beginning(experiment):
                    progress.write(line)
            if start < total:
                with clock("compile"):
                    state = jax.block_until_ready(experiment.init()) if state is None else state
                    jitted = compile_step(experiment.step, _shardings(experiment), None)
                    step = jitted.lower(experiment.abstract_state, experiment.abstract_batch()).compile()
                # Nothing in the loop may move an array between host and device by accident.
                with (
                    closing(experiment.train_batches(start, progress.write)) as batches,
                    jax.transfer_guard("disallow"),
                ):
                    for number in range(start + 1, total + 1):
                        with clock("data_wait"):
                            batch = shard_batch(next(batches), experiment.mesh)
                        with clock("step"):
                            state, values = step(state, batch)
                            # The values of the step before this one: the device always has work queued.
                            run.receive(number, values)
                        progress.advance(number)
                        last = number == total
                        if number % experiment.log_every == 0 or last:
                            progress.log(number, run.log(number, batches.skipped))
                        stopping = stop.reached(number) and not last
                        metrics = None
                        if number % experiment.eval_every == 0 or last:
                            metrics = run.evaluate(number, state)
                            progress.write(_line(number, metrics))
                            progress.skip_time()
                        if number % experiment.save_every == 0 or last or stopping:
                            run.save(number, state, metrics)
                        if stopping:
                            checkpoints.wait()
                            raise Preempted(
                                f"stopped by {stop.signal} after step {number}, which was saved; start the same "
                                "command again to go on."
                            )
            assert state is not None
            if not metrics:  # of a state that was saved between two evaluations
                metrics = run.evaluate(total, state)
        with clock("checkpoint"):
            checkpoints.wait()
    summary = {
        "step": total,
        "metrics": metrics,
        "fingerprint": fingerprint.fingerprint(state.params),
        "checkpoint": str(checkpoints.directory / str(total)),
    }
    report = write_report(experiment, state, workdir)
    summary |= performance(experiment, clock, total - start)
    if start == total:  # Speed was measured when it was trained.
        summary |= earlier_performance(workdir, summary)
    summary |= report
    if is_main():
        write_summary(workdir, summary)
    wait_for_all("the report", REPORT_TIMEOUT)
    return TrainResult(metrics, total, state, summary, experiment)


class _Run:
    """The parts of a run that the loop speaks to in one word each."""

    def __init__(
        self,
        experiment: Experiment,
        checkpoints: Checkpoints,
        workdir: Path,
        clock: Clock,
        resumed: Mapping[str, Any],
    ) -> None:
        self.experiment, self.checkpoints, self.clock = experiment, checkpoints, clock
        self.writer = MetricWriter(
            workdir,
            tensorboard=experiment.config.log.tensorboard,
            resumed_step=resumed.get("step"),
            enabled=is_main(),
        )
        self._evaluate = compile_evaluation(experiment.objective, replicated(experiment.mesh))
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None
        # Sums of the metrics since the last line, saved with the state: the line that a resumed run writes is
        # that of a run that was never interrupted.
        self._sums: dict[str, float] = dict(resumed.get("metric_sums", {}))
        self._count: int = resumed.get("metric_count", 0)
        self._learning_rate = 0.0

    def receive(self, number: int, values: Mapping[str, jax.Array]) -> None:
        """Note the metrics of a step just dispatched; fetch and check those of the one before."""
        self.flush()
        self._pending = (number, values)

    def flush(self) -> None:
        """Fetch, check and add up the metrics still on the device."""
        if self._pending is None:
            return
        number, values = self._pending
        self._pending = None
        fetched = {name: float(value) for name, value in jax.device_get(values).items()}
        if not fetched.pop("finite"):
            self.checkpoints.wait()
            saved = self.checkpoints.steps()
            newest = f"step {saved[-1]}" if saved else "not written yet"
            loss, norm = fetched["loss"], fetched["gradient_norm"]
            raise DivergedError(
                f"loss {loss}, gradient norm {norm} or the update of step {number} is not finite; the newest "
                f"checkpoint is {newest}. Lower optimizer.learning_rate, lengthen schedule.warmup or clip with "
                "optimizer.clip_norm."
            )
        self._learning_rate = fetched.pop("learning_rate")
        self._sums = {name: self._sums.get(name, 0.0) + value for name, value in fetched.items()}
        self._count += 1

    def log(self, number: int, skipped: int) -> dict[str, float]:
        """Write and return the mean metrics since the last time, the last learning rate, and how many records this host
        has skipped since it started, if any."""
        with self.clock("step"):
            self.flush()
        means = {name: total / self._count for name, total in self._sums.items()}
        means["learning_rate"] = self._learning_rate
        if skipped:
            means["skipped_records"] = float(skipped)
        self._sums, self._count = {}, 0
        self.writer.write(number, means, "train")
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
        """Start saving a state that is known to be finite."""
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
            }
            self.checkpoints.save(number, state, metadata, metrics)


def _resume(
    experiment: Experiment, checkpoints: Checkpoints, allow_change: Iterable[str]
) -> tuple[TrainState, dict[str, Any]] | None:
    """Return the newest good state and its metadata, or None when there is no checkpoint."""
    newest = checkpoints.newest_metadata()
    saved = experiment.config if newest is None else read_saved(newest["config"])
    for notice in check_resumable(saved, experiment.config, allow_change):
        _say(f"changed: {notice}")
    if newest is None:
        return None
    restored = checkpoints.restore(experiment.abstract_state)
    assert restored is not None
    step = restored[1]["step"]
    if step > experiment.total_steps:
        raise ConfigError(
            f"duration is {experiment.config.duration!r}, {experiment.total_steps} steps, but the run has already made "
            f"{step}; lengthen it, or use another --workdir."
        )
    _say(f"resuming after step {step}")
    return restored


def _say(line: str) -> None:
    if is_main():
        print(line, file=sys.stderr)


def _earlier_model(config: Config, workdir: Path) -> dict[str, Any] | None:
    """Return the model of the run in a workdir, where it came from a checkpoint that may be gone by now."""
    if not config.model.get("checkpoint"):
        return None
    newest = Checkpoints(workdir / "checkpoints", read_only=True).newest_metadata()
    return None if newest is None else newest["model"]


def _beginning(experiment: Experiment) -> list[str]:
    """Return what to say of a run that does not train all its parameters from scratch."""
    config, params = experiment.config, experiment.abstract_state.params
    lines = [] if experiment.pretrained is None else [str(experiment.pretrained.report)]
    if lines or config.optimizer.trained or config.optimizer.frozen or config.lora.rank:
        lines.append(optimizer_summary(config.optimizer, params))
    return lines


def _line(number: int, metrics: Mapping[str, float]) -> str:
    return f"step {number}  evaluation: " + ", ".join(
        f"{name} {value:.4f}" for name, value in metrics.items()
    )


def _shardings(experiment: Experiment) -> Any:
    return jax.tree.map(lambda x: x.sharding, experiment.abstract_state)
