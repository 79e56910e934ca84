"""One step of a run made again, to see whether its numbers come out the same and where they went wrong."""

import json
import math
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.data.base import Source
from vit_jax.errors import CheckpointError, ConfigError, DataError
from vit_jax.objectives.base import Objective
from vit_jax.paths import expanded
from vit_jax.training.config.defaults import Config
from vit_jax.training.config.load import from_json, read_saved
from vit_jax.training.devices.compilation import kept_programs
from vit_jax.training.experiment import Experiment, build
from vit_jax.training.guard.incidents import (
    NOT_FINITE,
    SPIKE,
    Incident,
    environment,
    incident_steps,
    read_incident,
)
from vit_jax.training.guard.inspection import compile_inspection
from vit_jax.training.guard.restoring import restore_state
from vit_jax.training.parts.constants import check_same_networks
from vit_jax.training.parts.identity import data_changes
from vit_jax.training.state import TrainState
from vit_jax.training.step import compile_step


@dataclass(frozen=True)
class Replay:
    """What came out of a step made again.

    Attributes:
      step: its number.
      start: the checkpoint it was replayed from; 0 is the beginning.
      kind: "not finite", "spike", or empty: the update was made.
      metrics: of the step.
      recorded: of the step in the run, or None where no record was kept.
      reproduced: whether the two are equal, bit by bit; None without a record.
      environment: differences to the one of the run, in words; where there are some, bits may differ.
      records: rows of the batch that hold a value which is not finite, as they were read: row, index and name.
      affected: rows in which an activation is not finite, likewise.
      first: the first of all that is not finite, in the order in which a step computes, in words; empty if nothing is.
      parameters: paths of parameters and buffers that are not finite before the step.
      microbatches: of which the loss is not finite, from 0.
      activations: that are not finite, in order, such as `blocks/3`.
      gradients: that are not finite, by path, with the layers of stacked ones.
    """

    step: int
    start: int
    kind: str
    metrics: dict[str, float]
    recorded: dict[str, float] | None
    reproduced: bool | None
    environment: list[str]
    records: list[dict[str, Any]]
    affected: list[dict[str, Any]]
    first: str
    parameters: list[str]
    microbatches: list[int]
    activations: list[str]
    gradients: dict[str, list[int]]


def replay(
    workdir: str | Path,
    step: int | None = None,
    *,
    sources: tuple[Source, Source] | None = None,
    objective: Callable[..., Objective] | None = None,
) -> Replay:
    """Make a step of a run again, from the newest checkpoint before it, with the very same batches.

    Nothing in the workdir is changed. On the same devices, with the same mesh, versions and data, the numbers are
    those of the run, bit by bit.

    Args:
      workdir: of the run.
      step: number of the step, from 1; the last one with a record by default.
      sources: records to train and evaluate on, if the run was given them.
      objective: what it was trained for, if it was given that.

    Raises:
      VitError: there is no such step or record; the data are not those of the run; checkpoints are unreadable.
    """
    workdir = Path(expanded(workdir))
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    recorded = None
    if step is None or step in incident_steps(workdir):
        recorded = read_incident(workdir, step)
        number, saved, model = recorded.step, recorded.config, recorded.model
    else:
        metadata = checkpoints.newest_metadata()
        if metadata is None:
            raise CheckpointError(f"{workdir} has neither a checkpoint nor a record of step {step}.")
        number, saved, model = step, metadata["config"], metadata["model"]
    config: Config = read_saved(from_json(json.dumps(saved)).to_dict())
    earlier = model if config.model.get("checkpoint") else None
    experiment = build(config, sources, earlier=earlier, objective=objective)
    if not 0 < number <= experiment.optimisation.total_steps:
        raise ConfigError(f"--step is {number}; it must be from 1 to {experiment.optimisation.total_steps}.")
    records = experiment.data.batch_records(number)
    if recorded is not None and recorded.records != records.tolist():
        raise DataError(
            f"step {number} had different records from those the data gives now; provide the data that the run "
            "was trained on."
        )
    newest = checkpoints.newest_metadata()
    if newest is not None:
        check_same_networks(newest.get("constants"), experiment.devices.constants.fingerprints)
    changes = [] if newest is None else data_changes(newest, experiment.data.identity)
    if changes:
        raise DataError(
            f"{workdir} was trained on different data: {'; '.join(changes)}; provide the original data (in "
            "Python, sources=)."
        )
    with kept_programs(config.compilation.cache, workdir):
        start, kind, metrics, seen = _again(experiment, checkpoints, number)
    return _told(experiment, records, recorded, start, number, kind, metrics, seen)


def _again(
    experiment: Experiment, checkpoints: Checkpoints, number: int
) -> tuple[int, str, dict[str, float], dict[str, Any]]:
    """Return the step begun from, what kind of step it was, its metrics and what is not finite in it."""
    start, state = _state_before(experiment, checkpoints, number)
    shardings = experiment.devices.state_shardings
    frozen, options = experiment.devices.constants, experiment.devices.step_options
    step: Any = compile_step(experiment.step, shardings, None, options, frozen.shardings)
    step = step.lower(
        experiment.abstract_state, experiment.abstract_batch(), *frozen.abstract_arguments
    ).compile()
    values, batch = {}, {}
    with closing(experiment.data.train_batches(start)) as batches:
        for _ in range(start, number):
            batch = experiment.devices.put(next(batches))
            state, values = step(state, batch, *frozen.arguments)
            jax.block_until_ready(state)
    metrics = {name: float(value) for name, value in jax.device_get(values).items()}
    finite, spike = metrics.pop("finite"), metrics.pop("spike", 0.0)
    kind = NOT_FINITE if not finite else SPIKE if spike else ""
    if not kind:
        return start, kind, metrics, {}
    # An update that was left out left the state before it behind, but for the number.
    before = _numbered(state, number - 1)
    inspection = compile_inspection(experiment.inspection, experiment.devices.replicated)
    return start, kind, metrics, jax.device_get(inspection(before, batch, *frozen.arguments))


def _state_before(experiment: Experiment, checkpoints: Checkpoints, number: int) -> tuple[int, TrainState]:
    """Return the newest intact checkpoint before a step, or the state of the beginning."""
    unreadable = []
    for step in reversed([step for step in checkpoints.steps() if step < number]):
        try:
            restored = restore_state(checkpoints, experiment.abstract_state, step)
        except CheckpointError as error:
            unreadable.append(f"step {step}: {error}")
            continue
        assert restored is not None
        return step, restored[0]
    if unreadable:
        raise CheckpointError(f"no checkpoint before step {number} is usable: {' '.join(unreadable)}")
    return 0, jax.block_until_ready(experiment.init())


def _numbered(state: TrainState, step: int) -> TrainState:
    count = jax.device_put(np.asarray(step, np.int32), state.step.sharding)
    return TrainState(count, state.params, state.buffers, state.opt_state, state.ema, state.loss_history)


def _told(
    experiment: Experiment,
    records: np.ndarray,
    recorded: Incident | None,
    start: int,
    number: int,
    kind: str,
    metrics: dict[str, float],
    seen: Mapping[str, Any],
) -> Replay:
    def rows(finite: np.ndarray) -> list[dict[str, Any]]:
        return [
            {
                "row": row,
                "record": int(records[row]),
                "name": experiment.data.train_source.name_of(int(records[row])),
            }
            for row in np.flatnonzero(~finite).tolist()
        ]

    batch = np.logical_and.reduce(list(seen.get("batch", {}).values()) or [np.ones(len(records), bool)])
    parameters = [
        f"{part}/{path}"
        for part in ("params", "buffers")
        for path, ok in seen.get(part, {}).items()
        if not ok
    ]
    activations, whole = _activations(seen.get("activations", {}), len(records))
    microbatches = np.flatnonzero(~np.asarray(seen.get("loss", [True]))).tolist()
    gradients = {
        path: np.flatnonzero(~np.atleast_2d(ok.T).all(1)).tolist() if ok.ndim > 1 else []
        for path, ok in seen.get("gradients", {}).items()
        if not ok.all()
    }
    prepared = [name for name, ok in seen.get("prepared", {}).items() if not ok.all()]
    first = next(
        words
        for found, words in (
            (parameters, f"{parameters[:1]} before the step"),
            (not batch.all(), "the images as read"),
            (prepared, f"{prepared[:1]} after preparation"),
            (activations, f"activation {activations[:1]}"),
            (microbatches, "the loss"),
            (gradients, "gradients alone: the backward pass"),
            (kind == NOT_FINITE, "the sum over microbatches, the optimizer's update, or a buffer"),
            (True, ""),
        )
        if found
    )
    now, differences = environment(experiment), []
    reproduced = None
    if recorded is not None:
        differences = [
            f"{name} was {old} and is {now[name]}"
            for name, old in recorded.environment.items()
            if now[name] != old
        ]
        reproduced = kind == recorded.kind and _same(metrics, recorded.metrics)
    return Replay(
        step=number,
        start=start,
        kind=kind,
        metrics=metrics,
        recorded=None if recorded is None else recorded.metrics,
        reproduced=reproduced,
        environment=differences,
        records=rows(batch),
        affected=rows(whole),
        first=first.translate(str.maketrans("", "", "[]'")),
        parameters=parameters,
        microbatches=microbatches,
        activations=activations,
        gradients=gradients,
    )


def _activations(seen: Mapping[str, np.ndarray], count: int) -> tuple[list[str], np.ndarray]:
    """Return the names of activations that are not finite, in order, and which rows of the batch are finite in all."""
    names, whole = [], np.ones(count, bool)
    for numbered, finite in sorted(seen.items()):  # (m, b / m), or (m, l, b / m)
        name = numbered.partition("/")[2]
        layers = finite if finite.ndim == 3 else finite[:, None]
        for layer in range(layers.shape[1]):
            if not layers[:, layer].all():
                names.append(f"{name}/{layer}" if finite.ndim == 3 else name)
        # Microbatch i has rows i, i + m, ...
        whole &= layers.all(1).T.reshape(-1)
    return names, whole


def _same(values: Mapping[str, float], others: Mapping[str, float]) -> bool:
    """Return whether metrics are equal, NaN to NaN."""
    return values.keys() == others.keys() and all(
        value == others[name] or (math.isnan(value) and math.isnan(others[name]))
        for name, value in values.items()
    )
