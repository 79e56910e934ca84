"""Any number of images through a model in constant memory: read ahead by threads, computed batch by batch."""

import os
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
from tqdm import tqdm

from vit_jax.data.sources.pictures import Given, Pictures
from vit_jax.errors import DataError, choose
from vit_jax.evaluation.preprocess import Preprocessor, Taken

BAD = ("error", "skip")
Read = Taken | DataError


class Row(NamedTuple):
    """What came of one image.

    Attributes:
      name: its path, or `image` and its number.
      values: what was computed, an array `(...)` or a tree of them; None of an image that cannot be read.
      error: why it cannot be; empty otherwise.
      taken: what the model saw of it; None of an image that cannot be read.
    """

    name: str
    values: Any
    error: str = ""
    taken: Taken | None = None


def stream(
    compute: Callable[[np.ndarray], Any],
    preprocessor: Preprocessor,
    images: Pictures,
    batch_size: int,
    *,
    bad: str = "error",
    progress: bool = False,
) -> Iterator[Row]:
    """Return what a compiled function gives for each image, as it comes.

    At most three batches are in memory: one computed, one decoded, one asked for.

    Args:
      compute: takes uint8 `(b, h, w, c)`, or `Patches` of a model whose images keep their shape; gives `(b, ...)`, or a
        tree of such; `b` is always the same, see `fitting`.
      preprocessor: makes the arrays.
      images: one or several, see `data.sources.pictures.each`.
      batch_size: most images computed at once; the last batch is padded with zeros, so that one program serves all.
      bad: what to do with an image that cannot be read: `error` raises, `skip` gives a row that says why.
      progress: show a bar on stderr if it is a terminal and there is more than a batch.

    Raises:
      ConfigError: `bad` is neither.
      DataError: an image cannot be read; it is named.
    """
    choose(bad, BAD, "bad")
    return _stream(compute, preprocessor, images, batch_size, bad, progress)


def fitting(batch_size: int, count: int) -> int:
    """Return the batch size for `count` rows, at least one, in all.

    Fewer than a batch are padded to a power of two: a single image costs that of a single image, and there are few
    programs whatever comes. Programs of different sizes differ in the last bits of what they give.
    """
    return min(batch_size, 1 << (count - 1).bit_length())


def in_batches(compute: Callable[[np.ndarray], Any], rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Return what a compiled function gives for rows, float32 `(n, ...)`.

    Args:
      compute: takes `(b, ...)`, gives `(b, ...)`.
      rows: `(n, ...)`, at least one; the last batch is padded with zeros, so that one program serves all.
      batch_size: rows computed at once.
    """
    outputs = []
    for start in range(0, len(rows), batch_size):
        chunk = rows[start : start + batch_size]
        padded = np.pad(chunk, [(0, batch_size - len(chunk))] + [(0, 0)] * (rows.ndim - 1))
        outputs.append(np.asarray(compute(padded), np.float32)[: len(chunk)])
    return np.concatenate(outputs)


def stacked(rows: Iterable[Row], width: int) -> np.ndarray:
    """Return the values of rows, float32 `(n, width)`; of images that could not be read not-a-number."""
    missing = np.full(width, np.nan, np.float32)
    values = (missing if row.values is None else row.values for row in rows)
    return np.fromiter(values, np.dtype((np.float32, (width,))))


def _stream(
    compute: Callable[[np.ndarray], Any],
    preprocessor: Preprocessor,
    images: Pictures,
    batch_size: int,
    bad: str,
    progress: bool,
) -> Iterator[Row]:
    pictures = preprocessor.each(images)
    first = list(islice(pictures, batch_size))
    if not first:
        return
    size, many = fitting(batch_size, len(first)), len(first) == batch_size
    if many or any(isinstance(given.content, Path | bytes) for given in first[1:]):
        batches = iter(lambda: list(islice(pictures, batch_size)), [])
        read = _read_ahead(preprocessor, chain([first], batches))
    else:  # a few arrays, or one file: threads would take longer to start
        read = [(first, [_attempt(preprocessor, given) for given in first])]
    total = len(images) if isinstance(images, Sized) and not isinstance(images, str | bytes) else None
    with tqdm(total=total, unit="image", disable=None if progress and many else True) as bar:
        for batch, pixels in read:
            for image in pixels:
                if isinstance(image, DataError) and bad == "error":
                    raise image
            taken = [None if isinstance(image, DataError) else image for image in pixels]
            rows = preprocessor.stacked(taken, size)
            values = jax.tree.map(_on_host, compute(rows))
            for index, (given, image) in enumerate(zip(batch, pixels)):
                if isinstance(image, DataError):
                    yield Row(given.name, None, str(image))
                else:
                    yield Row(given.name, jax.tree.map(itemgetter(index), values), "", image)
            bar.update(len(batch))


def _on_host(values: Any) -> np.ndarray:
    """Return values as they are, or as float32 where they are fewer bits than NumPy has numbers of."""
    array = np.asarray(values)
    return array if array.dtype.kind in "iubf" and array.dtype != np.float16 else array.astype(np.float32)


def _read_ahead(
    preprocessor: Preprocessor, batches: Iterable[list[Given]]
) -> Iterator[tuple[list[Given], list[Read]]]:
    """Yield each batch and its pixels, the next one being read meanwhile by threads."""

    def read(part: list[Given]) -> list[Read]:
        return [_attempt(preprocessor, given) for given in part]

    threads = os.cpu_count() or 1
    executor = ThreadPoolExecutor(threads)
    waiting: list[tuple[list[Given], list[Future[list[Read]]]]] = []
    try:
        for batch in chain(batches, [[]]):
            step = -(-len(batch) // threads) or 1
            parts = [batch[start : start + step] for start in range(0, len(batch), step)]
            waiting.append((batch, [executor.submit(read, part) for part in parts]))
            if len(waiting) > 1:
                batch, futures = waiting.pop(0)
                yield batch, [pixels for future in futures for pixels in future.result()]
    finally:
        executor.shutdown(cancel_futures=True)


def _attempt(preprocessor: Preprocessor, given: Given) -> Read:
    try:
        return preprocessor.take(given)
    except DataError as error:
        return error
