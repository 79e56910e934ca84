"""Steps whose numbers went wrong, written down so that they can be made again: `incidents/step_7.json` in the workdir.

What a step computes follows from its seed, its number, its records and the state before it; the record names all.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import jax

from vit_jax.errors import CheckpointError, DataError
from vit_jax.models.config_json import config_to_json
from vit_jax.training.config.load import to_json
from vit_jax.training.experiment import Experiment
from vit_jax.training.report.metrics import as_resource_error, replace_text
from vit_jax.version import __version__

FOLDER = "incidents"  # of a workdir
NOT_FINITE, SPIKE = "not finite", "spike"


@dataclass(frozen=True)
class Incident:
    """One step that went wrong.

    Attributes:
      step: its number, from 1.
      kind: `NOT_FINITE` or `SPIKE`.
      seed: of the run, from which all keys follow.
      metrics: of the step, as they were.
      records: indices of the records of the global batch, row by row.
      names: what their source calls them, such as paths.
      checkpoint: the newest step saved before, or None: then it is made again from the beginning.
      environment: on which equal bits depend beside the configuration.
      config: the configuration as JSON values.
      model: the configuration of all parameters, which may have come from a checkpoint.
    """

    step: int
    kind: str
    seed: int
    metrics: dict[str, float]
    records: list[int]
    names: list[str]
    checkpoint: int | None
    environment: dict[str, Any]
    config: dict[str, Any]
    model: Any


def describe(kind: str, metrics: Mapping[str, float]) -> str:
    """Return in words what was wrong with a step."""
    loss, norm = metrics["loss"], metrics["gradient_norm"]
    if kind == SPIKE:
        return f"loss {loss:.6g} is a spike"
    if math.isfinite(loss) and math.isfinite(norm):
        return f"the update or a buffer is not finite (loss {loss:.6g}, gradient norm {norm:.6g})"
    return f"loss {loss:.6g}, gradient norm {norm:.6g}"


def incident_of(
    experiment: Experiment, step: int, kind: str, metrics: Mapping[str, float], checkpoint: int | None
) -> Incident:
    """Return the record of a step; looks up its records."""
    source = experiment.data.train_source
    records, objective = experiment.data.batch_records(step).tolist(), experiment.task.objective
    return Incident(
        step=step,
        kind=kind,
        seed=experiment.config.seed,
        metrics=dict(metrics),
        records=records,
        names=[_name(source, index) for index in records],
        checkpoint=checkpoint,
        environment=environment(experiment),
        config=json.loads(to_json(experiment.config)),
        model=config_to_json(objective.network or objective.model),
    )


def environment(experiment: Experiment) -> dict[str, Any]:
    """Return what equal bits depend on beside the configuration."""
    device = experiment.devices.first
    return {
        "vit_jax": __version__,
        "jax": jax.__version__,
        "devices": f"{experiment.devices.mesh.size} x {device.device_kind}",
        "mesh": dict(experiment.devices.mesh.shape),
        "processes": jax.process_count(),
    }


def incident_path(workdir: Path, step: int) -> Path:
    """Return where the record of a step is."""
    return workdir / FOLDER / f"step_{step}.json"


def write_incident(workdir: Path, incident: Incident) -> None:
    """Write a record, whole or not at all.

    Raises:
      ResourceError: it cannot be written.
    """
    path = incident_path(workdir, incident.step)
    values = asdict(incident)
    # JSON has no NaN: as words, which float() reads back.
    values["metrics"] = {
        name: value if math.isfinite(value) else str(value) for name, value in incident.metrics.items()
    }
    with as_resource_error(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_text(path, json.dumps(values, indent=1, allow_nan=False) + "\n")


def read_incident(workdir: Path, step: int | None = None) -> Incident:
    """Return the record of a step, by default of the last one that has a record.

    Raises:
      CheckpointError: there is no such record, or it is damaged.
    """
    steps = incident_steps(workdir)
    if not steps or (step is not None and step not in steps):
        there = ", ".join(map(str, steps)) or "none"
        wanted = "no record" if step is None else f"no record of step {step}"
        raise CheckpointError(
            f"{workdir / FOLDER} has {wanted}; steps recorded there: {there}. A run records the steps whose "
            "numbers are not finite or whose loss is a spike."
        )
    path = incident_path(workdir, steps[-1] if step is None else step)
    try:
        values = json.loads(path.read_bytes())
        values["metrics"] = {name: float(value) for name, value in values["metrics"].items()}
        return Incident(**values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path} is damaged: {' '.join(str(error).split())}") from error


def incident_steps(workdir: Path) -> list[int]:
    """Return the steps that have a record, in increasing order."""
    names = [path.stem.removeprefix("step_") for path in (workdir / FOLDER).glob("step_*.json")]
    return sorted(int(name) for name in names if name.isdecimal())


def _name(source: Any, index: int) -> str:
    try:
        return source.name_of(index)
    except DataError:
        return f"record {index}, which cannot be read"
