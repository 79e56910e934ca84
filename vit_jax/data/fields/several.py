"""Several labels or values of an image as people write them, to arrays: names decide, never positions in a list."""

import json
import math
import re
from collections.abc import Callable, Iterable, Sequence
from numbers import Number
from typing import Any, NamedTuple

import numpy as np

from vit_jax.data.labels import checked_names, in_order, index_of, is_missing, item, plain, unknown
from vit_jax.errors import DataError

UNKNOWN = -1  # of a label, where numbers are whole
JSON = "json"
# What spreadsheets and every language write; Python's own float also takes 1_000, inf and digits of other scripts.
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?")
_YES, _NO = ("1", "1.0", "true", "yes"), ("0", "0.0", "false", "no")


class Targets(NamedTuple):
    """Targets of all records.

    Attributes:
      values: labels int8 `(n, c)` (1, 0, or `UNKNOWN`), or values float32 `(n, k)` (NaN is unknown).
      names: of classes or values, in order of the columns.
      named: False where the names are numbers made up here.
    """

    values: np.ndarray
    names: tuple[str, ...]
    named: bool


def listed(
    lists: Iterable[Any],
    class_names: Iterable[Any] | None = None,
    name: str = "the labels",
    record: Callable[[int], str] | None = None,
) -> Targets:
    """Return lists of labels as which class each record has.

    Args:
      lists: of each record the names of its classes, or their whole numbers from 0; an empty list is none of them.
      class_names: in order; by default those there are, sorted, or the numbers up to the largest.
      name: what messages call where they come from.
      record: what they call a record.

    Raises:
      DataError: a record has no list, or a label is missing, is neither, or is no class; the record is named.
    """
    said = record or (lambda index: f"record {index} of {name}")
    rows = [_row(labels, said, index) for index, labels in enumerate(lists)]
    names = None if class_names is None else checked_names(class_names, name)
    kinds = {type(label) for row in rows for label in row}
    if len(kinds) > 1:
        raise DataError(f"labels of {name} mix names and numbers; give names for all records.")
    if names is None and kinds == {int}:
        highest = max(label for row in rows for label in row)
        if highest > sum(map(len, rows)):  # before there is memory for it
            raise DataError(
                f"{name} has label {highest}, but not that many different labels; give class_names."
            )
        names = tuple(map(str, range(highest + 1)))
        return Targets(_hot(rows, names, said, lambda label: label), names, False)
    if names is None:
        names = checked_names(in_order({label for row in rows for label in row}), name)
    if not names:
        raise DataError(f"no record of {name} has a label; give each record the names of its classes.")
    number = {str(index): index for index in range(len(names))} if kinds == {int} else index_of(names)
    return Targets(_hot(rows, names, said, lambda label: number.get(str(label), -1)), names, True)


def of_records(
    labels: Sequence[Any],
    class_names: Iterable[Any] | None = None,
    name: str = "the labels",
    record: Callable[[int], str] | None = None,
) -> Targets:
    """Return several labels of each record, which are lists of names or numbers, or rows of booleans or floats.

    Args:
      labels: see `listed`; an array `(n, c)`, or rows of booleans or floats, are what `hot` takes.
      class_names, name, record: see `listed`.

    Raises:
      DataError: see `listed` and `hot`.
    """
    if getattr(labels, "ndim", 0) == 2:
        return hot(labels, class_names, name)
    first: Any = next((row for row in labels if not isinstance(row, str) and np.size(row)), None)
    if first is not None and np.asarray(first).dtype.kind in "bf":
        rows = [np.asarray(row) for row in labels]
        if {row.shape for row in rows} == {np.shape(first)} and np.ndim(first) == 1:
            return hot(np.stack(rows), class_names, name)
    return listed(labels, class_names, name, record)


def split_text(cell: Any, separator: str) -> Any:
    """Return a cell of a table as a list of labels; what is a list already stays.

    Args:
      cell: `cat|dog`; an empty text is an empty list.
      separator: between labels, or `json` for cells like `["cat", "dog"]`.

    Raises:
      DataError: it is no JSON list.
    """
    if not isinstance(cell, str):
        return cell
    if separator != JSON:
        return [label for part in cell.split(separator) if (label := part.strip())]
    try:
        labels = json.loads(cell or "[]")
    except ValueError as error:
        raise DataError(f"{cell!r:.60} is not JSON: {error}.") from error
    if not isinstance(labels, list):
        raise DataError(f"{cell!r:.60} is not a JSON list of labels.")
    return labels


def hot(array: Any, class_names: Iterable[Any] | None = None, name: str = "the labels") -> Targets:
    """Return an array of which class each record has.

    Args:
      array: `(n, c)` of 0 and 1, or booleans; -1 or NaN is unknown.
      class_names: in order of its columns; numbers by default.
      name: what messages call it.

    Raises:
      DataError: it is something else; the record is named.
    """
    array = np.asarray(array)
    if array.ndim != 2 or array.dtype.kind not in "biuf":
        raise DataError(
            f"labels of {name} have shape {array.shape} of {array.dtype}; it must be (n, c) of 0 and 1."
        )
    numbers = np.where(np.isnan(array), UNKNOWN, array) if array.dtype.kind == "f" else array.astype(np.int64)
    wrong = np.argwhere(~np.isin(numbers, (0, 1, UNKNOWN)))
    if len(wrong):
        row, column = wrong[0]
        raise DataError(
            f"record {row} of {name} has {array[row, column]} for class {column}; it must be 0, 1, or NaN where "
            "that is unknown."
        )
    names, named = _names(class_names, array.shape[1], name, "classes")
    return Targets(_some_known(numbers.astype(np.int8), numbers != UNKNOWN, name), names, named)


def hot_cell(cell: Any) -> int:
    """Return a cell of a column of a class: 1, 0, or `UNKNOWN` where it is empty.

    Raises:
      DataError: it is something else.
    """
    # Not -1: some tables write 0 as that.
    if is_missing(cell) or (isinstance(cell, str) and cell.strip().lower() in ("", "nan")):
        return UNKNOWN
    text = str(cell).strip().lower()
    if text not in (*_YES, *_NO):
        raise DataError(f"{cell!r:.60}; it must be 1, 0, or empty where that is unknown.")
    return int(text in _YES)


def number_cell(cell: Any) -> float:
    """Return a cell of a column of values; NaN where it is empty, or a text that says that it is: nan, null, none.

    Args:
      cell: a number, or a decimal one as text: `-0.5`, `1e3`; not what only Python reads as one: `1_000`, `infinity`.

    Raises:
      DataError: it is no finite number.
    """
    if is_missing(cell) or (isinstance(cell, str) and cell.strip().lower() in ("", "nan", "null", "none")):
        return math.nan
    said = isinstance(cell, Number) and not isinstance(cell, bool)
    if said or (isinstance(cell, str) and _DECIMAL.fullmatch(cell.strip())):
        try:
            value = float(cell)  # type: ignore[arg-type]
        except (TypeError, OverflowError):  # complex; a whole number beyond floats
            value = math.inf
        if math.isfinite(value):
            return value
    raise DataError(f"{cell!r:.60}; it must be a finite decimal number, such as -0.5 or 1e3, or empty.")


def values(array: Any, names: Iterable[Any] | None = None, name: str = "the values") -> Targets:
    """Return an array of values.

    Args:
      array: `(n,)` or `(n, k)` numbers; NaN is unknown, but not all of a record.
      names: of the values, in order of its columns; `value`, or numbers, by default.
      name: what messages call it.

    Raises:
      DataError: it is something else; the record is named.
    """
    array = np.asarray(array)
    if array.ndim not in (1, 2) or array.dtype.kind not in "biuf" or 0 in array.shape[1:]:
        raise DataError(
            f"values of {name} have shape {array.shape} of {array.dtype}; give numbers, (n,) or (n, k)."
        )
    given = array.reshape(len(array), -1)
    array = given.astype(np.float32)
    wrong = np.flatnonzero(np.isinf(array).any(axis=1))
    if len(wrong):
        raise DataError(
            f"record {wrong[0]} of {name} has the value {array[wrong[0]].tolist()}; it must be finite."
        )
    _check_rounding(given, array, name)
    if names is None and array.shape[1] == 1:
        return Targets(_some_known(array, ~np.isnan(array), name), ("value",), False)
    return Targets(_some_known(array, ~np.isnan(array), name), *_names(names, array.shape[1], name, "values"))


def _check_rounding(given: np.ndarray, rounded: np.ndarray, name: str) -> None:
    """Raise `DataError` if float32 blurs how values of a column differ, as it does seconds since 1970."""
    for column, kept in zip(given.astype(np.float64).T, rounded.T):
        column, kept = column[~np.isnan(column)], kept[~np.isnan(column)]
        if not len(column) or column.min() == column.max():
            continue
        spread, lost = float(column.std()), float(np.abs(column - kept).max())
        if lost > spread / 1000:
            raise DataError(
                f"values of {name} run from {column.min():.12g} to {column.max():.12g}, which float32 rounds by "
                f"up to {lost:.2g}, too much for their deviation of {spread:.2g}; subtract their common offset."
            )


def _row(labels: Any, said: Callable[[int], str], index: int) -> list[Any]:
    if isinstance(labels, str | bytes) or not isinstance(labels, Iterable):
        missing = "no labels" if is_missing(labels) else f"labels {item(labels)!r:.60}"
        raise DataError(f"{said(index)} has {missing}; give a list of its classes, which may be empty.")
    row = [plain(label) for label in labels]
    for label in row:
        if type(label) is not int and not (isinstance(label, str) and label.strip()):
            raise DataError(
                f"{said(index)} has the label {label!r:.60}; it must be the name of a class or its number."
            )
    return row


def _hot(
    rows: Sequence[list[Any]],
    names: tuple[str, ...],
    said: Callable[[int], str],
    number: Callable[[Any], int],
) -> np.ndarray:
    result = np.zeros((len(rows), len(names)), np.int8)
    for index, row in enumerate(rows):
        for label in row:
            found = number(label)
            if not 0 <= found < len(names):
                raise DataError(f"{said(index)} has label {label!r}, which is {unknown(str(label), names)}")
            result[index, found] = 1
    return result


def _names(given: Iterable[Any] | None, count: int, name: str, what: str) -> tuple[tuple[str, ...], bool]:
    if given is None:
        return tuple(map(str, range(count))), False
    names = checked_names(given, name)
    if len(names) != count:
        raise DataError(f"{name} has {len(names)} names for {count} {what}; there must be as many.")
    return names, True


def _some_known(targets: np.ndarray, known: np.ndarray, name: str) -> np.ndarray:
    nothing = np.flatnonzero(~known.any(axis=1))
    if len(nothing):
        raise DataError(f"record {nothing[0]} of {name} has no known target; leave it out.")
    return targets
