"""Going on with the run of a workdir: whether it is the same run, and its newest good state."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.errors import CheckpointError, ConfigError, argument
from vit_jax.processes import say
from vit_jax.training.config.load import check_resumable, read_saved
from vit_jax.training.experiment import Experiment
from vit_jax.training.guard.restoring import restore_state
from vit_jax.training.parts.constants import check_same_networks
from vit_jax.training.parts.identity import check_data_changes, check_outputs, data_changes
from vit_jax.training.state import TrainState


def earlier_model(workdir: Path) -> dict[str, Any] | None:
    """Return the model of the run in a workdir, as JSON values; None if there is no run."""
    newest = Checkpoints(workdir / "checkpoints", read_only=True).newest_metadata()
    return None if newest is None else newest.get("model")


def resume(
    experiment: Experiment, checkpoints: Checkpoints, allow_change: Iterable[str]
) -> tuple[TrainState, dict[str, Any]] | None:
    """Return the newest good state and its metadata, or None when there is no checkpoint.

    Args:
      experiment: the run as it is to go on.
      checkpoints: of its workdir.
      allow_change: configuration keys that may differ from the run as it was, `data` and `objective`.

    Raises:
      VitError: it was another run, or has no state that can be read.
    """
    newest, allow_change = checkpoints.newest_metadata(), tuple(allow_change)
    workdir = checkpoints.directory.parent
    if newest is not None and "config" not in newest:
        raise CheckpointError(
            f"{checkpoints.directory} holds a saved model, not a training run; use "
            f"another {argument('workdir')}."
        )
    saved = experiment.config if newest is None else read_saved(newest["config"])
    # Records that are compared themselves may have moved.
    moved = ("data.path",) if newest is not None and "data" in newest else ()
    for notice in check_resumable(saved, experiment.config, (*allow_change, *moved)):
        say(f"changed: {notice}")
    if newest is None:
        return None
    before, now = newest.get("objective", experiment.task.kind), experiment.task.kind
    if before != now and "objective" not in allow_change:
        raise ConfigError(
            f"the run was started with objective={before}, and it is now {now}; give the same objective, use another "
            f"{argument('workdir')}, or {argument('allow_change', ['objective'])}."
        )
    check_same_networks(newest.get("constants"), experiment.devices.constants.fingerprints)
    changes = data_changes(newest, experiment.data.identity)
    check_data_changes(changes, allow_change, workdir)
    check_outputs(newest.get("class_names"), experiment.data.train_source, workdir)
    for change in changes:
        say(f"changed: {change} (allowed)")
    if "data" not in newest:
        say(
            "this run was started by an earlier version, which did not record its training data: the data cannot "
            "be compared"
        )
    restored = restore_state(checkpoints, experiment.abstract_state)
    assert restored is not None
    state, metadata = restored
    step, total = metadata["step"], experiment.optimisation.total_steps
    if step > total:
        raise ConfigError(
            f"duration is {experiment.config.duration!r}, {total} steps, but the run is already at step {step}; "
            f"lengthen the duration, or use another {argument('workdir')}."
        )
    say(f"resuming after step {step}")
    if changes:  # what was measured on other data says nothing of these
        metadata = metadata | {"metrics": {}, "monitored": None, "stopped_early": None}
    return state, metadata


def how_to_go_on(by: str) -> str:
    """Return what makes a run go on that ended early, by what ended it: `patience` or a `callback`."""
    if by == "patience":
        return "raise evaluation.patience, or set it to 0"
    return f"lengthen the duration, with {argument('allow_change', ['duration'])}"
