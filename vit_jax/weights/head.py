"""What becomes of a checkpoint's head on other data: it is kept, its classes are chosen by name, or it is new."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_jax.data.classes import BY_NAME, BY_POSITION, ambiguous, match
from vit_jax.errors import DataError
from vit_jax.models.adaptation import Change
from vit_jax.models.layers.encoder_config import replace
from vit_jax.weights.pretrained import shapes_of


@dataclass(frozen=True)
class Classes:
    """What a model is to tell apart.

    Attributes:
      names: in order of label.
      named: whether somebody gave these names, see `data.base.Source.named`.
      labels: `by-name`, or `by-position` to keep a head of as many classes whatever they are called.
      values: whether these are no classes but values, for which no head is kept: they are learned in their own scale.
    """

    names: tuple[str, ...]
    named: bool
    labels: str = BY_NAME
    values: bool = False


@dataclass(frozen=True)
class Head:
    """What becomes of a head.

    Attributes:
      rows: int32, which of its classes the new one has, in that order; None for all as they are.
      new: whether nothing of it is kept.
      told: what to say of it.
    """

    rows: np.ndarray | None
    new: bool
    told: str


def choose_head(own: Sequence[str], own_named: bool, outputs: int, data: Classes) -> Head:
    """Return what becomes of a head on data: names decide, and where there are none, whether there are as many.

    Args:
      own: names of the head's classes, in order; empty where they are not known.
      own_named: whether somebody gave these names.
      outputs: how many there are.
      data: the classes it is to tell apart.

    Raises:
      DataError: it is to be kept by position, but there are not as many classes.
    """
    nameless, count = not (own and own_named and data.named), len(data.names)
    own_named = own_named and bool(own)
    own = tuple(own) or tuple(map(str, range(outputs)))
    if nameless and count != outputs and data.labels == BY_NAME:
        return Head(None, True, f"new: the checkpoint has {outputs} classes and the data {count}")
    whose = ("the checkpoint", "the data")
    try:
        found = match(
            own, data.names, model_named=own_named, data_named=data.named, labels=data.labels, whose=whose
        )
    except DataError:
        if data.labels == BY_POSITION:
            raise
        shared = len(set(own) & set(data.names))
        why = (
            "are the checkpoint's, but some names are ambiguous"
            if ambiguous(own, data.names)
            else "are the checkpoint's"
        )
        return Head(None, True, f"new: {shared} of the data's {count} classes {why}")
    if count < outputs:
        return Head(found.labels, False, f"kept for the data's {count} classes of {outputs}, by name")
    if (found.labels != np.arange(outputs)).any():
        return Head(found.labels, False, "kept, its classes by name in the order of the data")
    if own == data.names and not nameless:
        return Head(None, False, "kept: its classes are the data's")
    return Head(None, False, f"kept: {found.notice}" if found.notice else "kept, by name")


def class_axes(config: Any) -> dict[str, int]:
    """Return the parameters that have a part for each class, by path, and which of their axes it is."""
    one, other = shapes_of(config), shapes_of(replace(config, num_classes=config.num_classes + 1))
    return {
        path: next(axis for axis, size in enumerate(shape) if size != other[path][axis])
        for path, shape in one.items()
        if shape != other[path]
    }


def head_changes(config: Any, rows: np.ndarray) -> dict[str, Change]:
    """Return what makes a head of some of its classes, in another order, by path, and in words."""

    def chosen(axis: int) -> Change:
        return lambda array: np.take(
            array, rows, axis
        ), f"{len(rows)} of {config.num_classes} classes, by name"

    return {path: chosen(axis) for path, axis in class_axes(config).items()}
