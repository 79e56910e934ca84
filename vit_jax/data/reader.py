"""One batch, read and transformed; what is in it is a pure function of (seed, step).

Every training batch takes the next positions of an endless, shuffled sequence of records. Record and random numbers
depend on the position alone, and a host reads its own contiguous part of the positions. Hence resuming is starting
at another step, and the global batch is the same, row for row, on any number of hosts.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from vit_jax.data.base import Example, Source
from vit_jax.data.fields.table import KINDS, PLANE, USUAL, check_fields, read_fields
from vit_jax.data.geometry import IDENTITY
from vit_jax.data.order import distinct_positions, substitute
from vit_jax.data.sources.arrays import label_message
from vit_jax.data.transforms.base import MisfitError, Transform
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

    Of a source with more fields than image and label, a batch also has `id`, int32 `(b,)`, the position of each record
    in the source. If some of them lie in the plane of the image, it has `size`, int32 `(b, 2)`, height and width of the
    image as it was, and `geometry`, float32 `(b, 2, 3)`, where its pixels went (`data.geometry`).

    Attributes:
      source: where records come from.
      transforms: applied to each record, in order.
      batch_size: rows of the global batch.
      seed: of order and transforms.
      process_index, process_count: which host of how many.
      shuffle: whether to shuffle and repeat; otherwise records come in order, once, and `mask` tells rows
        from padding.
      input_shape: of an image as the model takes it, `(h, w, c)`; None accepts any, if all are the same.
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
    input_shape: tuple[int, ...] | None = None
    num_classes: int | None = None
    repeats: int = 1
    skip_bad: bool = False

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.process_count:
            raise ConfigError(
                f"the batch size is {self.batch_size}; it must be a multiple of the number of hosts, "
                f"{self.process_count}."
            )
        check_fields(self.source.fields)
        for transform in self.transforms:
            if reason := transform.refusal(self.source.fields):
                raise ConfigError(reason)
        object.__setattr__(self, "transforms", tuple(fused(self.transforms)))

    @cached_property
    def _further(self) -> bool:
        """Whether records have more than image and label."""
        return not USUAL.issuperset(self.source.fields)

    @cached_property
    def _plane(self) -> bool:
        """Whether records have fields that lie in the image's plane."""
        return not PLANE.isdisjoint(self.source.fields)

    def __call__(self, step: int) -> Batch:
        """Return this host's rows of a step's batch.

        Args:
          step: from 0.

        Returns:
          What the transforms leave, stacked: of a usual source `image` `(b, h, w, c)` and `label` int32 `(b,)`; and
          `mask` bool `(b,)` unless shuffled; `b` is `batch_size / process_count`. If records were skipped, `SKIPPED`
          says why: in training another record has taken the place, in evaluation the mask hides it.

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
        whole = None if self.transforms or self._plane else self.source.take(indices)
        if whole is None:
            batch = self._one_by_one(positions, indices)
        else:
            batch = dict(whole) | ({} if self.shuffle else {"mask": np.ones(len(indices), np.bool_)})
            batch |= {"id": indices.astype(np.int32)} if self._further else {}
        if "label" in batch:
            batch["label"] = np.asarray(batch["label"], np.int32)
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
                    if not self.skip_bad or isinstance(error, MisfitError):
                        raise
                    if self.shuffle or position < len(self.source):  # else padding, which repeats records
                        reasons.append(str(error))
                else:
                    mask[row] = True
                    break
        if not mask.any():
            why = f"; the last one: {reasons[-1]}" if reasons else ""
            raise DataError(f"not one record of a batch can be read{why}")
        for array in rows.fields.values():
            array[~mask] = 0
        batch = dict(rows.fields)
        if "geometry" in batch:
            batch["geometry"] = batch["geometry"].astype(np.float32)
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
        example: Example = self.source[index]
        if self._further:
            example = {**read_fields(example, self.source), "id": index}
            if self._plane:
                example["geometry"] = IDENTITY
                if isinstance(example.get("image"), np.ndarray):
                    example["size"] = np.array(example["image"].shape[:2], np.int32)
        for transform in self.transforms:
            example = transform(example, generator)
        return example

    def _check_labels(self, labels: np.ndarray, indices: np.ndarray) -> None:
        num_classes = self.source.num_classes if self.num_classes is None else self.num_classes
        bad = np.flatnonzero((labels < 0) | (labels >= num_classes))
        if len(bad):
            record = self.source.name_of(int(indices[bad[0]]))
            raise DataError(label_message(record, labels[bad[0]], num_classes))

    def _check_shape(self, shape: tuple[int, ...], index: int) -> None:
        if self.input_shape is not None and shape != tuple(self.input_shape):
            raise DataError(shape_message(self.source.name_of(int(index)), shape, self.input_shape))


def shape_message(record: str, shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> str:
    """Return what is said of an image whose shape after the transforms is not that which is wanted."""
    if len(wanted) == 2:
        return (
            f"{record} has shape {shape} after the transforms, but the model takes {tuple(wanted)}, patches and values "
            f"of each; end them with naflex({wanted[0]}, PATCH), PATCH being the model's patch_size."
        )
    *_, height, width, channels = wanted
    return (
        f"{record} has shape {shape} after the transforms, but the model takes {tuple(wanted)}; end them with "
        f"resize(({height}, {width})) and to_channels({channels}), or change the model."
    )


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
                    kind = KINDS.get(key)
                    dtype = kind.dtype if kind is not None and kind.dtype else array.dtype
                    self.fields[key] = np.empty((self._count, *array.shape), dtype)
        for key, rows in self.fields.items():
            value = example.get(key)
            if value is None:
                raise MisfitError(f"{example['record']} has no {key}, but {self._first} has.")
            if isinstance(value, bytes):
                raise MisfitError(f"{example['record']} is still encoded; begin the transforms with decode.")
            # `np.shape` of every number and small image would take as long as copying it.
            shape = (
                value.shape
                if isinstance(value, np.ndarray)
                else ()
                if type(value) is int
                else np.shape(value)
            )
            if shape != rows.shape[1:]:
                what = "" if key == "image" or key not in KINDS else f" {key} of"
                rows_differ = key in KINDS and KINDS[key].of_objects
                remedy = "pad_objects, to as many objects" if rows_differ else "a resize to one size"
                raise MisfitError(
                    f"{example['record']} has{what} shape {shape} after the transforms, but {self._first} "
                    f"has {rows.shape[1:]}; end them with {remedy}."
                )
            rows[row] = value
