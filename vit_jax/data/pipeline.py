"""Batches, from source and transforms; what is in a batch is a pure function of (seed, step).

Every batch takes the next `batch_size` positions of an endless, shuffled sequence of records. Record and
random numbers depend on the position alone, and a host reads its own contiguous part of the positions. Hence
resuming is starting at another step, and the global batch is the same, row for row, on any number of hosts.

Grain provides threads, processes and prefetching. The unit it handles is a batch: its cost per element is
60 to 120 microseconds (measured), which for small images is more than the work itself.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import grain
import numpy as np
from absl import flags

from vit_jax.data.arrays import label_message
from vit_jax.data.base import Example, Source
from vit_jax.data.order import shuffled
from vit_jax.data.transforms.base import Transform
from vit_jax.errors import ConfigError, DataError

Batch = dict[str, np.ndarray]
# Steps have no end; the loop that takes them decides.
_ENDLESS = 2**62


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
    """

    source: Source
    transforms: Sequence[Transform]
    batch_size: int
    seed: int
    process_index: int
    process_count: int
    shuffle: bool
    image_shape: tuple[int, int, int] | None
    num_classes: int | None

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.batch_size % self.process_count:
            raise ConfigError(
                f"the batch size is {self.batch_size}; it must be a multiple of the number of hosts, "
                f"{self.process_count}."
            )

    def __call__(self, step: int) -> Batch:
        """Return this host's rows of a step's batch.

        Args:
          step: from 0.

        Returns:
          `image` `(b, h, w, c)` as the transforms leave it, `label` int32 `(b,)`, and `mask` bool `(b,)`
          unless shuffled; `b` is `batch_size / process_count`.

        Raises:
          DataError: a record cannot be read or does not fit; it is named.
        """
        rows = self.batch_size // self.process_count
        positions = step * self.batch_size + self.process_index * rows + np.arange(rows)
        count = len(self.source)
        indices = shuffled(positions, count, self.seed) if self.shuffle else positions % count
        batch = self._read(positions, indices)
        if not self.shuffle:
            # Padding repeats records from the beginning, hidden by the mask.
            batch["mask"] = positions < count
        return batch

    def _read(self, positions: np.ndarray, indices: np.ndarray) -> Batch:
        whole = None if self.transforms else self.source.take(indices)
        if whole is None:
            batch = self._stack(list(self._examples(positions, indices)))
        else:
            batch = {**whole, "label": np.asarray(whole["label"], np.int32)}
        self._check_labels(batch["label"], indices)
        self._check_shape(batch["image"].shape[1:], indices[0])
        return batch

    def _examples(self, positions: np.ndarray, indices: np.ndarray) -> Any:
        """Yield the transformed record of each position."""
        generator = np.random.Generator(np.random.Philox(key=self.seed % 2**64))
        state = generator.bit_generator.state
        for position, index in zip(positions.tolist(), indices.tolist()):
            example = self.source[index]
            # A counter-based generator has a stream of its own for every position, and setting the counter
            # costs a tenth of making a generator.
            state["state"]["counter"][3] = position
            generator.bit_generator.state = state
            for transform in self.transforms:
                example = transform(example, generator)
            if not isinstance(example["image"], np.ndarray):
                raise DataError(f"{example['record']} is still encoded; begin the transforms with decode.")
            yield example

    def _stack(self, examples: list[Example]) -> Batch:
        first = examples[0]
        for example in examples:
            if example["image"].shape != first["image"].shape:
                raise DataError(
                    f"{example['record']} has shape {example['image'].shape} after the transforms, but "
                    f"{first['record']} has {first['image'].shape}; end them with a resize to one size."
                )
        batch = {key: np.stack([example[key] for example in examples]) for key in first if key != "record"}
        return {**batch, "label": batch["label"].astype(np.int32)}

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


def train_batches(
    source: Source,
    transforms: Sequence[Transform],
    batch_size: int,
    seed: int,
    start_step: int = 0,
    process_index: int = 0,
    process_count: int = 1,
    *,
    num_threads: int = 4,
    num_workers: int = 0,
    prefetch: int = 2,
    image_shape: tuple[int, int, int] | None = None,
    num_classes: int | None = None,
) -> grain.DatasetIterator[Batch]:
    """Return an endless iterator of training batches, beginning with that of `start_step`.

    Each epoch has every record once, in an order of its own; batches run across the ends of epochs.

    Args:
      source: where records come from.
      transforms: applied to each record, in order.
      batch_size: rows over all hosts.
      seed: of order and transforms.
      start_step: how many batches to leave out; costs nothing.
      process_index, process_count: which host of how many; the iterator gives this host's rows.
      num_threads: batches assembled at the same time; 0 assembles them when asked for.
      num_workers: processes used instead of threads, for hosts with many cores. They are spawned: the program
        must guard its entry with `if __name__ == "__main__"`.
      prefetch: finished batches that may wait.
      image_shape: `(h, w, c)` that the model takes.
      num_classes: labels must be below; by default those of the source.

    Returns:
      An iterator of `image` `(b, h, w, c)` and `label` int32 `(b,)`; `close()` ends its threads or processes.
    """
    reader = BatchReader(
        source, transforms, batch_size, seed, process_index, process_count, True, image_shape, num_classes
    )
    return _prefetched(reader, start_step, _ENDLESS, num_threads, num_workers, prefetch)


def eval_batches(
    source: Source,
    transforms: Sequence[Transform],
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    *,
    num_threads: int = 4,
    num_workers: int = 0,
    prefetch: int = 2,
    image_shape: tuple[int, int, int] | None = None,
    num_classes: int | None = None,
) -> grain.DatasetIterator[Batch]:
    """Return an iterator over every record exactly once, in order.

    All hosts get the same number of batches; rows beyond the last record are padding with `mask` False.

    Args:
      source, transforms, batch_size, process_index, process_count: as in `train_batches`.
      num_threads, num_workers, prefetch, image_shape, num_classes: as in `train_batches`.

    Returns:
      An iterator of `image` `(b, h, w, c)`, `label` int32 `(b,)` and `mask` bool `(b,)`.
    """
    reader = BatchReader(
        source, transforms, batch_size, 0, process_index, process_count, False, image_shape, num_classes
    )
    return _prefetched(reader, 0, -(-len(source) // batch_size), num_threads, num_workers, prefetch)


def _prefetched(
    reader: BatchReader, start: int, stop: int, num_threads: int, num_workers: int, prefetch: int
) -> grain.DatasetIterator[Batch]:
    batches = grain.MapDataset.range(start, stop).map(reader)
    if not num_workers:
        # Grain's default of 500 would hold as many batches in memory.
        waiting = num_threads + prefetch if num_threads else 0
        return iter(batches.to_iter_dataset(grain.ReadOptions(num_threads, waiting)))
    if not flags.FLAGS.is_parsed():
        # Grain's workers read absl flags, which only absl programs parse (google/grain issue 1355).
        flags.FLAGS.mark_as_parsed()
    options = grain.MultiprocessingOptions(num_workers, per_worker_buffer_size=max(1, prefetch))
    # One thread in each process, none waiting: the processes are the parallelism.
    return iter(batches.to_iter_dataset(grain.ReadOptions(1, 1)).mp_prefetch(options))
