"""The formats of tables, each read into the names of its columns and the values of some of them."""

import csv
import importlib.util
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from vit_jax.errors import ConfigError, DataError

_MAX_FIELD = 2**20  # characters

# Readers return the names of columns, and what yields the values of some of them.
Rows = Callable[[list[str]], Iterator[Sequence[Any]]]


def _csv(content: bytes, file: Path) -> tuple[list[str], Rows]:
    csv.field_size_limit(_MAX_FIELD)
    text = content.decode("utf-8-sig")
    # Spreadsheets write semicolons where the comma is in numbers. What is in quotes separates nothing.
    first = re.sub(r'"[^"]*"', "", re.split(r"[\r\n]", text, maxsplit=1)[0])
    delimiter = max(",;\t", key=first.count)
    reader = csv.reader(
        io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True
    )
    try:
        header = next(reader, [])
    except csv.Error as error:
        raise DataError(f"{file} is not CSV: {error}.") from error
    header = [name.strip() for name in header]

    def values(columns: list[str]) -> Iterator[Sequence[Any]]:
        places = [header.index(column) for column in columns]
        try:
            for number, row in enumerate((row for row in reader if row), 1):
                if len(row) != len(header):
                    raise DataError(
                        f"row {number} of {file} (line {reader.line_num}) has {len(row)} values for {len(header)} "
                        "columns; put values that contain a comma in double quotes."
                    )
                yield [row[place].strip() for place in places]
        except csv.Error as error:
            raise DataError(f"{file} is not CSV: line {reader.line_num}: {error}.") from error

    return header, values


def _json_lines(content: bytes, file: Path) -> tuple[list[str], Rows]:
    rows = []
    for number, line in enumerate(content.decode("utf-8-sig").split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise DataError(f"line {number} of {file} is not JSON: {error}.") from error
        if not isinstance(row, Mapping):
            raise DataError(
                f"line {number} of {file} is {line.strip()[:40]!r}; it must be an object on one line."
            )
        rows.append(row)
    there = list(dict.fromkeys(key for row in rows for key in row))

    def values(columns: list[str]) -> Iterator[Sequence[Any]]:
        return ([row.get(column) for column in columns] for row in rows)

    return there, values


def _parquet(content: bytes, file: Path) -> tuple[list[str], Rows]:
    if importlib.util.find_spec("pyarrow") is None:
        raise ConfigError(
            f"{file} is Parquet, which needs pyarrow, and that is not installed; run pip install pyarrow, or give "
            ".csv or .jsonl."
        )
    import pyarrow
    import pyarrow.parquet

    try:
        opened = pyarrow.parquet.ParquetFile(io.BytesIO(content))
        there = opened.schema_arrow.names
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"{file} is not Parquet: {str(error).partition(chr(10))[0]}.") from error

    def values(columns: list[str]) -> Iterator[Sequence[Any]]:
        try:
            table = opened.read(columns=columns)
        except (pyarrow.ArrowException, OSError) as error:
            raise DataError(f"{file} is damaged: {str(error).partition(chr(10))[0]}.") from error
        return zip(*(table.column(column).to_pylist() for column in columns))

    return there, values


READERS: dict[str, Callable[[bytes, Path], tuple[list[str], Rows]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".jsonl": _json_lines,
    ".parquet": _parquet,
}
