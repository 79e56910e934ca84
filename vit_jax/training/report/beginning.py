"""What a run is, in a few lines, before anything takes long."""

import math

import jax

from vit_jax import trees
from vit_jax.data.base import Source
from vit_jax.data.images.image_files import left_out_text
from vit_jax.data.split import has_shared
from vit_jax.training.config.defaults import Config
from vit_jax.training.config.model import problem_changed
from vit_jax.training.experiment import Experiment
from vit_jax.training.guard.missing_classes import missing_classes
from vit_jax.training.optimizer import summary as optimizer_summary

SHOWN_NAMES = 5  # of classes


def description(experiment: Experiment, start: int = 0) -> list[str]:
    """Return what a run is: records, model, length and devices.

    Args:
      experiment: the run.
      start: the step it goes on after.
    """
    data, task, where = experiment.data, experiment.task, experiment.devices
    train, evaluation = data.train_source, data.eval_source
    total, batch = experiment.optimisation.total_steps, data.batch_size
    model = f"{model_name(experiment.config.model)}, {trees.count(task.params):,} parameters"
    if task.objective.train_flops:
        model += f", {_with_unit(task.objective.train_flops)}FLOPs per image, forward and backward"
    steps = f"{total:,} steps of {batch:,} images, {total * batch / len(train):.3g} epochs"
    mesh = ", ".join(f"{axis} {size}" for axis, size in where.mesh.shape.items() if size > 1)
    devices = f"{where.mesh.size} x {where.first.device_kind}"
    if jax.process_count() > 1:
        devices += f" in {jax.process_count()} processes"
    return [
        f"data: {len(train):,} training records, {len(evaluation):,} evaluation records; {_classes(train)}",
        f"model: {model}",
        f"run: {f'from step {start:,}, ' if start else ''}{steps}; {task.model.dtype} on {devices}"
        f"{f' (mesh {mesh})' if mesh else ''}",
    ]


def beginning(experiment: Experiment) -> list[str]:
    """Return what to say of a run that does not train all parameters from scratch, on all files, or divides not all."""
    data, task = experiment.data, experiment.task
    lines = [] if task.pretrained is None else task.pretrained.report.lines()
    if task.stage is not None:
        parts = ", ".join(dict.fromkeys(path.split("/")[1] for path in task.stage.rest))
        lines.append(f"  {'loaded':<8} {parts:<40} of the earlier run, which this one goes on from")
    if lines and task.fresh:
        lines.append(f"  {'new':<8} {', '.join(task.fresh):<40} not part of the model, newly initialised")
    lines += problem_changed(task.pretrained, task.model) + experiment.devices.constants.lines
    if task.objective.loss_may_rise and experiment.optimisation.spikes is not None:
        deviations = experiment.config.divergence.spike_deviations
        lines.append(
            f"the loss of {task.kind} can rise without anything being wrong, and divergence.spike_deviations is "
            f"{deviations}: such steps are skipped as spikes; 0 keeps them"
        )
    section = experiment.optimisation.section
    some = section.trained or section.frozen or section.frozen_blocks or section.trained_blocks >= 0
    if lines or some or experiment.config.lora.rank:
        lines.append(optimizer_summary(section, task.params, task.objective.network))
    for work, source in (("training", data.train_source), ("evaluation", data.eval_source)):
        if source.left_out:
            lines.append(f"{work} data: {left_out_text(source.left_out)}")
    if task.objective.class_names and (missing := missing_classes(data.train_source)):
        lines.append(missing)
    lines += [data.note] * bool(data.note)
    train, evaluated = data.section.train_split, data.section.eval_split
    if not data.given and not data.section.mixture and has_shared(train, evaluated):
        lines.append(
            f"the evaluation data contains training records: data.eval_split is {evaluated!r} and "
            f"data.train_split {train!r}"
        )
    return [*lines, *experiment.devices.notes]


def model_name(section: Config) -> str:
    """Return what the `model` section of a configuration calls its model."""
    return section.get("checkpoint") or section.name


def _with_unit(value: float) -> str:
    """Return `17.6 G` of 17.6e9: three digits, and a unit that goes before FLOPs."""
    units = ("", "k", "M", "G", "T")
    power = min(max(int(math.log10(max(value, 1.0)) // 3), 0), len(units) - 1)
    return f"{value / 1000**power:.3g} {units[power]}"


def _classes(source: Source) -> str:
    names = list(source.class_names)
    more = ", ..." if len(names) > SHOWN_NAMES else ""
    what = "values" if "value" in source.fields else "classes"
    return f"{source.num_classes:,} {what} ({', '.join(map(str, names[:SHOWN_NAMES]))}{more})"
