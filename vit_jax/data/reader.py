"""One batch, read and transformed; what is in it is a pure function of (seed, step).

Every training batch takes the next positions of an endless, shuffled sequence of records. Record and random numbers
depend on the position alone, and a host reads its own contiguous part of the positions. Hence resuming is starting
at another step, and the global batch is the same, row for row, on any number of hosts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from vit_jax.data.arrays import label_message
from vit_jax.data.base import Example, Source
from vit_jax.data.order import distinct_positions, substitute
from vit_jax.data.transforms.base import Transform
from vit_jax.data.transforms.fusion import fused
from vit_jax.errors import ConfigError, DataError

Batch = dict[str, np.ndarray]
# Of a batch: what was wrong with each record that was skipped, lines of UTF-8.
SKIPPED = "skipped"
# So many records in a row that cannot be read are not an accident.
_SUBSTITUTES = 8


def batch_records(source: Source, step: int, batch_size: int, seed: int, repeats: int = 1) -> np.ndarray:
    """Return which records the rows of a training batch have, over all hosts: int64 `(b,)`.

    One that cannot be read is replaced by another in the batch, not here.

    Args:
      source: where records come from.
      step: from 0.
      batch_size: rows of the global batch.
      seed: of the run.
      repeats: how often a batch holds each of its records.
    """
    positions = step * batch_size + np.arange(batch_size)
    return source.order(distinct_positions(positions, batch_size, repeats), seed)


@dataclass(frozen=True)
class BatchReader:
    """Reads the rows of a batch that belong to one host.

    Attributes:
      source: where records come from.
      transforms: applied to each record, in order.
      batch_size: rows of the global batch.
      seed: of order and transforms.
      process_index, process_count: which host of how many.
      shuffle: whether to shuffle and repeat; otherwise records come in order, once, and `mask` tells rows
        from padding.
      image_shape: `(h, w, c)` that the model takes; None accepts any, if all are the same.
      num_classes: labels must be below; None means those of the source.
      repeats: how often a training batch holds each of its records, every time transformed anew.
      skip_bad: whether records that cannot be read are left out and said so, instead of being an error.
    """

    source: Source
    transforms: Sequence[Transform]
    batch_size: int
    seed: int = 0
    process_index: int = 0
    process_count: int = 1
    shuffle: bool = False
    image_shape: tuple[int, int, int] | None = None
    num_classes: int | None = None
    repeats: int = 1
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.process_count:
            raise ConfigError(
                f"the batch size is {self.batch_size}; it must be a multiple of the number of hosts, "
                f"{self.process_count}."
            )
        object.__setattr__(self, "transforms", tuple(fused(self.transforms)))

    def __call__(self, step: int) -> Batch:
        """Return this host's rows of a step's batch.

        Args:
          step: from 0.

        Returns:
          What the transforms leave, stacked: `image` `(b, h, w, c)`, `label` int32 `(b,)`, and `mask` bool `(b,)`
          unless shuffled; `b` is `batch_size / process_count`. If records were skipped, `SKIPPED` says why: in
          training another record has taken the place, in evaluation the mask hides it.

        Raises:
          DataError: a record cannot be read or does not fit; it is named.
        """
        rows = self.batch_size // self.process_count
        positions = step * self.batch_size + self.process_index * rows + np.arange(rows)
        count = len(self.source)
        if self.shuffle:
            places = distinct_positions(positions, self.batch_size, self.repeats)
            return self._read(positions, self.source.order(places, self.seed))
        # Padding repeats records from the beginning, hidden by the mask.
        batch = self._read(positions, positions % count)
        batch["mask"] &= positions < count
        return batch

    def _read(self, positions: np.ndarray, indices: np.ndarray) -> Batch:
        whole = None if self.transforms else self.source.take(indices)
        if whole is None:
            batch = self._one_by_one(positions, indices)
        else:
            batch = {**whole, "label": np.asarray(whole["label"], np.int32)}
            batch |= {} if self.shuffle else {"mask": np.ones(len(indices), np.bool_)}
        self._check_labels(batch["label"], indices)
        if "image" in batch:
            self._check_shape(batch["image"].shape[1:], indices[0])
        return batch

    def _one_by_one(self, positions: np.ndarray, indices: np.ndarray) -> Batch:
        """Return the transformed records of positions as a batch."""
        generator = np.random.Generator(np.random.Philox(key=self.seed % 2**64))
        state = generator.bit_generator.state
        rows, mask, reasons = _Rows(len(positions)), np.zeros(len(positions), np.bool_), []
        for row, (position, index) in enumerate(zip(positions.tolist(), indices.tolist())):
            # A counter-based generator has a stream of its own for every position, and setting the counter
            # costs a tenth of making a generator.
            state["state"]["counter"][3] = position
            for candidate in self._candidates(position, index, reasons):
                generator.bit_generator.state = state
                try:
                    rows.put(row, self._transformed(candidate, generator))
                except DataError as error:
                    if not self.skip_bad or isinstance(error, _MisfitError):
                        raise
                    reasons.append(str(error))
                else:
                    mask[row] = True
                    break
        if not mask.any():
            raise DataError(f"no record of a whole batch can be read; the last one: {reasons[-1]}")
        for array in rows.fields.values():
            array[~mask] = 0
        batch = {**rows.fields, "label": rows.fields["label"].astype(np.int32)}
        if not self.shuffle:
            batch["mask"] = mask
        if reasons:
            batch[SKIPPED] = np.frombuffer("\n".join(reasons).encode(), np.uint8)
        return batch

    def _candidates(self, position: int, index: int, reasons: list[str]) -> Iterator[int]:
        """Yield the record of a position, then those to take in its place, always the same."""
        yield index
        if self.shuffle:
            for attempt in range(_SUBSTITUTES):
                yield int(self.source.order(substitute(position, attempt), self.seed)[0])
            raise DataError(f"{_SUBSTITUTES} records in a row cannot be read; the last one: {reasons[-1]}")

    def _transformed(self, index: int, generator: np.random.Generator) -> Example:
        example = self.source[index]
        for transform in self.transforms:
            example = transform(example, generator)
        return example

    def _check_labels(self, labels: np.ndarray, indices: np.ndarray) -> None:
        num_classes = self.source.num_classes if self.num_classes is None else self.num_classes
        bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
        if len(bad):
            record = self.source[int(indices[bad[0]])]["record"]
            raise DataError(label_message(record, labels[bad[0]], num_classes))

    def _check_shape(self, shape: tuple[int, ...], index: int) -> None:
        if self.image_shape is not None and shape != tuple(self.image_shape):
            height, width, channels = self.image_shape
            raise DataError(
                f"{self.source[int(index)]['record']} has shape {shape} after the transforms, but the model "
                f"takes {tuple(self.image_shape)}; end them with resize(({height}, {width})) and "
                f"to_channels({channels}), or change the model."
            )


class _MisfitError(DataError):
    """Records and transforms that do not go together: no record is to blame, so none is skipped."""


class _Rows:
    """Examples, copied into the arrays of a batch one after the other.

    Not stacked at the end: what a transform returns is then copied while it is in the processor's cache, and its memory
    serves the next one.
    """

    def __init__(self, count: int):
        self._count, self._first = count, ""
        self.fields: dict[str, np.ndarray] = {}

    def put(self, row: int, example: Example) -> None:
        """Write an example into a row."""
        if not self.fields:
            self._first = example["record"]
            for key, value in example.items():
                if key != "record":
                    array = np.asarray(value)
                    self.fields[key] = np.empty((self._count, *array.shape), array.dtype)
        for key, rows in self.fields.items():
            value = example[key]
            if isinstance(value, bytes):
                raise _MisfitError(f"{example['record']} is still encoded; begin the transforms with decode.")
            if np.shape(value) != rows.shape[1:]:
                raise _MisfitError(
                    f"{example['record']} has shape {np.shape(value)} after the transforms, but {self._first} has "
                    f"{rows.shape[1:]}; end them with a resize to one size."
                )
            rows[row] = value
