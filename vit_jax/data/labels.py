"""Labels as people write them, numbers or names, to numbers from 0."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

import numpy as np

from vit_jax.errors import DataError, is_printable, nearest

_SHOWN = 5


class Numbered(NamedTuple):
    """Labels and what they mean.

    Attributes:
      labels: int32 `(n,)`, from 0.
      class_names: in order of label.
      named: False where the names are the labels' own numbers, which say nothing.
    """

    labels: np.ndarray
    class_names: tuple[str, ...]
    named: bool


def numbered(
    labels: Iterable[Any], class_names: Iterable[Any] | None = None, name: str = "the labels"
) -> Numbered:
    """Return whole numbers as they are and names as the index of their class.

    Args:
      labels: whole numbers from 0, or texts; all of one kind.
      class_names: in order of label; by default what there is, sorted, or the numbers up to the largest.
      name: what messages call where the labels come from.

    Raises:
      DataError: a label is missing, is neither, or is not a class; numbers have gaps and no names.
    """
    values = [*map(plain, values_of(labels, name))]
    names = None if class_names is None else checked_names(class_names, name)
    if all(type(value) is int for value in values):
        numbers = np.array(values, np.int64)
        if names is None:
            names = tuple(map(str, range(_count(numbers, name))))
            return Numbered(numbers.astype(np.int32), names, False)
        bad = np.flatnonzero((numbers < 0) | (numbers >= len(names)))
        if len(bad):
            raise DataError(
                f"record {bad[0]} of {name} has label {numbers[bad[0]]}; labels must be from 0 to {len(names) - 1} "
                f"({len(names)} classes)."
            )
        return Numbered(numbers.astype(np.int32), names, not _counted(names))
    for index, value in enumerate(values):
        if not isinstance(value, str):
            raise DataError(_no_label(index, value, name))
    return by_name(values, names, name)


def by_name(
    labels: Iterable[Any], class_names: Sequence[str] | None = None, name: str = "the labels"
) -> Numbered:
    """Return labels as the index of their class among all classes, numbers as names too.

    Args:
      labels: texts or whole numbers, whose names are their digits.
      class_names: in order of label; by default what there is, sorted: as numbers if all are whole numbers.
      name: what messages call where the labels come from.

    Raises:
      DataError: a label is missing, is neither, or is not a class.
    """
    values = [*map(plain, values_of(labels, name))]
    for index, value in enumerate(values):
        if not (type(value) is int or (isinstance(value, str) and value.strip())):
            raise DataError(_no_label(index, value, name))
    texts = list(map(str, values))
    names = checked_names(in_order(set(texts)), name) if class_names is None else tuple(class_names)
    number = index_of(names)
    for index, text in enumerate(texts):
        if text not in number:
            raise DataError(f"record {index} of {name} has label {text!r}, which is {unknown(text, names)}")
    return Numbered(np.array([number[text] for text in texts], np.int32), names, not _counted(names))


def unknown(label: str, class_names: Sequence[str]) -> str:
    """Return what to say of a name that is not in `index_of`."""
    if label in class_names:
        return "the name of several classes; rename them."
    return f"none of the {len(class_names)} classes ({_listed(class_names)}).{nearest(label, class_names)}"


def in_order(names: Iterable[str]) -> list[str]:
    """Return names sorted; as numbers if all are whole numbers, so that 10 comes after 9."""
    names = list(names)
    if all(name.isascii() and name.removeprefix("-").isdecimal() and len(name) < 19 for name in names):
        return sorted(names, key=lambda name: (int(name), name))
    return sorted(names)


def checked_names(class_names: Iterable[Any], name: str) -> tuple[str, ...]:
    """Return names of classes as text.

    Raises:
      DataError: two are the same, or one cannot be printed on one line.
    """
    if isinstance(class_names, str | bytes):
        raise DataError(f"class names of {name} are {class_names!r}; they must be a sequence, one per class.")
    names = tuple(map(str, class_names))
    for text in names:
        if not text or not is_printable(text):
            raise DataError(f"{name} has a class {text!r}, which cannot be printed on one line; rename it.")
    return names


def index_of(class_names: Sequence[str]) -> dict[str, int]:
    """Return the label of each class by name, without names that several classes have, as ImageNet's do."""
    counts = Counter(class_names)
    return {text: index for index, text in enumerate(class_names) if counts[text] == 1}


def values_of(labels: Any, name: str = "the labels") -> list[Any]:
    """Return labels as Python's own values: of an array of any library, a list, an iterator, a column of pandas.

    Raises:
      DataError: there is not one label for each image.
    """
    shape = tuple(labels.shape) if hasattr(labels, "shape") else None
    first = next(iter(labels), None) if isinstance(labels, list | tuple) else None
    if (
        (shape is not None and len(shape) > 1)
        or isinstance(first, list | tuple)
        or getattr(first, "shape", ())
    ):
        raise DataError(
            f"labels of {name} are several per image{f', {shape}' if shape else ''}; give one per image, (n,), or "
            "use objective 'multi_label'."
        )
    if isinstance(labels, str | bytes | Mapping | Set) or not isinstance(labels, Iterable) or shape == ():
        raise DataError(f"labels of {name} are {labels!r:.60}; give a sequence, one per image.")
    return labels.tolist() if isinstance(labels, np.ndarray) else [item(label) for label in labels]


def item(label: Any) -> Any:
    """Return a label as Python's own value, where it is a number or an array of no dimension of some library."""
    scalar = isinstance(label, np.generic) or (hasattr(label, "item") and np.ndim(label) == 0)
    return label.item() if scalar else label


def is_missing(value: Any) -> bool:
    """Return whether a label is none: None, an empty text, a NaN or whatever else a library has for it."""
    if value is None or isinstance(value, str):
        return not value
    if getattr(value, "shape", ()):
        return False
    try:
        return bool(value != value)
    except TypeError:  # pandas's NA does not say
        return True


def plain(label: Any) -> Any:
    """Return a label as Python's own int or str, None for what is missing, anything else as it is."""
    value = item(label)
    return str(value) if isinstance(value, bool) else value


def _no_label(index: int, value: Any, name: str) -> str:
    return (
        f"record {index} of {name} has {'no label' if is_missing(value) else f'label {value!r:.60}'}; give every "
        "record a whole number or every record the name of its class, or leave it out."
    )


def _count(numbers: np.ndarray, name: str) -> int:
    """Return how many classes labels without names mean."""
    if not len(numbers):
        return 0
    low, high = int(numbers.min()), int(numbers.max())
    if low < 0:
        raise DataError(
            f"record {int(numbers.argmin())} of {name} has label {low}; labels must start at 0, or be names."
        )
    # Before there is memory for it: a label of a billion is a slip.
    if high >= len(numbers) or not np.bincount(numbers, minlength=high + 1).all():
        there = set(numbers.tolist())
        gap = next(label for label in range(high) if label not in there)
        raise DataError(
            f"labels of {name} are from {low} to {high}, but none is {gap}; number the classes from 0 without "
            "gaps, or give class_names."
        )
    return high + 1


def _counted(names: Sequence[str]) -> bool:
    return all(name == str(index) for index, name in enumerate(names))


def _listed(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN
    return ", ".join(names[:_SHOWN]) + (f" and {more} more" if more > 0 else "")
