"""Rows to a CSV, JSON-lines or Parquet file, as they come: memory does not grow with their number."""

import csv
import importlib.util
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from vit_jax.errors import ConfigError, nearest
from vit_jax.evaluation.finite import finite
from vit_jax.paths import Named, check_output, expanded

if TYPE_CHECKING:
    from vit_jax.objectives.outputs.base import Columns

Value = str | int | float | None
Row = Mapping[str, Value | list[Value]]
_ROWS = 4096  # of Parquet that wait to be written together


class Table(Protocol):
    """Where rows go."""

    def write(self, row: Row) -> None:
        """Write a row; a column that it lacks is empty, as None is.

        Raises:
          ValueError: it has a column that the table has not.
        """
        ...


def check_table(path: Named, what: str = "--output") -> Path:
    """Return the path of a table, if one can be written under such a name; costs nothing.

    Args:
      path: ends with `.csv`, `.jsonl` or `.parquet`.
      what: names it in the message.

    Raises:
      ConfigError: it ends otherwise, is a folder, or Parquet lacks its library.
    """
    checked = check_output(path, what)
    ending = checked.suffix.lower()
    if ending not in _FORMATS:
        raise ConfigError(
            f"{what} is {str(path)!r}; it must end with {', '.join(_FORMATS)}.{nearest(ending, _FORMATS)}"
        )
    if os.path.isdir(checked):
        raise ConfigError(f"{what} is {str(path)!r}, which is a folder; give the name of a file.")
    if ending == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            f"{what} is {str(path)!r}, and Parquet needs pyarrow, which is not installed; run pip install "
            "pyarrow, or write .csv or .jsonl."
        )
    return checked


def is_folder(path: str) -> bool:
    """Return whether a path means a folder: one that is there, or a name without an ending."""
    path = expanded(path)
    return os.path.isdir(path) or not Path(path).suffix


def check_target(path: str) -> None:
    """Raise `ConfigError` unless predictions can be written to a path, a table's or a folder's; costs nothing."""
    if is_folder(path):
        check_output(path, "--output")
    else:
        check_table(path)


@contextmanager
def open_table(path: Named, columns: "Columns", what: str = "--output") -> Iterator[Table]:
    """Give a table whose rows go to a file, which appears when it is complete.

    A list is one value in JSON lines and Parquet. In CSV it is a column for each of its values, of its own name; where
    they have none, or one of these is another column's name, `name_1`, `name_2`, ... A number that is not finite is
    null in JSON, which has no other word for it.

    Args:
      path: see `check_table`.
      columns: the type of each, in order: `{"image": str, "classes": (str, 5)}`.
      what: names the path in messages.

    Raises:
      ConfigError: see `check_table`.
      ResourceError: the file cannot be written.
    """
    from vit_jax.weights.formats.tensors import replacing  # imports much, and a wrong name is told at once

    checked = check_table(path, what)
    with replacing(checked) as temporary, _FORMATS[checked.suffix.lower()](temporary, columns) as table:
        yield table


@contextmanager
def _csv(path: Path, columns: "Columns") -> Iterator[Table]:
    names = _header(columns)

    class Csv:
        def write(self, row: Row) -> None:
            cells: list[Value] = []
            for name, spread in names.items():
                value = row.get(name)
                values = value if isinstance(value, list) else [value]
                cells += [*values, *[None] * (len(spread) - len(values))]
            writer.writerow([_text(cell) for cell in cells])

    with open(path, "w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow([_storable(column) for spread in names.values() for column in spread])
        yield _Checked(Csv(), columns)


def _header(columns: "Columns") -> Mapping[str, Sequence[str]]:
    """Return what the columns of CSV are called that each column is spread over; no two are called the same."""
    numbered = {
        name: [name] if isinstance(kind, type) else [f"{name}_{i + 1}" for i in range(_most(kind))]
        for name, kind in columns.items()
    }
    own = {
        name: kind[1]
        for name, kind in columns.items()
        if isinstance(kind, tuple) and isinstance(kind[1], tuple)
    }
    named = numbered | own
    whole = [column for spread in named.values() for column in spread]
    return named if len(set(whole)) == len(whole) else numbered


def _most(kind: type | tuple[type, int | tuple[str, ...]]) -> int:
    """Return of how many values a list is at most; 0 of what is no list."""
    if isinstance(kind, type):
        return 0
    return kind[1] if isinstance(kind[1], int) else len(kind[1])


@contextmanager
def _jsonl(path: Path, columns: "Columns") -> Iterator[Table]:
    class Jsonl:
        def write(self, row: Row) -> None:
            file.write(json.dumps(finite(row), ensure_ascii=False, allow_nan=False) + "\n")

    with open(path, "w", encoding="utf-8", newline="\n") as file:
        yield _Checked(Jsonl(), columns)


@contextmanager
def _parquet(path: Path, columns: "Columns") -> Iterator[Table]:
    import pyarrow
    import pyarrow.parquet

    kinds = {str: pyarrow.string(), int: pyarrow.int64(), float: pyarrow.float64()}
    schema = pyarrow.schema(
        [
            (name, kinds[kind] if isinstance(kind, type) else pyarrow.list_(kinds[kind[0]]))
            for name, kind in columns.items()
        ]
    )
    waiting: list[Row] = []

    class Parquet:
        def write(self, row: Row) -> None:
            waiting.append(row)
            if len(waiting) == _ROWS:
                flush()

    with pyarrow.parquet.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(pyarrow.Table.from_pylist(waiting, schema))
            waiting.clear()

        yield _Checked(Parquet(), columns)
        flush()


class _Checked:
    """Rows of the declared columns alone, in their order, as text that UTF-8 can hold."""

    def __init__(self, table: Table, columns: "Columns"):
        self._table, self._columns = table, columns

    def write(self, row: Row) -> None:
        other = row.keys() - self._columns.keys()
        if other:
            raise ValueError(f"a row has {min(other)!r}; the columns are {', '.join(self._columns)}")
        for name, kind in self._columns.items():
            value = row.get(name)
            if isinstance(value, list) and len(value) > _most(kind):
                raise ValueError(f"a row has {len(value)} values of {name!r}; the limit is {_most(kind)}")
        self._table.write({name: _storable(row.get(name)) for name in self._columns})


def _storable(value: Any) -> Any:
    """Return text without halves of surrogate pairs, which is how Python keeps bytes of names that are no text."""
    if isinstance(value, list):
        return [_storable(one) for one in value]
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _text(value: Value) -> str:
    return "" if value is None else str(value)


_FORMATS = {".csv": _csv, ".jsonl": _jsonl, ".parquet": _parquet}
