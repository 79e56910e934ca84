"""The training loop, for every objective."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import ExitStack, closing, nullcontext
from pathlib import Path
from typing import Any

import jax

from vit_jax.checkpoints import fingerprint
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.lock import WorkdirLock
from vit_jax.data.workers import check_guarded
from vit_jax.errors import Preempted
from vit_jax.objectives.base import Objective
from vit_jax.paths import check_output
from vit_jax.processes import is_main, say, together, wait_for_all
from vit_jax.training.config.defaults import Config
from vit_jax.training.config.load import checked
from vit_jax.training.devices.compilation import kept_programs
from vit_jax.training.devices.mesh import shard_batch
from vit_jax.training.experiment import Experiment, build
from vit_jax.training.guard.agreement import check_data, check_settings, check_workdir
from vit_jax.training.guard.missing_classes import check_labels_begin
from vit_jax.training.guard.one_class import check_several_classes
from vit_jax.training.guard.out_of_memory import check_memory, memory_errors_explained
from vit_jax.training.guard.peers import Peers
from vit_jax.training.guard.resuming import earlier_model, how_to_go_on, resume
from vit_jax.training.guard.stopping import StopRequest
from vit_jax.training.parts.context import Context
from vit_jax.training.report.beginning import beginning, description
from vit_jax.training.report.callbacks import Callback, Callbacks
from vit_jax.training.report.metrics import Clock, write_summary
from vit_jax.training.report.profiling import Profile
from vit_jax.training.report.progress import Progress
from vit_jax.training.report.report import earlier_performance, performance, write_report
from vit_jax.training.report.result import TrainResult
from vit_jax.training.report.writers.base import check_writers
from vit_jax.training.run import Run
from vit_jax.training.state import TrainState
from vit_jax.training.step import compile_step

REPORT_TIMEOUT = 1800.0  # seconds that the others wait for baselines and pictures


def train(
    config: Config,
    workdir: str | Path,
    *,
    allow_change: Iterable[str] = (),
    sources: tuple[Any, Any] | None = None,
    profile: tuple[int, int] | None = None,
    begun: float | None = None,
    peers: Peers | None = None,
    callbacks: Iterable[Callback] = (),
    objective: Callable[..., Objective] | None = None,
) -> TrainResult:
    """Train as configured, from the start or from where an earlier call with this workdir was interrupted.

    Args:
      config: see `load_config` and `default_config`.
      workdir: folder for checkpoints, `metrics.jsonl`, TensorBoard events and `summary.json`.
      allow_change: configuration keys that may differ from the run being resumed.
      sources: records to train on and to evaluate on, instead of those the configuration names: two sources, or two
        sequences of images with labels, see `data.sources.sequence`.
      profile: the first and the last step to trace with JAX's profiler, to `profile` in the workdir.
      begun: `time.monotonic()` of when the program started, for the report on where its time went.
      peers: watches this process and the others, and ends this one if it cannot go on; by default nobody does.
      callbacks: told of steps and evaluations, and able to end the run; see `training.report.callbacks`.
      objective: what to train for, instead of what the configuration names: a class or function of model, options and
        `DataInfo` that gives an `objectives.base.Objective`.

    Returns:
      The last state, its metrics and the summary.

    Raises:
      VitError: wrong input, before anything is compiled; unreadable checkpoints; numbers that are not finite
        (`DivergedError`; the last finite checkpoint stays the newest); a request to stop (`Preempted`; the
        state was saved); another run in this workdir (`WorkdirBusy`).
    """
    config = checked(config)
    check_guarded(config.data.num_workers)
    workdir = check_output(workdir, "workdir")
    clock = Clock(begun=begun, entered=None if peers is None else peers.enter)
    with ExitStack() as held, kept_programs(config.compilation.cache, workdir), StopRequest() as stop:
        told = Callbacks(callbacks, stop, clock)
        with clock("startup"):
            experiment = _prepared(config, workdir, sources, objective)
            traced = Profile(profile, workdir / "profile", experiment.optimisation.total_steps)
            check_workdir(workdir)
            together("lock", lambda: held.enter_context(WorkdirLock(workdir)) if is_main() else None)
        result = _train(experiment, Context(workdir, clock, stop, told, traced, peers), allow_change)
        told.tell("on_end", result)
        told.raise_error("the run is complete")
        return result


def _prepared(
    config: Config,
    workdir: Path,
    sources: tuple[Any, Any] | None,
    objective: Callable[..., Objective] | None,
) -> Experiment:
    """Return the experiment, checked by all processes; nothing has been compiled."""
    check_settings(config)
    together("writers", lambda: check_writers(config.log.writers) if is_main() else None)

    def building() -> Experiment:
        # The checkpoint that a run came from may be gone by now.
        earlier = earlier_model(workdir) if config.model.get("checkpoint") else None
        return build(config, sources, earlier=earlier, objective=objective)

    experiment = together("building", building)
    data = experiment.data
    check_data(data.train_source, data.eval_source, lambda: data.identity)
    if "label" in experiment.task.objective.fields:
        check_several_classes(data.section, data.train_source)
        check_labels_begin(data.train_source)
    return experiment


def _train(experiment: Experiment, context: Context, allow_change: Iterable[str]) -> TrainResult:
    """Restore or begin, train to the end, and report."""
    section, monitor = experiment.config.checkpoint, experiment.task.monitor
    total = experiment.optimisation.total_steps
    checkpoints = Checkpoints(
        context.workdir / "checkpoints",
        keep_last=section.keep_last,
        keep_best=section.keep_best,
        monitor=monitor.name,
        monitor_mode=monitor.mode,
        staging=section.staging,
    )
    with checkpoints, memory_errors_explained(experiment):
        with context.clock("restore"):
            resumed = resume(experiment, checkpoints, allow_change)
        state, saved = (None, {}) if resumed is None else resumed
        if resumed is None:
            experiment.data.find_identity()
        start = saved.get("step", 0)
        progress = Progress(
            total,
            step=start,
            images_per_step=experiment.data.batch_size,
            bar=experiment.config.log.progress,
            enabled=is_main(),
        )
        with progress:
            run = Run(experiment, checkpoints, context, progress, saved)
            if run.stopped is not None:
                say(
                    f"the run stopped early: {run.stopped['reason']}; to resume it, "
                    f"{how_to_go_on(run.stopped['by'])}"
                )
                total = start
            metrics = saved["metrics"] if saved and start == total else None
            with run.writer, run.services, run.attempts, context.traced.open(progress.write):
                if start == 0:
                    for line in beginning(experiment):
                        progress.write(line)
                if start < total:
                    for line in (*description(experiment, start), "compiling ..."):
                        progress.write(line)
                    run.attempts.note()
                    with context.clock("compile"):
                        state = jax.block_until_ready(experiment.init()) if state is None else state
                        step = _compiled(experiment)
                    progress.skip_time()
                    state, total, metrics = _steps(run, step, state, start)
                assert state is not None
                if not metrics:  # of a state that was saved between two evaluations
                    metrics = run.evaluate(total, state, whole=True)
        with context.clock("checkpoint"):
            checkpoints.wait()
    return _result(run, state, start, total, metrics)


def _compiled(experiment: Experiment) -> Callable[..., Any]:
    """Return the step, compiled and known to fit the devices."""
    devices = experiment.devices
    frozen = devices.constants
    jitted = compile_step(
        experiment.step, devices.state_shardings, None, devices.step_options, frozen.shardings
    )
    lowered = jitted.lower(experiment.abstract_state, experiment.abstract_batch(), *frozen.abstract_arguments)
    step = lowered.compile()
    check_memory(experiment, step)
    return step


def _steps(
    run: Run, step: Callable[..., Any], state: TrainState, start: int
) -> tuple[TrainState, int, dict[str, float] | None]:
    """Make the steps after `start`; return the last state, its number and, if it was evaluated, its metrics."""
    experiment, progress, clock = run.experiment, run.progress, run.context.clock
    peers, stop, traced, callbacks = (
        run.context.peers,
        run.context.stop,
        run.context.traced,
        run.context.callbacks,
    )
    optimisation, constants = experiment.optimisation, experiment.devices.constants.arguments
    number, metrics = start, None
    # Nothing in the loop may move an array between host and device by accident.
    with (
        nullcontext() if peers is None else peers.telling(),
        stop.after_steps(),
        closing(experiment.data.train_batches(start, progress.write)) as batches,
        jax.transfer_guard("disallow"),
    ):
        for number in range(start + 1, optimisation.total_steps + 1):
            with clock("data_wait"):
                batch = shard_batch(next(batches), experiment.devices.mesh)
                if peers is not None:
                    peers.ready(number)
            with traced.step(number), clock("step"):
                state, values = step(state, batch, *constants)
                # The values of the step before this one: the device always has work queued.
                run.receive(number, values)
            run.checkpoints.check()
            traced.end_step(number, state)
            progress.advance(number)
            progress.glance(number - 1, run.means)
            asked = stop.reached(number)
            last = number == optimisation.total_steps or (asked and run.ends())
            logged = number % optimisation.log_every == 0 or last
            if logged:
                progress.log(number, run.log(number, batches.skipped))
            metrics = None
            if last or run.evaluates(number):
                metrics = run.evaluate(number, state, whole=last)
                progress.write(_line(number, metrics))
                progress.skip_time()
                if not last and run.ends():
                    last = True
                    if not logged:
                        run.log(number, batches.skipped)
                asked = callbacks.failed or asked
            stopping = asked and not last
            best = metrics is not None and run.is_kept_best
            if number % optimisation.save_every == 0 or last or stopping or best:
                run.save(number, state, metrics)
            if stopping or last:
                callbacks.raise_error(f"the state after step {number} was saved")
            if stopping:
                run.checkpoints.wait(hurry=True)
                raise Preempted(
                    f"stopped by {stop.signal} after step {number}, which was saved; run the same command again "
                    "to resume."
                )
            if last:
                break
    if run.stopped is not None:
        progress.write(f"step {number}  stopped early: {run.stopped['reason']}")
    return state, number, metrics


def _result(run: Run, state: TrainState, start: int, total: int, metrics: dict[str, float]) -> TrainResult:
    """Report on a run that is complete, and return what it ends with."""
    experiment, workdir = run.experiment, run.context.workdir
    summary = {
        "step": total,
        "metrics": metrics,
        "fingerprint": fingerprint.fingerprint(state.params),
        # Of the workdir, which may be moved: Colab's Drive, a bucket, another machine.
        "checkpoint": f"{run.checkpoints.directory.name}/{total}",
        "skipped_steps": run.skipped_steps,
        "best": run.improvement.to_json(),
        "stopped_early": run.stopped,
    }
    report = write_report(experiment, state, workdir, run.evaluation)
    summary |= performance(experiment, run.context.clock, total - start)
    if start == total:  # Speed was measured when it was trained.
        summary |= earlier_performance(workdir, summary)
    summary |= report | {"goodput": run.attempts.finish()}
    if is_main():
        write_summary(workdir, summary)
    wait_for_all("the report", REPORT_TIMEOUT)
    return TrainResult(metrics, total, state, summary, experiment, workdir)


def _line(number: int, metrics: Mapping[str, float]) -> str:
    return f"step {number}  evaluation: " + ", ".join(
        f"{name} {value:.4f}" for name, value in metrics.items()
    )
