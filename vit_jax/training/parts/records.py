"""The records of an experiment: opened, compared by their classes, and a first batch of them."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from vit_jax.data.base import Source
from vit_jax.data.classes import BY_NAME, Relabelled, match
from vit_jax.data.images.decode import MAX_MEGAPIXELS
from vit_jax.data.reader import BatchReader
from vit_jax.data.section import mixture_parts
from vit_jax.data.sources.opening import cached, open_mixture, open_source
from vit_jax.data.sources.sequence import as_sources
from vit_jax.data.transforms.base import Transform
from vit_jax.data.transforms.decoding import limited
from vit_jax.data.transforms.defaults import default_transforms
from vit_jax.data.transforms.spec import parse, text_of
from vit_jax.errors import DataError
from vit_jax.models.families import family_of
from vit_jax.objectives.base import DataInfo
from vit_jax.training.config.defaults import Config


@dataclass(frozen=True)
class Records:
    """Opened records.

    Attributes:
      train, evaluation: what to train and to evaluate on, the latter with the classes of the former.
      opened: both as they were opened.
      given: whether they came from outside instead of from the configuration.
      note: how the classes of one were matched with those of the other; empty where they are the same.
    """

    train: Source
    evaluation: Source
    opened: tuple[Source, Source]
    given: bool
    note: str


def open_records(section: Config, model: Any, sources: tuple[Any, Any] | None = None) -> Records:
    """Return the records of a run, opened.

    Args:
      section: `data` of the configuration.
      model: what made-up records are like.
      sources: records to train on and to evaluate on, instead of those the section names, see `as_sources`.

    Raises:
      VitError: they cannot be opened, have no record, or have not the same classes.
    """
    train, evaluation = opened = open_sources(section, model) if sources is None else as_sources(sources)
    evaluation, note = same_classes(train, evaluation)
    return Records(train, evaluation, opened, sources is not None, note)


def transform_specs(
    section: Config, model: Any, train_source: Source, eval_source: Source
) -> tuple[str, str]:
    """Return the training and evaluation transforms of a `data` section, or what the sources need where it says none.

    `{size}`, `{channels}`, `{interpolation}`, `{patches}` and `{patch}` in them stand for the model's: so they go with
    any checkpoint. Image files may have as many pixels as `data.max_megapixels` says.
    """
    budget = family_of(model).budget(model)
    default = partial(
        default_transforms, model.preprocessing, model.image_size, model.in_channels, budget=budget
    )
    meanings = {
        "{size}": str(model.image_size),
        "{channels}": str(model.in_channels),
        "{interpolation}": repr(model.preprocessing.interpolation),
    }
    if budget is not None:
        meanings |= {"{patches}": str(budget.patches), "{patch}": str(budget.size)}
    train, evaluation = section.train_transforms, section.eval_transforms
    for word, meaning in meanings.items():
        train, evaluation = train.replace(word, meaning), evaluation.replace(word, meaning)
    specs = train or default(train_source)[0], evaluation or default(eval_source)[1]
    if section.max_megapixels == MAX_MEGAPIXELS:
        return specs
    train, evaluation = (text_of(limited(parse(spec), section.max_megapixels)) for spec in specs)
    return train, evaluation


def data_info(source: Source) -> DataInfo:
    """Return what an objective may know about a source."""
    counts = label_counts = scale = None
    if source.labels is not None:
        counts = tuple(np.bincount(source.labels, minlength=source.num_classes).tolist())
    labels, values = source.known("labels"), source.known("value")
    if labels is not None:
        label_counts = tuple(zip(*((labels == which).sum(axis=0).tolist() for which in (1, 0))))
    if values is not None:
        numbers = values.astype(np.float64)
        scale = tuple(zip(np.nanmean(numbers, axis=0).tolist(), np.nanstd(numbers, axis=0).tolist()))
    return DataInfo(source.num_classes, tuple(source.class_names), counts, label_counts, scale)


def open_sources(section: Config, model: Any) -> tuple[Source, Source]:
    """Return the records to train on and to evaluate on that a `data` section names."""
    if not section.mixture:
        return _open(section, model, section.train_split), open_evaluation(section, model)
    train = open_mixture(mixture_parts(section.mixture), **_shape(model))
    return _cached(train, section, model), open_evaluation(section, model)


def open_evaluation(section: Config, model: Any) -> Source:
    """Return the records to evaluate on that a `data` section names; `model` says what made-up ones are like."""
    return _open(section, model, section.eval_split)


def _open(section: Config, model: Any, split: str) -> Source:
    return _cached(open_source(section, split, **_shape(model)), section, model)


def _cached(source: Source, section: Config, model: Any) -> Source:
    return cached(source, section.cache, model.in_channels, section.max_megapixels)


def _shape(model: Any) -> dict[str, Any]:
    return {
        "image_size": model.image_size,
        "channels": model.in_channels,
        "num_classes": model.num_classes,
    }


def data_classes(section: Config, source: Source) -> Any:
    """Return what the head of a checkpoint in the `model` section is compared with; None without one."""
    if not section.get("checkpoint"):
        return None
    # Here because reading checkpoints takes imports that training from scratch can do without.
    from vit_jax.weights.head import Classes

    return Classes(source.class_names, source.named, section.get("labels", BY_NAME), "value" in source.fields)


def same_classes(train_source: Source, eval_source: Source) -> tuple[Source, str]:
    """Return the records to evaluate on with the classes of training, and what to tell of it."""
    for source, split in ((train_source, "train"), (eval_source, "eval")):
        if not len(source):
            raise DataError(f"data.{split}_split selects no records; choose another split.")
    known, named = train_source.class_names, train_source.named
    if eval_source.class_names == known or not (known and eval_source.num_classes):
        return eval_source, ""
    found = match(
        known,
        eval_source.class_names,
        model_named=named,
        data_named=eval_source.named,
        whose=("the training data", "the evaluation data"),
    )
    told = (
        found.notice or "the evaluation data has its classes in a different order; labels are matched by name"
    )
    return Relabelled(eval_source, found.labels, known, named), told


def first_name(source: Source) -> str:
    """Return where the first record comes from, for messages."""
    try:
        return source.name_of(0)
    except DataError:  # where a record is read for its name
        return "record 0, which cannot be read"


def first_batch(
    source: Source,
    transforms: Sequence[Transform],
    policy: str,
    num_classes: int | None,
) -> dict[str, np.ndarray]:
    """Return a batch of the first records alone: so mistakes in transforms and images show at once."""
    rows = min(8, len(source)) if policy == "skip" else 1  # one of which can be read
    reader = BatchReader(source, transforms, rows, num_classes=num_classes, skip_bad=policy == "skip")
    return reader(0)
