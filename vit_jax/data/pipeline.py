"""Batches in time: read ahead by threads or processes, records that cannot be read counted.

Grain provides threads, processes and prefetching. The unit it handles is a batch: its cost per element is
60 to 120 microseconds (measured), which for small images is more than the work itself.
"""

import re
import sys
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grain
import numpy as np
from absl import flags

from vit_jax.data.base import Source
from vit_jax.data.reader import SKIPPED, Batch, BatchReader
from vit_jax.data.transforms.base import Transform
from vit_jax.data.workers import end_with_parent, how_it_ended
from vit_jax.errors import DataError, ResourceError, printable

# Steps have no end; the loop that takes them decides.
_ENDLESS = 2**62
# Skipped records that are told one by one, and that are never too many.
_TOLD = 10
# How Grain says that one of its processes has ended.
_DEAD_WORKER = re.compile(r"Worker process was terminated unexpectedly with exit code (-?\d+)")


class Batches(Iterator[Batch]):
    """An iterator over batches that counts the records skipped on this host.

    Args:
      batches: what to iterate over.
      max_bad_share: of the records read, how many may be bad; up to ten are accepted in any case.
      report: told of the first ten, of each once.
      num_workers: processes that read.

    Attributes:
      skipped: how many records could not be read so far.
    """

    def __init__(
        self,
        batches: grain.DatasetIterator[Batch],
        max_bad_share: float,
        report: Callable[[str], None],
        num_workers: int = 0,
    ):
        self._held, self._max_bad_share, self._report = [batches], max_bad_share, report
        # Also when nobody closes it: left to the end of the interpreter, Grain leaves processes and memory behind.
        self._end = weakref.finalize(self, _close, self._held)
        self._num_workers = num_workers
        self.skipped = self._read = self._given = 0
        self._told: set[str] = set()

    def __next__(self) -> Batch:
        """Return the next batch.

        Raises:
          DataError: a record cannot be read and none may be skipped, or too many were.
          ResourceError: a worker process has ended.
        """
        try:
            batch = {name: _own(rows) for name, rows in self._next().items()}
        except RuntimeError as error:
            ended = _DEAD_WORKER.search(str(error))
            if ended is None:
                raise
            code = int(ended[1])
            remedy = (
                "lower data.num_workers or data.prefetch if memory is short"
                if code < 0
                else "its output tells why; data.num_workers=0 reads in this process"
            )
            # Grain asks its workers for batches in turn.
            raise ResourceError(
                f"worker process {self._given % self._num_workers} of {self._num_workers}, which reads data, "
                f"{how_it_ended(code)}; {remedy}."
            ) from error
        self._given += 1
        reasons = bytes(batch.pop(SKIPPED)).decode().split("\n") if SKIPPED in batch else []
        # Of evaluation without its padding, which repeats records.
        rows = int(batch["mask"].sum()) + len(reasons) if "mask" in batch else len(next(iter(batch.values())))
        self._read += rows
        if reasons:
            self._skip(reasons)
        return batch

    def close(self) -> None:
        """End the threads or processes that read ahead, and give back what they hold."""
        self._end()

    def _next(self) -> Batch:
        if not self._held:
            raise StopIteration
        return next(self._held[0])

    def _skip(self, reasons: list[str]) -> None:
        for reason in reasons:
            if len(self._told) < _TOLD and reason not in self._told:
                self._told.add(reason)
                self._report(f"skipped: {reason}")
        self.skipped += len(reasons)
        if self.skipped > max(_TOLD, self._max_bad_share * self._read):
            raise DataError(
                f"{self.skipped} of {self._read} records could not be read, more than data.max_bad_share "
                f"{self._max_bad_share:g}; the last one: {reasons[-1]}"
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
    input_shape: tuple[int, ...] | None = None,
    num_classes: int | None = None,
    repeats: int = 1,
    skip_bad: bool = False,
    max_bad_share: float = 0.001,
    report: Callable[[str], None] | None = None,
) -> Batches:
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
      input_shape: of an image as the model takes it, `(h, w, c)`; of any rank.
      num_classes: labels must be below; by default those of the source.
      repeats: how often a batch holds each of its records, differently transformed ("repeated augmentation", Hoffer
        et al. 2019, arXiv 1901.09335). They lie a `repeats`-th of the batch apart. As many batches as without are
        an epoch, so one has each record `1 / repeats` times on average, as in DeiT.
      skip_bad: replace records that cannot be read by others, always the same ones, and count them.
      max_bad_share: of the records read, how many may be bad.
      report: told of the first records skipped; by default they go to standard error.

    Returns:
      An iterator of the fields of the records, `image` `(b, h, w, c)` and `label` int32 `(b,)` for example, see
      `reader.BatchReader`; `close()` ends its threads or processes.
    """
    reader = BatchReader(
        source,
        transforms,
        batch_size,
        seed,
        process_index,
        process_count,
        True,
        input_shape,
        num_classes,
        repeats,
        skip_bad,
    )
    batches = _prefetched(reader, start_step, _ENDLESS, num_threads, num_workers, prefetch)
    return Batches(batches, max_bad_share, report or _to_standard_error, num_workers)


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
    input_shape: tuple[int, ...] | None = None,
    num_classes: int | None = None,
    skip_bad: bool = False,
    max_bad_share: float = 0.001,
    report: Callable[[str], None] | None = None,
) -> Batches:
    """Return an iterator over every record exactly once, in order.

    All hosts get the same number of batches; rows beyond the last record are padding with `mask` False, and so are
    skipped records.

    Args:
      source, transforms, batch_size, process_index, process_count: as in `train_batches`.
      num_threads, num_workers, prefetch, input_shape, num_classes: as in `train_batches`.
      skip_bad, max_bad_share, report: as in `train_batches`, but no other record takes the place.

    Returns:
      An iterator of the fields of the records and of `mask` bool `(b,)`.
    """
    reader = BatchReader(
        source,
        transforms,
        batch_size,
        0,
        process_index,
        process_count,
        False,
        input_shape,
        num_classes,
        skip_bad=skip_bad,
    )
    count = -(-len(source) // batch_size)
    batches = _prefetched(reader, 0, count, num_threads, num_workers, prefetch)
    return Batches(batches, max_bad_share, report or _to_standard_error, num_workers)


def _close(held: list[grain.DatasetIterator[Batch]]) -> None:
    """Close what is held and let go of it, so that nothing of it is left when the interpreter takes modules apart."""
    if held:
        held.pop().close()


def _own(rows: Any) -> np.ndarray:
    """Return rows in memory of this process, those of a worker's shared memory copied.

    Shared memory that a caller still holds when the program ends, or that Grain's thread has not come to by then, would
    be left behind; a copy costs little beside decoding.
    """
    shared = getattr(rows, "shm", None)
    if shared is None:
        return rows
    own = np.array(rows, copy=True, subok=False)
    if getattr(rows, "_unlink_on_del", False):
        rows._unlink_on_del = False  # by whatever drops it, some time
        shared.unlink()
    return own


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
    return iter(batches.to_iter_dataset(grain.ReadOptions(1, 1)).mp_prefetch(options, _start_worker))


def _start_worker(index: int, count: int) -> None:
    end_with_parent()


def _to_standard_error(line: str) -> None:
    print(printable(line), file=sys.stderr)
