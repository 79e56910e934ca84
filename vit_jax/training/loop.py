"""The training loop, for every objective."""

import json
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from vit_jax.data.base import Source
from vit_jax.errors import DivergedError, Preempted
from vit_jax.evaluation.evaluator import compile_evaluation, evaluate
from vit_jax.training import fingerprint
from vit_jax.training.checkpoint import Checkpoints
from vit_jax.training.config import check_resumable, from_json, to_json
from vit_jax.training.defaults import Config
from vit_jax.training.experiment import Experiment, build
from vit_jax.training.mesh import replicated, shard_batch
from vit_jax.training.metrics import Clock, MetricWriter, write_summary
from vit_jax.training.progress import Progress
from vit_jax.training.report import performance, write_report
from vit_jax.training.state import TrainState
from vit_jax.training.step import compile_step
from vit_jax.training.stopping import StopRequest


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
    experiment = build(config, sources)
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
            state, start, metrics = _resume(experiment, checkpoints, allow_change)
        if state is None:
            with clock("compile"):
                state = jax.block_until_ready(experiment.init())
        with clock("compile"):
            jitted = compile_step(experiment.step, _shardings(experiment), None)
            step = jitted.lower(experiment.abstract_state, experiment.abstract_batch()).compile()
        main = jax.process_index() == 0
        writer = MetricWriter(
            workdir, tensorboard=config.log.tensorboard, resumed_step=start or None, enabled=main
        )
        run = _Run(experiment, checkpoints, writer, clock)
        eval_every = experiment.steps(config.evaluation.every, "evaluation.every")
        save_every = experiment.steps(config.checkpoint.every, "checkpoint.every")
        log_every = experiment.steps(config.log.every, "log.every")
        progress = Progress(
            total, step=start, images_per_step=config.data.batch_size, bar=config.log.progress, enabled=main
        )
        batches = experiment.train_batches(start)

        # Nothing below may move an array between host and device by accident.
        with run.writer, progress, jax.transfer_guard("disallow"):
            for number in range(start + 1, total + 1):
                with clock("data_wait"):
                    batch = shard_batch(next(batches), experiment.mesh)
                with clock("step"):
                    state, values = step(state, batch)
                    # The values of the step before this one: the device always has work queued.
                    run.receive(number, values)
                progress.advance(number)
                last = number == total
                if number % log_every == 0 or last:
                    progress.log(number, run.log(number))
                stopping = stop.signal is not None and not last
                if number % eval_every == 0 or last:
                    metrics = run.evaluate(number, state)
                    progress.write(_line(number, metrics))
                    progress.skip_time()
                if number % save_every == 0 or last or stopping:
                    run.save(number, state, metrics if number % eval_every == 0 or last else None)
                if stopping:
                    checkpoints.wait()
                    raise Preempted(
                        f"stopped by {stop.signal} after step {number}, which was saved; start the same command "
                        "again to go on."
                    )
        with clock("checkpoint"):
            checkpoints.wait()
        if metrics is None:  # a finished run, started again
            metrics = run.evaluate(total, state)
    summary = {
        "step": total,
        "metrics": metrics,
        "fingerprint": fingerprint.fingerprint(state.params),
        "checkpoint": str(checkpoints.directory / str(total)),
        **performance(experiment, clock, total - start),
    }
    summary |= write_report(experiment, state, workdir)
    write_summary(workdir, summary)
    return TrainResult(metrics, total, state, summary, experiment)


class _Run:
    """The parts of a run that the loop speaks to in one word each."""

    def __init__(
        self, experiment: Experiment, checkpoints: Checkpoints, writer: MetricWriter, clock: Clock
    ) -> None:
        self.experiment, self.checkpoints, self.writer, self.clock = experiment, checkpoints, writer, clock
        self._evaluate = compile_evaluation(experiment.objective, replicated(experiment.mesh))
        self._pending: tuple[int, Mapping[str, jax.Array]] | None = None
        self._interval: list[dict[str, float]] = []

    def receive(self, number: int, values: Mapping[str, jax.Array]) -> None:
        """Note the metrics of a step just dispatched; fetch and check those of the one before."""
        self.flush()
        self._pending = (number, values)

    def flush(self) -> None:
        """Fetch and check the metrics still on the device."""
        if self._pending is None:
            return
        number, values = self._pending
        self._pending = None
        fetched = {name: float(value) for name, value in jax.device_get(values).items()}
        if not fetched.pop("finite"):
            saved = self.checkpoints.steps()
            raise DivergedError(
                f"loss {fetched['loss']} or gradient norm {fetched['gradient_norm']} at step {number} is not finite; "
                f"the newest checkpoint is {f'step {saved[-1]}' if saved else 'not written yet'}. Lower "
                "optimizer.learning_rate, lengthen schedule.warmup or clip with optimizer.clip_norm."
            )
        self._interval.append(fetched)

    def log(self, number: int) -> dict[str, float]:
        """Write and return the mean metrics since the last time; the learning rate is the last one."""
        with self.clock("step"):
            self.flush()
        interval, self._interval = self._interval, []
        means = {name: sum(x[name] for x in interval) / len(interval) for name in interval[0]}
        means["learning_rate"] = interval[-1]["learning_rate"]
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
                "class_names": list(self.experiment.train_source.class_names),
            }
            self.checkpoints.save(number, state, metadata, metrics)


def _resume(
    experiment: Experiment, checkpoints: Checkpoints, allow_change: Iterable[str]
) -> tuple[TrainState | None, int, dict[str, float] | None]:
    """Return the newest good state, its step and its metrics; no state and 0 when there is no checkpoint."""
    newest = checkpoints.newest_metadata()
    if newest is None:
        return None, 0, None
    saved = from_json(json.dumps(newest["config"]))
    for notice in check_resumable(saved, experiment.config, allow_change):
        print(f"changed: {notice}", file=sys.stderr)
    restored = checkpoints.restore(experiment.abstract_state)
    assert restored is not None
    state, metadata = restored
    print(f"resuming after step {metadata['step']}", file=sys.stderr)
    done = metadata["step"] == experiment.total_steps
    return state, metadata["step"], metadata["metrics"] if done else None


def _line(number: int, metrics: Mapping[str, float]) -> str:
    return f"step {number}  evaluation: " + ", ".join(
        f"{name} {value:.4f}" for name, value in metrics.items()
    )


def _shardings(experiment: Experiment) -> Any:
    return jax.tree.map(lambda x: x.sharding, experiment.abstract_state)
