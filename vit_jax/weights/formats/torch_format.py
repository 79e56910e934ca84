"""PyTorch files (`.pth`, `.pt`, `.bin`), read without PyTorch and without executing their pickles.

Both containers of `torch.save` (https://github.com/pytorch/pytorch, torch/serialization.py): the zip archive with
`data.pkl` and one member for each storage, and the older one of pickles followed by all storages.
"""

import sys
from collections.abc import Callable, Iterator
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import ml_dtypes
import numpy as np

from vit_jax.errors import CheckpointError, argument
from vit_jax.weights.formats.pickle_reader import KINDS, Storage, TensorRecord, read_pickle
from vit_jax.weights.formats.tensors import (
    MAX_TENSORS,
    Tensor,
    as_array,
    byte_size,
    check_name,
    file_bytes,
    reading,
    short,
)
from vit_jax.weights.formats.which import Chosen, preferred
from vit_jax.weights.formats.zip_archive import Archive

MAGIC = 0x1950A86A20F9469CFC6C
PROTOCOL = 1001
MAX_PICKLE = 16_000_000
DTYPES = {name: np.dtype(ml_dtypes.bfloat16 if name == "bfloat16" else name) for name in KINDS}
_Bytes = Callable[[int, int], np.ndarray]  # reads (offset, size) of a storage's bytes


def read_zip(archive: Archive, wanted: str | None = None) -> Chosen[Tensor]:
    """Describe the weights in an archive that `torch.save` wrote.

    Args:
      archive: the opened file.
      wanted: the key of the file's dictionary that holds the weights wanted; chosen by `which.preferred` if None, or
        if there is none.

    Returns:
      The weights, in the order of the state dict, and which they are.

    Raises:
      CheckpointError: the archive is damaged, is a program, or needs what is never executed.
    """
    path, names = archive.path, archive.names()
    pickles = [name for name in names if name == "data.pkl" or name.endswith("/data.pkl")]
    if any(name.endswith("constants.pkl") or "code/" in name for name in names):
        raise CheckpointError(
            f"{path} is a TorchScript program, not weights; use the copy that transformers publishes, "
            "for CLIP for example openai/clip-vit-base-patch32."
        )
    if len(pickles) != 1:
        raise CheckpointError(
            f"{path} is an archive without numpy arrays and without one data.pkl of PyTorch."
        )
    folder = pickles[0].removesuffix("data.pkl")
    size = archive.size(pickles[0]) or 0
    if size > MAX_PICKLE:
        raise CheckpointError(
            f"{path}: data.pkl has {size} bytes, more than the {MAX_PICKLE} any weights need."
        )
    order = folder + "byteorder"
    big = archive.size(order) is not None and bytes(archive.read(order, 0, 3)) == b"big"

    def storage_bytes(key: str, size: int) -> _Bytes:
        member = f"{folder}data/{key}"
        if archive.size(member) != size:
            raise CheckpointError(
                f"{path}: storage {short(key)} is missing or does not have {size} bytes; it is damaged."
            )
        return partial(archive.read, member)

    content = read_pickle(BytesIO(archive.read(pickles[0], 0, size).tobytes()), path)
    return _tensors(content, wanted, path, storage_bytes, big != (sys.byteorder == "big"))


def read_legacy(path: Path, wanted: str | None = None) -> Chosen[Tensor]:
    """Describe the weights in a file that `torch.save` wrote before version 1.6, or without zip.

    Args:
      path: the file.
      wanted: as in `read_zip`.

    Returns:
      As `read_zip`.

    Raises:
      CheckpointError: the file is damaged, is another pickle, or needs what is never executed.
    """
    with reading(path), open(path, "rb") as file:
        if read_pickle(file, path) != MAGIC or read_pickle(file, path) != PROTOCOL:
            raise CheckpointError(
                f"{path} is a pickle, but not one of torch.save; pickles are never executed: save arrays with "
                "numpy.savez."
            )
        # Third comes the byte order of the machine that wrote it, but the storages are always little-endian.
        read_pickle(file, path)
        storages: list[Storage] = []
        content = read_pickle(file, path, storages)
        keys = read_pickle(file, path)
        starts = _storage_starts(file, keys, storages, path)

    def storage_bytes(key: str, size: int) -> _Bytes:
        return lambda offset, count: file_bytes(path, starts[key] + offset, count)

    return _tensors(content, wanted, path, storage_bytes, sys.byteorder == "big")


def _storage_starts(file: BinaryIO, keys: Any, storages: list[Storage], path: Path) -> dict[str, int]:
    """Where each storage of an old file begins; each is a count of elements and then these, in the order of `keys`."""
    position, total = file.tell(), file.seek(0, 2)
    wanted = {storage.key: storage for storage in storages}
    if any(wanted[storage.key] != storage for storage in storages):
        raise _damaged(path, "a storage has two sizes or types")
    if not isinstance(keys, list) or len(keys) > MAX_TENSORS:
        raise _damaged(path, "it lacks the list of its storages")
    starts = {}
    for key in keys:
        storage = wanted.get(key) if isinstance(key, str) else None
        file.seek(position)
        if storage is None or file.read(8) != storage.size.to_bytes(8, "little"):
            raise _damaged(path, "a storage is not where it should be")
        starts[key] = position + 8
        position += 8 + storage.size * DTYPES[storage.dtype].itemsize
    if position > total or starts.keys() != wanted.keys():
        raise _damaged(path, "it ends before its storages do")
    return starts


def _tensors(
    content: Any, wanted: str | None, path: Path, storage_bytes: Callable[[str, int], _Bytes], swap: bool
) -> Chosen[Tensor]:
    """The tensors of the chosen dictionary, their views checked against their storages."""
    meant = _choose(content, wanted, path)
    records = meant.tensors
    if len(records) > MAX_TENSORS:
        raise _damaged(path, f"it holds more than {MAX_TENSORS} tensors")
    tensors = {
        check_name(name, str(path)): _tensor(record, f"{path}: {short(name)}", storage_bytes, swap)
        for name, record in records.items()
    }
    return Chosen(tensors, meant.name, meant.others)


def _choose(content: Any, wanted: str | None, path: Path) -> Chosen[TensorRecord]:
    """The dictionary of weights that is meant: one within the file's, or the file's own."""
    sets = dict(_sets(_dictionary(content)))
    own, nested = sets.pop("", {}), list(sets)
    asked = wanted is not None and any(wanted in (name, *name.split("/")) for name in nested)
    name = preferred(nested, wanted if asked else None, str(path))
    if name is None and not own and len(nested) == 1:
        name = nested[0]
    if name is not None:
        return Chosen(sets[name], name, tuple(other for other in nested if other != name))
    if own:
        return Chosen(own, others=tuple(nested))
    if nested:
        given = argument("weights", key="model.weights")
        raise CheckpointError(
            f"{path} holds several sets of weights: {', '.join(map(short, nested[:10]))}; name one with {given}."
        )
    keys = ", ".join(short(key) for key in list(_dictionary(content))[:10]) or "no dictionary"
    raise CheckpointError(f"{path} holds no weights; it has {keys}.")


def _sets(
    content: dict[Any, Any], depth: int = 2, name: str = ""
) -> Iterator[tuple[str, dict[str, TensorRecord]]]:
    """Yield the dictionaries that hold tensors, of those within those down to `depth`, and their names.

    A state dict may hold other things, such as counters, which are no weights.
    """
    tensors = {key: value for key, value in content.items() if isinstance(value, TensorRecord)}
    if tensors:
        yield name, tensors
    for key, value in content.items() if depth else ():
        if isinstance(key, str) and isinstance(value, dict):
            yield from _sets(value, depth - 1, f"{name}/{key}" if name else key)


def _dictionary(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}


def _tensor(
    record: TensorRecord, what: str, storage_bytes: Callable[[str, int], _Bytes], swap: bool
) -> Tensor:
    """A tensor whose elements are known to lie in its storage."""
    storage, shape, strides = record.storage, record.shape, record.strides
    if record.dtype not in DTYPES:
        raise CheckpointError(f"{what} has dtype {short(record.dtype)}; supported are {', '.join(DTYPES)}.")
    dtype = DTYPES[record.dtype]
    stored = storage.size * DTYPES[storage.dtype].itemsize
    size = byte_size(shape, dtype, what)
    offset = record.offset
    if (
        not isinstance(strides, list | tuple)
        or len(strides) != len(shape)
        or not all(type(n) is int and 0 <= n < 2**48 for n in (offset, *strides))
    ):
        raise CheckpointError(f"{what} is not a view of a storage; the file is damaged.")
    span = 1 + sum((n - 1) * step for n, step in zip(shape, strides)) if size else 0
    if (offset + span) * dtype.itemsize > stored or size > stored:
        raise CheckpointError(f"{what} reaches beyond its storage or repeats it; save a copy of the tensor.")
    read = storage_bytes(storage.key, stored)
    return Tensor(
        tuple(shape), dtype, partial(_read, read, offset, span, dtype, tuple(shape), tuple(strides), swap)
    )


def _read(
    read: _Bytes,
    offset: int,
    span: int,
    dtype: np.dtype,
    shape: tuple[int, ...],
    strides: tuple[int, ...],
    swap: bool,
) -> np.ndarray:
    raw = read(offset * dtype.itemsize, span * dtype.itemsize)
    flat = as_array(raw, dtype, (span,), swap)
    view = np.lib.stride_tricks.as_strided(flat, shape, [step * dtype.itemsize for step in strides])
    return view.copy() if not view.flags.c_contiguous else view  # `ascontiguousarray` would make () into (1,)


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(f"{path} is damaged: {why}; it was not copied completely.")
