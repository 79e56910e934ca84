"""Which class each number in a label map means, as whoever drew the maps has written it down."""

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vit_jax.errors import DataError, is_printable, nearest
from vit_jax.paths import read_file

IGNORE = 255  # what nearly everybody writes for pixels that do not count
FILES = ("classes.json", "classes.txt")
_KEYS = ("names", "ignore", "reduce_zero")
_SHOWN = 5
_MOST = 2**16  # classes, and the largest id
_MOST_BYTES = 2**24


@dataclass(frozen=True)
class ClassTable:
    """The classes of label maps.

    Attributes:
      names: of the classes, in order.
      ids: what stands for each of them in a map.
      ignored: what stands for pixels that do not count.
      origin: what messages call it.
    """

    names: tuple[str, ...]
    ids: tuple[int, ...]
    ignored: tuple[int, ...] = (IGNORE,)
    origin: str = "the classes"
    _numbers: np.ndarray = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.names:
            raise DataError(f"{self.origin} has no class; name at least one.")
        for name in self.names:
            if not isinstance(name, str) or not name or not is_printable(name):
                raise DataError(f"{self.origin} has a class {name!r}; names must be strings of one line.")
        for values, what in ((self.names, "class"), (self.ids, "id"), (self.ignored, "ignored id")):
            twice = [value for i, value in enumerate(values) if value in values[:i]]
            if twice:
                raise DataError(f"{self.origin} has the {what} {twice[0]!r} twice; each may occur only once.")
        for value in (*self.ids, *self.ignored):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < _MOST:
                raise DataError(f"{self.origin} has the id {value!r}; ids are whole numbers below {_MOST:,}.")
        both = set(self.ids).intersection(self.ignored)
        if both:
            name = self.names[self.ids.index(min(both))]
            raise DataError(
                f"{self.origin}: id {min(both)} is both class {name!r} and ignored; it can be only one of these."
            )
        numbers = np.full(max(*self.ids, *self.ignored, 0) + 1, -2, np.int32)
        numbers[list(self.ids)] = np.arange(len(self.ids))
        numbers[list(self.ignored)] = -1
        object.__setattr__(self, "_numbers", numbers)

    def numbers(self, ids: np.ndarray) -> np.ndarray:
        """Return a label map with the number of each pixel's class, -1 where it does not count.

        Args:
          ids: int32 `(h, w)`, as in the file.

        Raises:
          DataError: an id is not in the table.
        """
        if ids.size and ids.min() >= 0 and ids.max() < len(self._numbers):
            found = self._numbers[ids]
            if found.min() >= -1:
                return found
        there = np.unique(ids).tolist()
        unknown = [value for value in there if value not in self.ids and value not in self.ignored]
        more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
        remedy = "add them to its names, or to ignore"
        if unknown == [len(self.ids)] and self.ids == tuple(range(len(self.ids))):
            remedy = f"if 0 is not a class and ids run from 1 to {len(self.ids)}, set reduce_zero"
        elif unknown == [0] and min(self.ids) == 1:
            remedy = "if 0 is not a class, set reduce_zero or add 0 to ignore"
        raise DataError(
            f"ids {', '.join(map(str, unknown[:_SHOWN]))}{more} of the mask are not in {self.origin}, which has "
            f"{_span(self.ids)} and ignores {_span(self.ignored)}; {remedy}."
        )


def read_table(path: str | os.PathLike[str]) -> ClassTable:
    """Return the table of a file.

    A text file has a name in each line: that of id 0, 1 and so on. JSON has a list of names, or an object: `names` is
    such a list, or an object of id and name; `ignore` one id or several, by default 255; with `reduce_zero` id 0 does
    not count, and the first name is that of id 1, as in ADE20K.

    Raises:
      DataError: the file cannot be read as one of these.
    """
    origin = os.fspath(path)
    try:
        text = read_file(path, _MOST_BYTES).decode()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{origin}, the table of classes, cannot be read: {error}.") from error
    if not origin.lower().endswith(".json"):
        return table_of([line.strip() for line in text.strip().splitlines()], origin)
    try:
        content = json.loads(text)
    except ValueError as error:
        raise DataError(f"{origin}, the table of classes, is not JSON: {error}.") from error
    return _from_json(content, origin)


def table_of(names: Sequence[Any], origin: str = "data.classes") -> ClassTable:
    """Return the table of names alone: their ids are 0, 1 and so on, and 255 does not count."""
    ignored = () if len(names) > IGNORE else (IGNORE,)
    return ClassTable(tuple(names), tuple(range(len(names))), ignored, origin)


def _from_json(content: Any, origin: str) -> ClassTable:
    if isinstance(content, list):
        return table_of(content, origin)
    if not isinstance(content, dict) or "names" not in content:
        raise DataError(f"{origin} must be a list of names, or an object with {', '.join(_KEYS)}.")
    for key in content:
        if key not in _KEYS:
            raise DataError(
                f"{origin} has the key {key!r}; its keys are {', '.join(_KEYS)}.{nearest(key, _KEYS)}"
            )
    names, ignore = content["names"], content.get("ignore", IGNORE)
    reduced = content.get("reduce_zero", False)
    if not isinstance(reduced, bool):
        raise DataError(f"{origin}: reduce_zero is {reduced!r}; it must be true or false.")
    ignored = [*ignore] if isinstance(ignore, list) else [] if ignore is None else [ignore]
    if isinstance(names, list):
        ids = [index + reduced for index in range(len(names))]
    elif isinstance(names, dict) and all(key.isdecimal() for key in names):
        if reduced:
            raise DataError(f"{origin} gives each name an id; leave reduce_zero out and add 0 to ignore.")
        ids, names = [int(key) for key in names], [*names.values()]
    else:
        raise DataError(
            f"{origin}: names is {names!r:.60}; it must be a list, or an object of ids and names."
        )
    if reduced and 0 not in ignored:
        ignored.insert(0, 0)
    if "ignore" not in content:  # nobody said that the default does not count
        ignored = [value for value in ignored if value not in ids]
    return ClassTable(tuple(names), tuple(ids), tuple(ignored), origin)


def _span(ids: tuple[int, ...]) -> str:
    """Return `0 to 149`, or what there is."""
    if len(ids) > 2 and max(ids) - min(ids) + 1 == len(ids):
        return f"{min(ids)} to {max(ids)}"
    return ", ".join(map(str, sorted(ids)[:_SHOWN])) + ", ..." * (len(ids) > _SHOWN) if ids else "none"
