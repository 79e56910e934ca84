"""Writing the zip files of `torch.save` without PyTorch, one array at a time.

Format: https://github.com/pytorch/pytorch, torch/serialization.py: `data.pkl`, a pickle of protocol 2 that names a
storage for each tensor, and a member `data/N` with the bytes of each. Read again by `torch_format`.
"""

import struct
import sys
import zipfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from vit_jax.errors import CheckpointError
from vit_jax.weights.formats.pickle_reader import KINDS
from vit_jax.weights.formats.tensors import bytes_of, replacing

# Types of elements that have a class of storages in PyTorch; wide numbers without a sign do not.
DTYPES = {name: kind for name, kind in KINDS.items() if not kind.startswith("UInt")}
ROOT = "archive"
ALIGNMENT = 64  # of storages, so that they can be mapped into memory
_PADDING = struct.Struct("<2sH")  # an extra field of a zip's member: a kind, and how many bytes follow
_LOCAL_HEADER, _ZIP64 = 30, 20  # bytes before a member's name, and behind it where its size needs 64 bits
_DICTIONARY = b"ccollections\nOrderedDict\n)R"
_Spec = tuple[str, tuple[int, ...], np.dtype]


def write(
    path: Path, specs: Iterable[_Spec], read: Callable[[str], np.ndarray], inside: str = "model"
) -> None:
    """Write a state dict as `torch.save` does, holding one array at a time.

    Args:
      path: the file; it appears whole or not at all.
      specs: name, shape and dtype of every array, in the order of the state dict.
      read: returns the array of a name.
      inside: the key of the file's dictionary that holds the state; empty for a file that is the state itself.

    Raises:
      CheckpointError: a dtype that the format lacks.
      ResourceError: the disk is full or the folder may not be written.
    """
    entries = [(name, tuple(shape), np.dtype(dtype)) for name, shape, dtype in specs]
    for name, _, dtype in entries:
        if dtype.name not in DTYPES:
            raise CheckpointError(f"{name} is {dtype}; PyTorch holds {', '.join(DTYPES)}: convert it first.")
    with (
        replacing(path) as temporary,
        open(temporary, "wb") as file,
        zipfile.ZipFile(file, "w") as archive,
    ):
        members = {
            "data.pkl": pickled(entries, inside),
            "byteorder": sys.byteorder.encode(),
            "version": b"3\n",
        }
        for name, content in members.items():
            archive.writestr(zipfile.ZipInfo(f"{ROOT}/{name}"), content)
        for number, (name, shape, dtype) in enumerate(entries):
            content = bytes_of(read(name), name, shape, dtype)
            with archive.open(_member(f"{ROOT}/data/{number}", len(content), file), "w") as member:
                member.write(content)


def pickled(entries: Iterable[_Spec], inside: str) -> bytes:
    """Return the pickle of a state dict whose tensors fill storages of their own, numbered from 0."""
    items = (
        _text(name) + _tensor(number, shape, dtype) for number, (name, shape, dtype) in enumerate(entries)
    )
    state = _DICTIONARY + b"(" + b"".join(items) + b"u"
    return b"\x80\x02" + (b"}" + _text(inside) + state + b"s" if inside else state) + b"."


def _tensor(number: int, shape: tuple[int, ...], dtype: np.dtype) -> bytes:
    """Return the call that rebuilds a tensor: storage, offset, shape, steps, no gradient and no hooks."""
    elements, steps = 1, []
    for size in reversed(shape):
        steps.append(elements)
        elements *= size
    kind = f"ctorch\n{DTYPES[dtype.name]}Storage\n".encode()
    storage = _tuple(_text("storage"), kind, _text(str(number)), _text("cpu"), _number(elements)) + b"Q"
    sizes, strides = (_tuple(*map(_number, numbers)) for numbers in (shape, reversed(steps)))
    arguments = _tuple(storage, _number(0), sizes, strides, b"\x89", _DICTIONARY)
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"R"


def _tuple(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def _text(value: str) -> bytes:
    content = value.encode()
    return b"X" + struct.pack("<I", len(content)) + content


def _number(value: int) -> bytes:
    if value < 2**31:
        return b"J" + struct.pack("<i", value)
    content = value.to_bytes(value.bit_length() // 8 + 1, "little")
    return b"\x8a" + bytes([len(content)]) + content


def _member(name: str, size: int, file: BinaryIO) -> zipfile.ZipInfo:
    """Return a member whose bytes will start at a multiple of `ALIGNMENT`; its time is fixed."""
    member = zipfile.ZipInfo(name)
    member.file_size = size  # decides whether it needs 64 bits, as zipfile does itself
    wide = _ZIP64 if size * 1.05 > zipfile.ZIP64_LIMIT else 0
    start = file.tell() + _LOCAL_HEADER + len(name) + _PADDING.size + wide
    padding = -start % ALIGNMENT
    member.extra = _PADDING.pack(b"FB", padding) + b"Z" * padding
    return member
