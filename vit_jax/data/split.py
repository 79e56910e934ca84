"""Parts of a split, written as tfds writes them: `train[:99%]`, `train[100:200]`."""

import re

import numpy as np

from vit_jax.data.base import Selection, Source
from vit_jax.data.order import shuffled
from vit_jax.errors import ConfigError, DataError

_SLICE = re.compile(r"([^\[\]]+)\[(-?\d+%?)?:(-?\d+%?)?\]")


def parse_split(text: str) -> tuple[str, str | None, str | None]:
    """Return the name of a split and where its part begins and ends, None for the beginning and the end.

    Raises:
      ConfigError: not such a text.
    """
    if "[" not in text and "]" not in text:
        return text, None, None
    match = _SLICE.fullmatch(text)
    if match is None:
        raise ConfigError(f"split is {text!r}; write 'train', 'train[:99%]' or 'train[100:200]'.")
    return match[1], match[2], match[3]


def part_of(source: Source, text: str) -> Source:
    """Return the part of a source that a split names.

    Records are counted in a fixed random order, because sources may be sorted by class: so `train[:99%]` and
    `train[99%:]` have records of every class and none in common. Bounds in percent are rounded to the nearest record.

    Args:
      source: the whole split.
      text: as given to `parse_split`.

    Raises:
      ConfigError: not such a text.
      DataError: the part is empty.
    """
    _, first, last = parse_split(text)
    if first is None and last is None:
        return source
    count = len(source)
    start, stop = bound(first or "0%", count), bound(last or "100%", count)
    if start >= stop:
        raise DataError(f"split {text!r} has no record; the whole has {count}.")
    return Selection(source, np.sort(shuffled(np.arange(start, stop), count, seed=0)))


def bound(text: str, count: int) -> int:
    """Return the record that one end of a slice means, between 0 and `count`: `99%`, `100` or `-100`."""
    number = round(int(text[:-1]) * count / 100) if text.endswith("%") else int(text)
    return min(max(number + count if number < 0 else number, 0), count)
