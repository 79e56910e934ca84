"""What people give a classifier to learn from: images or a folder, labels of any kind, as records and classes."""

import os
from collections.abc import Hashable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_jax.data.base import Source
from vit_jax.data.classes import some
from vit_jax.data.holdout import hold_out
from vit_jax.data.labels import checked_names, is_missing, numbered, values_of
from vit_jax.data.sources.folder import FolderSource, split_folders
from vit_jax.data.sources.sequence import as_source
from vit_jax.errors import ConfigError, DataError, nearest
from vit_jax.paths import expanded
from vit_jax.processes import say


class Records(NamedTuple):
    """What is trained and evaluated on.

    Attributes:
      sources: both; None where the configuration's `data` section names them.
      classes: the labels as they were given, in order of the model's outputs; None for numbers from 0.
      section: what `data` says.
    """

    sources: tuple[Source, Source] | None
    classes: np.ndarray | None
    section: dict[str, Any]


def of_images(
    images: Any, labels: Any, validation: tuple[Any, Any] | None, class_names: Sequence[str] | None, seed: int
) -> Records:
    """Return images and labels as records, some held out unless there are others to evaluate on.

    Args:
      images, labels, class_names: see `data.sources.sequence.as_source`; labels may be any whole numbers or names.
      validation: images and labels to evaluate on.
      seed: of what is held out, see `data.holdout`.

    Raises:
      VitError: they are nothing like that.
    """
    if labels is None and (isinstance(images, np.ndarray) or class_names is not None):
        raise ConfigError("fit got images without labels; pass labels, or the path of a folder.")
    name = "the training images"
    class_names, classes = None if class_names is None else checked_names(class_names, name), None
    if labels is None:
        source = as_source(images, name=name)
        if source.labels is None:
            raise DataError(f"{name} have no labels; pass labels.")
        if source.named:
            classes = np.array(source.class_names)
    else:
        classes, numbers = encoded(labels, class_names, name)
        source = as_source(
            images, numbers, list(map(str, classes)) if class_names is None else class_names, name=name
        )
        source.named = class_names is not None or not _counted(classes)
    if validation is None:
        train, held_out, notice = hold_out(source, seed)
        say(notice)
        return Records((train, held_out), classes, {"source": "arrays"})
    if not isinstance(validation, tuple | list) or len(validation) != 2:
        raise DataError(
            f"validation is of type {type(validation).__name__}; give a pair, images and labels: (images, labels)."
        )
    pixels, known = validation
    name = "the validation images"
    if isinstance(pixels, Source):
        return Records((source, pixels), classes, {"source": "arrays"})
    known = numbers_of(
        known, np.arange(source.num_classes) if classes is None else classes, source.class_names, name
    )
    other = as_source(pixels, known, source.class_names, name=name)
    other.named = source.named
    return Records((source, other), classes, {"source": "arrays"})


def of_folder(path: str | Path, split: str | None, seed: int) -> Records:
    """Return a folder of class folders as records to train on, and to evaluate on the split that there is.

    Args:
      path: the folder.
      split: to evaluate on; None takes the split folder that there is, `val` before `test`, under any of their names;
        if there is none, images are held out.
      seed: of what is held out.

    Raises:
      DataError: there is no such split.
    """
    section = {"source": "folder", "path": os.fspath(path)}
    if split is not None:
        return Records(None, None, {**section, "eval_split": split})
    root = Path(expanded(path))
    if not os.path.isdir(root):  # which is said when it is opened
        return Records(None, None, section)
    splits = {name.lower() for name in split_folders(root)}
    for wanted in (("val", "valid", "validation"), ("test", "testing")):
        if splits.intersection(wanted):
            return Records(None, None, {**section, "eval_split": wanted[0]})
    if not splits:  # the folder's own tenth: so the command line evaluates the run, and goes on with it
        return Records(None, None, {**section, "eval_split": "test"})
    train, held_out, notice = hold_out(FolderSource(path, "train"), seed)
    say(notice)
    return Records((train, held_out), None, section)


def encoded(labels: Any, class_names: Sequence[str] | None, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes there are, sorted as scikit-learn does, and which of them each label is, int32 `(n,)`.

    Args:
      labels: whole numbers or names `(n,)`, an array, a list, a column of pandas.
      class_names: in order of label; then numbers are from 0, and names are these.
      name: what messages call them.

    Raises:
      DataError: a label is neither, or not a class.
    """
    values = values_of(labels, name)
    if class_names is not None:
        found = numbered(values, class_names, name)
        texts = bool(values) and isinstance(values[0], str)
        return np.array(found.class_names) if texts else np.arange(len(found.class_names)), found.labels
    if {type(value) for value in values} in ({int}, {bool}):
        classes, numbers = np.unique(np.array(values), return_inverse=True)
        return classes, numbers.astype(np.int32)
    found = numbered(values, None, name)
    classes, numbers = np.unique(np.array(found.class_names)[found.labels], return_inverse=True)
    return classes, numbers.astype(np.int32)


def numbers_of(labels: Any, classes: np.ndarray, class_names: Sequence[str], name: str) -> np.ndarray:
    """Return which output each label means, int32 `(n,)`.

    Args:
      labels: of the kind of `classes`, or names of classes.
      classes: the labels that the model was given, in order of its outputs.
      class_names: in order of its outputs.
      name: what messages call them.

    Raises:
      DataError: a label is none of these, or is the name of several classes.
    """
    values = values_of(labels, name)
    texts = any(isinstance(value, str) for value in values)
    meant = list(class_names) if texts else classes.tolist()
    there = set(meant)
    for index, value in enumerate(values):
        if not isinstance(value, Hashable) or value not in there:
            raise DataError(
                f"record {index} of {name} has {'no label' if is_missing(value) else f'label {value!r:.60}'}; "
                f"labels must be classes that the model was trained on: "
                f"{some(meant, 10)}.{nearest(str(value), map(str, meant))}"
            )
    twice = [value for value in dict.fromkeys(values) if meant.count(value) > 1] if texts else []
    if twice:
        raise DataError(
            f"labels of {name} have {twice[0]!r}, the name of several classes; give their numbers."
        )
    number = {value: index for index, value in enumerate(meant)}
    return np.array([number[value] for value in values], np.int32)


def _counted(classes: np.ndarray) -> bool:
    return list(map(str, classes)) == list(map(str, range(len(classes))))
