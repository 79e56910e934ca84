"""Parts of splits and their sums, written as tfds writes them: `train[:99%]`, `train[:20%]+train[40%:]`."""

import re
from collections.abc import Callable, Sequence
from itertools import combinations, product
from typing import NamedTuple

import numpy as np

from vit_jax.data.base import Example, Selection, Source
from vit_jax.data.fingerprint import digest
from vit_jax.data.images.image_files import together
from vit_jax.data.order import shuffled
from vit_jax.errors import ConfigError, DataError

_MANY = 10**12  # records, of a set whose size is not known
_PART = re.compile(r"([^\[\]+]+)(?:\[(-?\d+%?)?:(-?\d+%?)?\])?")


class SplitPart(NamedTuple):
    """One summand: the records `first` to `last` of a split, None for its beginning and end."""

    name: str
    first: str | None
    last: str | None

    def bounds(self, count: int) -> tuple[int, int]:
        """Return the first record and the one after the last, of a split with so many."""
        return _bound(self.first or "0%", count), _bound(self.last or "100%", count)


def parse_split(text: str) -> tuple[SplitPart, ...]:
    """Return the parts that a split is the sum of.

    Raises:
      ConfigError: not such a text.
    """
    found = [_PART.fullmatch(part.strip()) for part in text.split("+")]
    parts = tuple(SplitPart(*match.groups()) for match in found if match is not None)
    if len(parts) < len(found):
        raise ConfigError(
            f"split is {text!r}; write 'train', 'train[:99%]' or 'train[100:200]', or a sum of these: "
            "'train[:20%]+train[40%:]'."
        )
    return parts


def open_split(text: str, whole: Callable[[str], Source]) -> Source:
    """Return the records that a split names.

    Records are counted in a fixed random order, because sources may be sorted by class: so `train[:99%]` and
    `train[99%:]` have records of every class and none in common. Bounds in percent are rounded to the nearest record.

    Args:
      text: as given to `parse_split`.
      whole: returns the source of a split by its name.

    Raises:
      ConfigError: not such a text.
      DataError: a part is empty, two have a record in common, or their classes differ.
    """
    parts = parse_split(text)
    wholes = {name: whole(name) for name in dict.fromkeys(part.name for part in parts)}
    _check_all(text, wholes)
    spans = [(part.name, *part.bounds(len(wholes[part.name]))) for part in parts]
    check_disjoint(text, [(_same(name, wholes), start, stop) for name, start, stop in spans])
    chosen = []
    for part, (name, start, stop) in zip(parts, spans):
        count = len(wholes[name])
        if part.first is None and part.last is None:
            chosen.append(wholes[name])
        elif start >= stop:
            raise DataError(f"split {text!r} has no record{_in(part, parts)}; the whole has {count}.")
        else:
            indices = np.sort(shuffled(np.arange(start, stop), count, seed=0))
            chosen.append(Selection(wholes[name], indices))
    if len(chosen) == 1:
        return chosen[0]
    added = Sum(chosen, text)
    added.left_out = together(source.left_out for source in wholes.values())  # once for each split
    return added


def check_disjoint(text: str, spans: Sequence[tuple[str, int, int]]) -> None:
    """Raise `DataError` if a split has records twice: they would count twice in evaluation.

    Args:
      text: the split.
      spans: of each part the name of the split, its first record and the one after the last.
    """
    for (one, start, stop), (other, first, last) in combinations(spans, 2):
        common = min(stop, last) - max(start, first)
        if one == other and common > 0:
            raise DataError(
                f"split {text!r} has {common} record{'s' * (common > 1)} of {one!r} twice; its parts must not "
                "overlap (use data.mixture to draw some records more often than others)."
            )


def has_shared(one: str, other: str) -> bool:
    """Return whether two splits of the same data certainly have records in common, however many there are.

    Bounds in percent are not compared with numbers of records.
    """
    for first, second in product(parse_split(one), parse_split(other)):
        if any(part.name == "all" and part.first is part.last is None for part in (first, second)):
            return True
        bounds = [bound for part in (first, second) for bound in (part.first, part.last) if bound is not None]
        mixed = len({bound.endswith("%") for bound in bounds}) > 1
        if first.name == second.name and not mixed:
            start, stop = zip(first.bounds(_MANY), second.bounds(_MANY))
            if max(start) < min(stop):
                return True
    return False


class Sum(Source):
    """The records of several sources of the same classes, one source after the other.

    Args:
      sources: at least one; where classes have no names, the most there are count.
      name: what messages call it.

    Raises:
      DataError: the fields or the classes differ.
    """

    def __init__(self, sources: Sequence[Source], name: str):
        self._sources = tuple(sources)
        most = max(sources, key=lambda source: source.num_classes)
        self.fields, self.class_names, self.named = most.fields, most.class_names, most.named
        for source in sources:
            if odd := set(source.fields) ^ set(self.fields):
                raise DataError(
                    f"only some parts of split {name!r} have the field {min(odd)!r}; all must have the same fields."
                )
            names = source.class_names
            if names != self.class_names and (source.named or names != self.class_names[: len(names)]):
                odd = min(set(names).symmetric_difference(self.class_names), default=names[0])
                raise DataError(
                    f"the parts of split {name!r} differ in class {odd!r}; they must have the same classes."
                )
        shapes = {source.image_shape for source in sources}
        self.image_shape = shapes.pop() if len(shapes) == 1 else None
        known = [source.labels for source in sources if source.labels is not None]
        self.labels = np.concatenate(known) if len(known) == len(sources) else None
        self._starts = np.cumsum([0, *(len(source) for source in sources)])

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Example:
        which, own = self._place(index)
        return self._sources[which][own]

    def name_of(self, index: int) -> str:
        """Return what its own source calls it."""
        which, own = self._place(index)
        return self._sources[which].name_of(own)

    def take(self, indices: np.ndarray) -> Example | None:
        """Return several records stacked, if all sources can and their images have one shape."""
        if self.image_shape is None:
            return None
        which = np.searchsorted(self._starts, indices, "right") - 1
        rows: Example = {}
        for number, source in enumerate(self._sources):
            (places,) = np.nonzero(which == number)
            taken = source.take(indices[places] - self._starts[number])
            if taken is None:
                return None
            for field, values in taken.items():
                rows.setdefault(field, np.empty((len(indices), *values.shape[1:]), values.dtype))
                if values.dtype != rows[field].dtype:  # uint8 in one, float32 in another
                    return None
                rows[field][places] = values
        return rows

    def known(self, field: str) -> np.ndarray | None:
        """Return a target of all records, if every source knows it and their classes are the same."""
        parts = [source.known(field) for source in self._sources]
        whole = [part for part in parts if part is not None]
        same = len(whole) == len(parts) and len({part.shape[1:] for part in whole}) == 1
        return np.concatenate(whole) if same else None

    def fingerprint(self) -> str:
        """Return a checksum of the sources."""
        return digest([source.fingerprint() for source in self._sources])

    def _place(self, index: int) -> tuple[int, int]:
        """Return the source of a record, and which it is of that."""
        which = int(np.searchsorted(self._starts, index, "right")) - 1
        return which, index - int(self._starts[which])


def _bound(text: str, count: int) -> int:
    """Return the record that one end of a slice means, between 0 and `count`: `99%`, `100` or `-100`."""
    number = round(int(text[:-1]) * count / 100) if text.endswith("%") else int(text)
    return min(max(number + count if number < 0 else number, 0), count)


def _check_all(text: str, wholes: dict[str, Source]) -> None:
    """Raise `DataError` if `all` stands beside a split that it holds."""
    if len(wholes) == 1 or "all" not in wholes:
        return
    known = {wholes["all"].name_of(index) for index in range(len(wholes["all"]))}
    for name, whole in wholes.items():
        if name != "all" and any(whole.name_of(index) in known for index in range(len(whole))):
            raise DataError(f"split {text!r} has the records of {name!r} twice; 'all' already includes them.")


def _same(name: str, wholes: dict[str, Source]) -> str:
    """Return the first name under which the same records were opened: `val` of a folder is its `validation`, too."""
    if len(wholes) == 1 or not len(wholes[name]):
        return name
    first, count = wholes[name].name_of(0), len(wholes[name])
    return next(other for other, whole in wholes.items() if len(whole) == count and whole.name_of(0) == first)


def _in(part: SplitPart, parts: tuple[SplitPart, ...]) -> str:
    return f" in {part.name}[{part.first or ''}:{part.last or ''}]" if len(parts) > 1 else ""
