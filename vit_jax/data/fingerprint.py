"""Short checksums of which records there are, to notice that they changed: cheap, and no protection from forgery.

Neither where records lie nor when they were written counts, so a folder that was copied is the same.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import groupby
from typing import Any

import numpy as np

from vit_jax.errors import VitError

WHOLE = 2**28  # bytes of images in memory that are all looked at: a third of a second
SAMPLED = 64  # records that are read of a source about which nothing else is known
_THREADS = 16  # to wait for a remote disk together; a local one answers at once
_TASK = 4096  # files
_CHUNK = 2**24  # bytes


def digest(*parts: Any) -> str:
    """Return a hash of texts, bytes, numbers, arrays, None and sequences of these, each told from the next."""
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        for piece in _pieces(part):
            state.update(piece)
    return state.hexdigest()


def array_digest(array: np.ndarray) -> str:
    """Return a hash of records in memory: of all values up to `WHOLE` bytes, beyond of so many evenly spaced.

    Args:
      array: `(n, ...)`.
    """
    every = max(1, -(-array.nbytes // WHOLE))
    return digest(array.shape, array.dtype.str, array[::every], array[-1:])


def sample_digest(records: Any) -> str:
    """Return a hash of a few evenly spaced records.

    Args:
      records: a source; what cannot be read counts as that.
    """
    indices = np.unique(np.linspace(0, len(records) - 1, min(SAMPLED, len(records))).astype(np.int64))
    return digest(*(_example_parts(records, int(index)) for index in indices))


def file_sizes(folder: str | os.PathLike[str], names: Sequence[str]) -> np.ndarray:
    """Return the sizes of files in bytes, int64 `(n,)`, -1 where there is none; one call of the system for each.

    Args:
      folder: what the names are relative to.
      names: of files, those of a folder one after the other, which saves looking up the folder for each.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        sizes = pool.map(lambda task: _sizes(os.fspath(folder), *task), _tasks(names))
        return np.fromiter((size for part in sizes for size in part), np.int64, len(names))


def _tasks(names: Sequence[str]) -> Iterator[tuple[str, list[str]]]:
    for parent, group in groupby(names, lambda name: name.rpartition("/")[0]):
        inside = [name.rpartition("/")[2] for name in group]
        for start in range(0, len(inside), _TASK):
            yield parent, inside[start : start + _TASK]


def _sizes(root: str, parent: str, names: list[str]) -> list[int]:
    try:
        folder = os.open(os.path.join(root, parent) or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError:
        return [-1] * len(names)
    try:
        return [_size(folder, name) for name in names]
    finally:
        os.close(folder)


def _size(folder: int, name: str) -> int:
    try:
        return os.stat(name, dir_fd=folder).st_size
    except (OSError, ValueError):  # not there; a NUL in what should be a name
        return -1


def _example_parts(records: Any, index: int) -> Any:
    try:
        example = records[index]
    except VitError:  # what it says names a path
        return "unreadable"
    further = sorted(example.keys() - {"image", "label", "record"})
    label = [int(example["label"])] if "label" in example else []
    return example["image"], *label, *(part for name in further for part in (name, example[name]))


def _pieces(part: Any) -> Iterator[bytes]:
    """Yield what stands for a value: its kind and length, and its contents."""
    if isinstance(part, np.ndarray):
        yield f"array {part.dtype.str} {part.shape}\n".encode()
        rows = max(1, _CHUNK // max(1, part[:1].nbytes)) if part.ndim else 1
        for start in range(0, len(part) if part.ndim else 0, rows):
            yield np.ascontiguousarray(part[start : start + rows]).tobytes()
        if not part.ndim:
            yield part.tobytes()
    elif isinstance(part, bytes):
        yield b"bytes %d\n" % len(part)
        yield part
    elif isinstance(part, str):
        text = part.encode(errors="surrogateescape")  # names of files need not be text
        yield b"text %d\n" % len(text)
        yield text
    elif isinstance(part, Iterable):
        members = list(part)
        yield b"sequence %d\n" % len(members)
        for member in members:
            yield from _pieces(member)
    else:
        yield f"{part!r}\n".encode()
