"""Which class of a model each label of a data set means: names decide, positions only where there are no names."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from vit_jax.data.base import Example, Source
from vit_jax.data.fields.table import USUAL, renumbered
from vit_jax.data.fingerprint import digest
from vit_jax.data.section import LABELS
from vit_jax.data.sources.arrays import label_message
from vit_jax.errors import DataError, argument, choose, nearest

BY_NAME, BY_POSITION = LABELS
_SHOWN = 20  # names in a message
_COUNTED = re.compile(r"(LABEL_)?(\d+)")


@dataclass(frozen=True)
class Match:
    """What the labels of a data set are in a model.

    Attributes:
      labels: int32 `(data classes,)`, the model's class of each label of the data.
      notice: what a user should know of it; empty where both have the same names.
    """

    labels: np.ndarray
    notice: str


def are_counted(names: Sequence[str]) -> bool:
    """Return whether names only count, `0`, `1`, ... or `LABEL_0`, `LABEL_1`, ..., and say nothing."""
    numbers = [_COUNTED.fullmatch(name) for name in names]
    return all(found and int(found[2]) == i for i, found in enumerate(numbers))


def match(
    model: Sequence[str],
    data: Sequence[str],
    *,
    model_named: bool,
    data_named: bool,
    labels: str | None = None,
    whose: tuple[str, str] = ("the model", "the data"),
) -> Match:
    """Return which class of a model each label of a data set means.

    Only equal names are the same class: not those that differ in case, nor one of several synonyms. Of a name that
    stands for two classes (ImageNet has two that are called `crane`) nobody knows which, unless all names are equal.

    Args:
      model: names of the model's classes, in order of its outputs.
      data: names of the data's classes, in order of its labels.
      model_named, data_named: whether somebody gave these names, see `Source.named`. Where one side's say nothing,
        labels are positions; of unnamed data there may be fewer than outputs, for they are as many as its largest says.
      labels: `by-name`, or `by-position` to take labels as positions whatever the names are; None where there is no
        such choice.
      whose: what messages call both.

    Raises:
      DataError: the model does not have classes of the data, a name is that of two classes, or there are not as many
        classes where positions count.
      ConfigError: there is no such way to match.
    """
    if labels is not None:
        choose(labels, LABELS, "labels")
    model, data, (model_is, data_is) = tuple(model), tuple(data), whose
    nameless = " and ".join([model_is] * (not model_named) + [data_is] * (not data_named))
    fewer = f", {len(data)} of {len(model)}" if len(data) < len(model) else ""
    positions = f"labels are taken by position{fewer}, since the classes of {nameless} have no names"
    if data == model[: len(data)] and (not data_named or not fewer):
        return _identity(data, positions if nameless else "")
    missing = [name for name in dict.fromkeys(data) if name not in set(model)]
    if labels == BY_POSITION or (missing and nameless) or (model_named and not data_named):
        if len(data) > len(model) or (fewer and data_named):
            raise DataError(
                f"{model_is} has {_classes(model)} and {data_is} has {_classes(data)}, and labels can be taken by "
                f"position only if both have equally many; give data with the classes of {model_is}"
                f"{', or fine-tune it first' * (labels is not None)}."
            )
        asked = (
            f"labels are taken by position, as asked: {data[0]!r} of {data_is} is {model[0]!r} of {model_is}"
        )
        return _identity(data, positions if nameless else asked)
    can = labels is not None and len(data) == len(model)
    otherwise = f", or take labels by position: {argument('labels', BY_POSITION)}" if can else ""
    if missing:
        raise DataError(
            f"{data_is} has {_classes(missing)} that {model_is} does not have: {some(missing)}; {model_is} has "
            f"{some(model)}. Rename them or leave them out{otherwise}.{nearest(missing[0], model)}"
        )
    if twice := ambiguous(model, data):
        raise DataError(
            f"several classes of {model_is} or of {data_is} are called {some(twice)}, so labels cannot be matched "
            f"by name; give each class its own name{otherwise}."
        )
    number = {name: index for index, name in enumerate(model)}
    notice = f"{data_is} has {len(data)} of the {_classes(model)} of {model_is}; labels are matched by name"
    return Match(np.array([number[name] for name in data], np.int32), notice if fewer else "")


def ambiguous(model: Sequence[str], data: Sequence[str]) -> list[str]:
    """Return the names of the data that stand for several classes of it or of the model."""
    counts = Counter(data), Counter(model)
    return [name for name in dict.fromkeys(data) if any(count[name] > 1 for count in counts)]


class Relabelled(Source):
    """The records of a source with the classes of a model: their numbers and names.

    Args:
      source: whose labels, or other fields of classes, are to be translated.
      labels: int32 `(source.num_classes,)`, the model's class of each.
      class_names: of the model.
      named: see `Source.named`.
    """

    def __init__(self, source: Source, labels: np.ndarray, class_names: Sequence[str], named: bool = True):
        self._source, self._labels = source, np.asarray(labels, np.int32)
        self.fields, self.class_names, self.named = source.fields, tuple(class_names), named
        self.image_shape, self.left_out = source.image_shape, dict(source.left_out)
        self.labels = None if source.labels is None else self._labels[source.labels]

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        example = self._source[index]
        if "label" in example:
            self._translated(np.array([example["label"]]), [index])
        return renumbered(example, self._source, self._labels, self.num_classes)

    def name_of(self, index: int) -> str:
        """Return what the underlying source calls it."""
        return self._source.name_of(index)

    def take(self, indices: np.ndarray) -> Example | None:
        """Return several records stacked, if the underlying source can."""
        if not USUAL.issuperset(self.fields):
            return None
        whole = self._source.take(indices)
        if whole and "label" in whole:
            return {**whole, "label": self._translated(np.asarray(whole["label"]), indices)}
        return whole

    def order(self, positions: np.ndarray, seed: int) -> np.ndarray:
        """Return what the source says."""
        return self._source.order(positions, seed)

    def fingerprint(self) -> str:
        """Return a checksum of the source and of what its labels are."""
        return digest(self._source.fingerprint(), self._labels)

    def _translated(self, labels: np.ndarray, indices: Sequence[int] | np.ndarray) -> np.ndarray:
        bad = np.flatnonzero((labels < 0) | (labels >= len(self._labels)))
        if len(bad):
            record = self._source.name_of(int(indices[bad[0]]))
            raise DataError(label_message(record, labels[bad[0]], len(self._labels)))
        return self._labels[labels]


def some(names: Sequence[str], most: int = _SHOWN) -> str:
    """Return some names in words."""
    rest = len(names) - most
    return ", ".join(map(repr, names[:most])) + (f" and {rest} more" if rest > 0 else "")


def _identity(data: Sequence[str], notice: str) -> Match:
    return Match(np.arange(len(data), dtype=np.int32), notice)


def _classes(names: Sequence[str]) -> str:
    return f"{len(names)} class{'es' * (len(names) != 1)}"
