"""The training loop, for every objective."""

import sys
from collections.abc import Iterable, Mapping
from contextlib import ExitStack, closing, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax

from vit_jax.checkpoints import fingerprint
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.lock import WorkdirLock
from vit_jax.data.base import Source
from vit_jax.errors import CheckpointError, ConfigError, Preempted, printable
from vit_jax.paths import check_output
from vit_jax.processes import is_main, together, wait_for_all
from vit_jax.training.agreement import check_data, check_settings, check_workdir
from vit_jax.training.compilation import kept_programs
from vit_jax.training.config import check_resumable, read_saved
from vit_jax.training.defaults import Config
from vit_jax.training.experiment import Experiment, build
from vit_jax.training.mesh import shard_batch
from vit_jax.training.metrics import Clock, write_summary
from vit_jax.training.optimizer import summary as optimizer_summary
from vit_jax.training.out_of_memory import check_memory, memory_errors_explained
from vit_jax.training.peers import Peers
from vit_jax.training.profiling import Profile
from vit_jax.training.progress import Progress
from vit_jax.training.report import earlier_performance, performance, write_report
from vit_jax.training.restoring import restore_state
from vit_jax.training.run import Run
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
    profile: tuple[int, int] | None = None,
    begun: float | None = None,
    peers: Peers | None = None,
) -> TrainResult:
    """Train as configured, from the start or from where an earlier call with this workdir was interrupted.

    Args:
      config: a checked configuration, see `training.config.load_config`.
      workdir: folder for checkpoints, `metrics.jsonl`, TensorBoard events and `summary.json`.
      allow_change: configuration keys that may differ from the run being resumed.
      sources: records to train on and to evaluate on, instead of those the configuration names.
      profile: the first and the last step to trace with JAX's profiler, to `profile` in the workdir.
      begun: `time.monotonic()` of when the program started, for the report on where its time went.
      peers: watches this process and the others, and ends this one if it cannot go on; by default nobody does.

    Returns:
      The last state, its metrics and the summary.

    Raises:
      VitError: wrong input, before anything is compiled; unreadable checkpoints; numbers that are not finite
        (`DivergedError`; the last finite checkpoint stays the newest); a request to stop (`Preempted`; the
        state was saved); another run in this workdir (`WorkdirBusy`).
    """
    workdir = check_output(workdir, "workdir")
    clock = Clock(begun=begun, entered=None if peers is None else peers.enter)
    with ExitStack() as held, kept_programs(config.compilation.cache, workdir), StopRequest() as stop:
        return _train(config, workdir, allow_change, sources, profile, clock, stop, peers, held)


def _train(
    config: Config,
    workdir: Path,
    allow_change: Iterable[str],
    sources: tuple[Source, Source] | None,
    profile: tuple[int, int] | None,
    clock: Clock,
    stop: StopRequest,
    peers: Peers | None,
    held: ExitStack,
) -> TrainResult:
    with clock("startup"):
        check_settings(config)
        experiment = together(
            "building", lambda: build(config, sources, earlier=_earlier_model(config, workdir))
        )
        check_data(experiment.train_source, experiment.eval_source)
        objective, total = experiment.objective, experiment.total_steps
        traced = Profile(profile, workdir / "profile", total)
        check_workdir(workdir)
        together("lock", lambda: held.enter_context(WorkdirLock(workdir)) if is_main() else None)
    checkpoints = Checkpoints(
        workdir / "checkpoints",
        keep_last=config.checkpoint.keep_last,
        keep_best=config.checkpoint.keep_best,
        monitor=objective.monitor,
        monitor_mode=objective.monitor_mode,
        staging=config.checkpoint.staging,
    )
    with checkpoints, memory_errors_explained(experiment):
        with clock("restore"):
            resumed = _resume(experiment, checkpoints, allow_change)
        state, start = (None, 0) if resumed is None else (resumed[0], resumed[1]["step"])
        metrics = resumed[1]["metrics"] if resumed and start == total else None
        run = Run(
            experiment,
            checkpoints,
            workdir,
            clock,
            resumed[1] if resumed else {},
            lambda line: progress.write(line),
        )
        progress = Progress(
            total,
            step=start,
            images_per_step=config.data.batch_size,
            bar=config.log.progress,
            enabled=is_main(),
        )
        with run.writer, run.attempts, traced.open(progress.write), progress:
            if start == 0:
                for line in _beginning(experiment):
                    progress.write(line)
            if start < total:
                run.attempts.note()
                with clock("compile"):
                    state = jax.block_until_ready(experiment.init()) if state is None else state
                    jitted = compile_step(
                        experiment.step, _shardings(experiment), None, experiment.step_options
                    )
                    step = jitted.lower(experiment.abstract_state, experiment.abstract_batch()).compile()
                    check_memory(experiment, step)
                # Nothing in the loop may move an array between host and device by accident.
                with (
                    nullcontext() if peers is None else peers.telling(),
                    stop.after_steps(),
                    closing(experiment.train_batches(start, progress.write)) as batches,
                    jax.transfer_guard("disallow"),
                ):
                    for number in range(start + 1, total + 1):
                        with clock("data_wait"):
                            batch = shard_batch(next(batches), experiment.mesh)
                            if peers is not None:
                                peers.ready(number)
                        with traced.step(number), clock("step"):
                            state, values = step(state, batch)
                            # The values of the step before this one: the device always has work queued.
                            run.receive(number, values)
                        checkpoints.check()
                        traced.end_step(number, state)
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
                            checkpoints.wait(hurry=True)
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
        "skipped_steps": run.skipped_steps,
    }
    report = write_report(experiment, state, workdir)
    summary |= performance(experiment, clock, total - start)
    if start == total:  # Speed was measured when it was trained.
        summary |= earlier_performance(workdir, summary)
    summary |= report | {"goodput": run.attempts.finish()}
    if is_main():
        write_summary(workdir, summary)
    wait_for_all("the report", REPORT_TIMEOUT)
    return TrainResult(metrics, total, state, summary, experiment)


def _resume(
    experiment: Experiment, checkpoints: Checkpoints, allow_change: Iterable[str]
) -> tuple[TrainState, dict[str, Any]] | None:
    """Return the newest good state and its metadata, or None when there is no checkpoint."""
    newest = checkpoints.newest_metadata()
    if newest is not None and "config" not in newest:
        raise CheckpointError(
            f"{checkpoints.directory} holds a model that was saved, not a training run; use another --workdir."
        )
    saved = experiment.config if newest is None else read_saved(newest["config"])
    for notice in check_resumable(saved, experiment.config, allow_change):
        _say(f"changed: {notice}")
    if newest is None:
        return None
    restored = restore_state(checkpoints, experiment.abstract_state)
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
        print(printable(line), file=sys.stderr)


def _earlier_model(config: Config, workdir: Path) -> dict[str, Any] | None:
    """Return the model of the run in a workdir, where it came from a checkpoint that may be gone by now."""
    if not config.model.get("checkpoint"):
        return None
    newest = Checkpoints(workdir / "checkpoints", read_only=True).newest_metadata()
    return None if newest is None else newest.get("model")


def _beginning(experiment: Experiment) -> list[str]:
    """Return what to say of a run that does not train all its parameters from scratch, or cannot divide them all."""
    config, params = experiment.config, experiment.abstract_state.params
    lines = [] if experiment.pretrained is None else [str(experiment.pretrained.report)]
    if lines or config.optimizer.trained or config.optimizer.frozen or config.lora.rank:
        lines.append(optimizer_summary(config.optimizer, params))
    return [*lines, *experiment.sharding_notes]


def _line(number: int, metrics: Mapping[str, float]) -> str:
    return f"step {number}  evaluation: " + ", ".join(
        f"{name} {value:.4f}" for name, value in metrics.items()
    )


def _shardings(experiment: Experiment) -> Any:
    return jax.tree.map(lambda x: x.sharding, experiment.abstract_state)
