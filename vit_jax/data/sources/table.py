"""Tables of image files with their labels or values: CSV, JSON lines or Parquet."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from vit_jax.data.base import Source
from vit_jax.data.fields import several
from vit_jax.data.fields.targeted import Targeted
from vit_jax.data.labels import by_name
from vit_jax.data.sources.files import FileSource
from vit_jax.data.sources.folder import ALL, SPLIT_NAMES, held_out
from vit_jax.data.split import parse_split
from vit_jax.data.table_formats import READERS, Rows
from vit_jax.errors import DataError, choose, nearest
from vit_jax.paths import expanded, read_file

MAX_BYTES = 2**30  # of a table
_WHOLE = ("labels", "metadata")  # what a table beside its images is called that is no split


class Columns(NamedTuple):
    """Names of the columns of paths, of labels and of splits; empty ones are `path`, `label` and, if there, `split`.

    Attributes:
      image, label, split: one column each.
      labels: columns of a class each, with 1, 0, or nothing where that is unknown; instead of `label`.
      values: columns of a number each; instead of `label`.
      separator: between the labels of an image in the column `label`, or `json` for lists; empty for one label each.
    """

    image: str = ""
    label: str = ""
    split: str = ""
    labels: tuple[str, ...] = ()
    values: tuple[str, ...] = ()
    separator: str = ""

    @property
    def targets(self) -> tuple[str, ...]:
        """The columns of what an image has."""
        return self.values or self.labels or (self.label or "label",)

    @classmethod
    def of(cls, section: Any) -> "Columns":
        """Return what a section `data`, or a part of a mixture, says."""
        return cls(
            section.image_column,
            section.label_column,
            section.split_column,
            tuple(section.label_columns),
            tuple(section.value_columns),
            section.label_separator,
        )


DEFAULT = Columns()


class Row(NamedTuple):
    """An image: its path, its label, labels or values, and its split, if the table says it."""

    file: str
    label: Any
    split: str | None


def open_section(section: Any, split: str, shape: Any) -> Source:
    """Return what `data.source='table'` means; the classes are those of training."""
    return open_table(section.path, split, parse_split(section.train_split)[0].name, Columns.of(section))


def open_table(path: str, split: str, reference: str = "train", columns: Columns = DEFAULT) -> Source:
    """Return the images of a split of a table, in the order of its rows.

    Paths are absolute or relative to the folder of the table. Labels are names of classes or whole numbers, which are
    names too: classes are sorted, as numbers where all are whole numbers. A table without a column of splits is divided
    as a folder without split folders is, `all` included, see `FolderSource`.

    Args:
      path: `.csv`, `.tsv`, `.jsonl` or `.parquet`, or a folder with one of them for each split, `train.csv`, `val.csv`,
        or with one alone that is called `labels` or `metadata`.
      split: which.
      reference: the split whose classes count, if it is there.
      columns: their names.

    Raises:
      ConfigError: Parquet, without the library for it.
      DataError: the table or a column is missing, or a row is not as it must be; it is named.
    """
    splits = table_splits(path, columns, sums=True)
    folder = expanded(path) if os.path.isdir(expanded(path)) else os.path.dirname(expanded(path))
    name = same_split(split, splits)
    if name is None:
        undivided = os.path.isfile(expanded(path)) and all(rows[0].split is None for rows in splits.values())
        if undivided and "test" not in splits and same_split(split, ["test"]):
            raise DataError(
                f"{path} has no column of splits, and too few rows ({len(next(iter(splits.values())))}) to hold out "
                "any as 'test'; add rows, or a column 'split'."
            )
        raise DataError(
            f"{path} has no split {split!r}; it has {', '.join(splits)}: set data.train_split and data.eval_split."
            f"{nearest(split, splits)}"
        )
    where = f"split {name!r} of {path}"
    rows, of_classes = splits[name], splits[same_split(reference, splits) or name]
    return _source(rows, of_classes, columns, folder, where)


def _source(
    rows: list[Row], of_classes: list[Row], columns: Columns, folder: str, where: str
) -> FileSource | Targeted:
    """Return the images of rows with what they have; the classes are those of `of_classes`."""
    files, labels = [row.file for row in rows], [row.label for row in rows]
    if columns.values:
        found = several.values(np.array(labels), columns.values, where)
    elif columns.labels:
        found = several.hot(np.array(labels), columns.labels, where)
    elif not isinstance(labels[0], tuple):
        names = None
        if of_classes is not rows:
            names = by_name([row.label for row in of_classes], name=where).class_names
        return FileSource(files, by_name(labels, names, where), folder, where)
    else:
        names = (
            None
            if of_classes is rows
            else several.listed((row.label for row in of_classes), None, where).names
        )
        found = several.listed(labels, names, where, lambda index: f"{files[index]} in {where}")
    field = "value" if columns.values else "labels"
    return Targeted(FileSource(files, None, folder, where), field, found, where)


def table_splits(path: str, columns: Columns = DEFAULT, *, sums: bool = False) -> dict[str, list[Row]]:
    """Return the rows of each split of a table, or of the tables of a folder.

    Args:
      path, columns: see `open_table`.
      sums: whether `all`, which holds the others, is among the splits of a table that does not say them.

    Raises:
      VitError: see `open_table`.
    """
    root = Path(expanded(path))
    if not path or not os.path.exists(root):
        raise DataError(
            f"data.path is {str(path)!r}, which does not exist; give a table ({', '.join(READERS)})."
        )
    if os.path.isdir(root):
        files = sorted(file for file in os.listdir(root) if is_table(file) and not file.startswith("."))
        stems = [Path(file).stem for file in files]
        twice = [file for file in files if stems.count(Path(file).stem) > 1]
        if twice:
            raise DataError(f"{root} has {' and '.join(twice[:2])}, which mean the same split; remove one.")
        if not files:
            raise DataError(
                f"{root} has no table ({', '.join(READERS)}); put one there per split, such as train.csv."
            )
        if len(stems) == 1 and stems[0].lower() in _WHOLE:
            return table_splits(os.path.join(path, files[0]), columns, sums=sums)
        return {stem: _read(root / file, columns) for stem, file in zip(stems, files)}
    choose(root.suffix.lower(), READERS, f"the ending of {root}")
    rows = _read(root, columns)
    if rows[0].split is None:
        parts = ("train", "test", ALL) if sums else ("train", "test")
        return {part: kept for part in parts if (kept := _held_out(rows, part, str(root.parent)))}
    splits: dict[str, list[Row]] = {}
    for row in rows:
        splits.setdefault(row.split or "", []).append(row)
    return splits


def is_table(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is called as tables are."""
    return os.path.splitext(path)[1].lower() in READERS


def _held_out(rows: list[Row], split: str, folder: str) -> list[Row]:
    # By the file and not by how a row writes it: one file must not be trained on and held out.
    files = [os.path.relpath(_file(row, folder), folder) for row in rows]
    kept = set(held_out(files, split))
    return [row for row, file in zip(rows, files) if file in kept]


def _file(row: Row, folder: str) -> str:
    return os.path.normpath(os.path.join(folder, row.file))


def _check_labels(rows: list[Row], table: Path) -> None:
    """Raise `DataError` if rows of one split say different labels of one file."""
    seen: dict[tuple[str | None, str], str] = {}
    for row in rows:
        label = seen.setdefault((row.split, _file(row, str(table.parent))), row.label)
        if label != row.label:
            raise DataError(
                f"{table} has {row.file!r} twice, as {label!r} and as {row.label!r}; leave one out."
            )


def same_split(split: str, splits: Iterable[str]) -> str | None:
    """Return the split of that name, in any case, or of one that means the same: `val` and `validation`."""
    splits = list(splits)
    if split in splits:
        return split
    meant = next((names for names in SPLIT_NAMES if split.lower() in names), (split.lower(),))
    found = [name for name in splits if name.lower() in meant]
    if len(found) > 1:
        raise DataError(f"{' and '.join(found)} both mean the split {split!r}; name one of them.")
    return found[0] if found else None


def _read(file: Path, columns: Columns) -> list[Row]:
    """Return the checked rows of a table."""
    wanted = [columns.image or "path", *columns.targets]
    try:
        there, values = READERS[file.suffix.lower()](read_file(file, MAX_BYTES), file)
    except OSError as error:
        raise DataError(f"{file} cannot be read: {error.strerror or error}; check the path.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file} is not UTF-8 text ({error.reason}); save it as UTF-8.") from error
    split = columns.split or ("split" if "split" in there else "")
    wanted += [split] * bool(split)
    if not there:
        raise DataError(
            f"{file} is empty; give columns {', '.join(map(repr, wanted))} and one row per image."
        )
    for column in wanted:
        _check_column(file, column, there)
    rows = list(values(wanted)) if split else _without_splits(file, there, wanted, values)
    if not rows:
        raise DataError(f"{file} has no rows; give at least one image with its label.")
    checked = [_row(file, number, values, columns) for number, values in enumerate(rows, 1)]
    lists = [isinstance(row.label, tuple) for row in checked]
    if any(lists) != all(lists):
        raise DataError(
            f"rows 1 and {lists.index(not lists[0]) + 1} of {file} have a single label and a list of labels; give "
            "lists in all rows or in none."
        )
    _check_labels(checked, file)
    return checked


def _without_splits(file: Path, there: Sequence[str], wanted: list[str], values: Rows) -> list[Sequence[Any]]:
    """Return rows without a column of splits.

    Raises:
      DataError: there is one after all, by its name in other letters or by what is in it, and nobody has named it.
    """
    others = [column for column in dict.fromkeys(there) if column not in wanted and there.count(column) == 1]
    rows = list(values([*wanted, *others]))
    for place, column in enumerate(others, len(wanted)):
        said = {row[place].strip().lower() if isinstance(row[place], str) else row[place] for row in rows}
        splits = {name for names in SPLIT_NAMES for name in names}
        if column.strip().lower() == "split" or (said and said <= splits):
            raise DataError(
                f"{file} has a column {column!r} of {', '.join(sorted(map(repr, said))[:3])}; if these are "
                f"splits, set data.split_column={column}, else leave the column out."
            )
    return [row[: len(wanted)] for row in rows]


def _row(file: Path, number: int, values: Sequence[Any], columns: Columns) -> Row:
    path, targets, split = values[0], values[1 : 1 + len(columns.targets)], values[1 + len(columns.targets) :]
    for column, value in (("path", path), *[("split", name) for name in split]):
        if not isinstance(value, str) or not value.strip():
            raise DataError(f"row {number} of {file} has {value!r} as its {column}; it must be a string.")
    return Row(path, _target(file, number, targets, columns), split[0] if split else None)


def _target(file: Path, number: int, cells: Sequence[Any], columns: Columns) -> Any:
    """Return the label of a row, or a tuple of its labels or values."""
    if columns.values or columns.labels:
        found = []
        for column, cell in zip(columns.targets, cells):
            try:
                found.append(several.number_cell(cell) if columns.values else several.hot_cell(cell))
            except DataError as error:
                raise DataError(f"row {number} of {file} has in column {column!r} {error}") from error
        if all(x != x or (columns.labels and x == several.UNKNOWN) for x in found):
            raise DataError(
                f"row {number} of {file} has no value in {', '.join(map(repr, columns.targets))}; leave it out."
            )
        return tuple(found)
    (label,) = cells
    if columns.separator:
        try:
            label = several.split_text(label, columns.separator)
        except DataError as error:
            raise DataError(f"row {number} of {file}: {error}") from error
    if isinstance(label, list):
        for one in label:
            if not isinstance(one, str | int) or isinstance(one, bool) or not str(one).strip():
                raise DataError(
                    f"row {number} of {file} has label {one!r:.60}; it must be a string or a whole number."
                )
        return tuple(map(str, label))
    if isinstance(label, float) or label is None or (isinstance(label, str) and label.lower() in ("", "nan")):
        missing = label is None or label != label or isinstance(label, str)
        raise DataError(
            f"row {number} of {file} has {'no label' if missing else f'label {label}'}; give every row the name "
            "of its class or a whole number, or leave the row out."
        )
    if not isinstance(label, str | int):
        raise DataError(f"row {number} of {file} has label {label!r}; it must be a string or a whole number.")
    return str(label)


def _check_column(file: Path, column: str, there: Sequence[str]) -> None:
    if there.count(column) > 1:
        raise DataError(f"{file} has two columns {column!r}; rename one.")
    if column not in there:
        raise DataError(
            f"{file} has no column {column!r}, it has {', '.join(map(repr, there))}; name its columns with "
            f"data.image_column and data.label_column, label_columns or value_columns.{nearest(column, there)}"
        )
