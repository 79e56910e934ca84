"""Evaluate what a training run left behind: on its own records or on others, in the model's classes."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from vit_jax.data.base import Source
from vit_jax.data.classes import BY_NAME, Relabelled, match
from vit_jax.data.fields.table import KINDS
from vit_jax.data.sources.sequence import as_source
from vit_jax.errors import ConfigError
from vit_jax.inference.evaluation import Evaluation, run_evaluation
from vit_jax.inference.workdir import Saved, find, without_training
from vit_jax.objectives.base import Objective
from vit_jax.objectives.protocol import DataInfo
from vit_jax.objectives.registry import build_objective
from vit_jax.processes import say
from vit_jax.training.config.defaults import flatten
from vit_jax.training.config.load import validate
from vit_jax.training.config.model import resolve_model
from vit_jax.training.config.overrides import apply_override
from vit_jax.training.experiment import build
from vit_jax.training.parts.records import open_evaluation


def in_classes_of(
    names: Sequence[str], named: bool, source: Source, labels: str, whose: str
) -> tuple[Source, str]:
    """Return records with the labels of a model, and what a user should know of it, if anything.

    Args:
      names: the model's classes, in order of its outputs.
      named: whether somebody gave these names.
      source: the records.
      labels: see `data.classes.match`.
      whose: what messages call the model.

    Raises:
      VitError: see `data.classes.match`.
    """
    found = match(
        names,
        source.class_names,
        model_named=named,
        data_named=source.named,
        labels=labels,
        whose=(whose, "the data"),
    )
    if source.class_names != tuple(names):
        source = Relabelled(source, found.labels, names, named)
    return source, found.notice


def evaluate_workdir(workdir: str | Path, overrides: Sequence[str] = (), **options: Any) -> dict[str, float]:
    """Return the metrics of a saved model on its evaluation split.

    Args:
      workdir, overrides: see `examine_workdir`.
      **options: `step`, `best`, `storage`, `labels`, `sources` and `objective`, see there.

    Raises:
      VitError: see `examine_workdir`.
    """
    found = examine_workdir(workdir, overrides, **options)
    assert found.step is not None
    return {"step": found.step} | found.metrics


def examine_workdir(
    workdir: str | Path,
    overrides: Sequence[str] = (),
    *,
    step: int | None = None,
    best: bool = False,
    storage: str = "float32",
    labels: str = BY_NAME,
    sources: Any = None,
    objective: Callable[..., Objective] | None = None,
    output: str | Path | None = None,
    figure: str | Path | None = None,
) -> Evaluation:
    """Return the metrics of a saved model on its evaluation split and the report on it, every record counted once.

    A classifier's labels are matched with the model's classes by name; data with only some of the classes is evaluated
    on these.

    Args:
      workdir: see `find`.
      overrides: changes of its configuration, `data.path=...`.
      step, best: see `find`.
      storage: how parameters are stored, see `models.storage`.
      labels: `by-name`, or `by-position` where the data has as many classes under other names, in the same order.
      sources: records to evaluate on instead of those the configuration names: a source, a sequence of images with
        labels (see `data.sources.sequence`), or a pair as training takes it, of which the second counts.
      objective: what the run was trained for, if `train` was given one.
      output, figure: files that get the prediction of every record and the report, see `run_evaluation`.

    Raises:
      ConfigError: the run was trained on records from outside, and neither `sources` nor overrides say which to use.
      VitError: the checkpoint or the data cannot be read, or the data has classes that the model has not.
    """
    saved = find(workdir, step, best=best)
    check_data_said(saved, workdir, overrides, sources)
    config, own_data = saved.config, flatten(saved.config.data)
    for override in overrides:
        apply_override(config, override)
    other_data = sources is not None or flatten(config.data) != own_data
    without_training(config)
    if not saved.adapted:
        config.lora.rank = 0  # the factors were merged when it was saved
    validate(config)
    if sources is None:
        model, _ = resolve_model(config.model, config.compute_dtype, earlier=saved.model)
        source = open_evaluation(config.data, model)
    else:
        source = _given_source(sources, saved)
    notice = ""
    fields = saved.objective(objective).eval_fields
    if any(KINDS[name].renumbered for name in fields if name in KINDS):  # transforms make others
        source, notice = in_classes_of(saved.class_names, saved.named, source, labels, "the model")

    def learned(model: Any, options: Any, data: DataInfo) -> Objective:
        return build_objective(options, model, data, objective).settled(saved.metrics)

    experiment = build(config, (source, source), earlier=saved.model, objective=learned, training=False)
    params = saved.params(experiment.abstract_state.params)
    buffers = saved.buffers(experiment.abstract_state.buffers)
    if other_data:  # the run's own are what they were, named or not
        say(notice)
    return run_evaluation(
        experiment,
        params,
        buffers,
        split=None if sources is not None else config.data.eval_split,
        storage=storage,
        workdir=Path(workdir),
        step=saved.step,
        output=output,
        figure=figure,
    )


def check_data_said(saved: Saved, workdir: str | Path, overrides: Sequence[str], sources: Any) -> None:
    """Raise `ConfigError` unless it is clear which records to evaluate on."""
    said = [override for override in overrides if override.startswith("data.source=")]
    if said and sources is not None:
        raise ConfigError(f"evaluation got sources and also {said[0]}; give only one of them.")
    if saved.given and not said and sources is None:
        raise ConfigError(
            f"the run in {str(workdir)!r} was trained on records given to it in Python, which its configuration "
            "does not name; give the evaluation data: in Python sources=, else data.source and its place "
            "(--config.data.source=folder --config.data.path=DIR)."
        )


def _given_source(sources: Any, saved: Saved) -> Source:
    one = sources[1] if isinstance(sources, tuple) and len(sources) == 2 else sources
    if isinstance(one, Source):
        return one
    return as_source(one, class_names=saved.class_names, name="the evaluation records")
