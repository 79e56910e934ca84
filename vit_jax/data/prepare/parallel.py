"""Worker processes that share a bar of progress, and end when they are told to or their parent dies."""

import multiprocessing
import os
import signal
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import cv2
from tqdm import tqdm

from vit_jax.data.prepare.shards import Options, Shard, outcome, write_shard
from vit_jax.data.workers import end_with_parent
from vit_jax.errors import ResourceError

_POLL_SECONDS = 0.2


class Stopped(Exception):
    """A worker was told to stop."""


def write_shards(shards: Sequence[Shard], options: Options, workers: int, progress: bool) -> None:
    """Write the shards that are not there yet.

    Args:
      shards: what to write where.
      options: what to do to records.
      workers: processes; 1 works in this one.
      progress: whether to show a bar, if standard error is a terminal.

    Raises:
      VitError: a shard cannot be written; those that were begun are removed, finished ones stay.
    """
    missing = [shard for shard in shards if outcome(shard) is None]
    records = sum(len(shard.records) for shard in missing)
    ready = sum(len(shard.records) for shard in shards) - records
    with tqdm(
        total=ready + records,
        initial=ready,
        desc="writing",
        unit=" images",
        disable=None if progress else True,
    ) as bar:
        run_parallel(write_shard, [(shard, options) for shard in missing], workers, bar.update)


def run_parallel(
    work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], workers: int, report: Callable[[int], Any]
) -> list[Any]:
    """Return `work(*task, report)` of every task, in their order.

    Args:
      work: a function of a module; it calls its last argument now and then with how much it has done.
      tasks: its other arguments; they must be picklable if there are several workers.
      workers: processes; 1 works in this one.
      report: called with how much has been done since its last call.

    Raises:
      ResourceError: a worker was killed.
      Exception: what a task raised; the others are stopped.
    """
    workers = min(workers, len(tasks))
    if workers <= 1:
        return [work(*task, report) for task in tasks]
    # Forking a process that has threads (JAX, OpenCV) can deadlock.
    context = multiprocessing.get_context("spawn")
    done, stop = context.Value("q", 0), context.Event()
    executor = ProcessPoolExecutor(workers, context, _start_worker, (done, stop))
    try:
        futures = [executor.submit(_run, work, task) for task in tasks]
        pending, reported = set(futures), 0
        while pending:
            finished, pending = wait(pending, _POLL_SECONDS, FIRST_EXCEPTION)
            for future in finished:
                future.result()
            report(done.value - reported)
            reported = done.value
        return [future.result() for future in futures]
    except BrokenProcessPool as error:
        raise ResourceError(
            "a worker process was killed, probably for lack of memory; resume with fewer --workers."
        ) from error
    finally:
        stop.set()
        executor.shutdown(cancel_futures=True)


def cpu_count() -> int:
    """Return how many processors this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


# Of the process that a worker is: how much all have done, and whether they are to stop.
_shared: Any = None


def _start_worker(done: Any, stop: Any) -> None:
    global _shared
    _shared = done, stop
    cv2.setNumThreads(0)  # the processes are the parallelism
    # Ctrl-C goes to all processes of a terminal; the parent tells the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    end_with_parent()


def _run(work: Callable[..., Any], task: tuple[Any, ...]) -> Any:
    return work(*task, _report)


def _report(count: int) -> None:
    done, stop = _shared
    if stop.is_set():
        raise Stopped
    with done.get_lock():
        done.value += count
