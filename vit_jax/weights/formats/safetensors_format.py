"""Safetensors: a JSON header with name, dtype, shape and place of every tensor, then their bytes.

Format: https://github.com/huggingface/safetensors (Hugging Face, 2022). Read and written here one tensor at a
time, so that converting a model takes the memory of its largest tensor.
"""

import json
import os
import struct
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vit_jax.errors import CheckpointError
from vit_jax.weights.formats.tensors import (
    MAX_TENSORS,
    Tensor,
    as_array,
    byte_size,
    bytes_of,
    check_name,
    file_bytes,
    parse_json,
    reading,
    replacing,
    short,
)

MAX_HEADER = (
    10_000_000  # a hundred times what the largest published ViT needs; parsed JSON is 30 times larger
)
# In the order in which the library writes them: widest first, so that each tensor is aligned.
DTYPES = {
    "U64": np.dtype("<u8"),
    "I64": np.dtype("<i8"),
    "F64": np.dtype("<f8"),
    "F32": np.dtype("<f4"),
    "U32": np.dtype("<u4"),
    "I32": np.dtype("<i4"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F16": np.dtype("<f2"),
    "U16": np.dtype("<u2"),
    "I16": np.dtype("<i2"),
    "I8": np.dtype("i1"),
    "U8": np.dtype("u1"),
    "BOOL": np.dtype(bool),
}
_NAMES = {dtype: name for name, dtype in DTYPES.items()}
_RANK = {name: rank for rank, name in enumerate(DTYPES)}


def read(path: Path) -> dict[str, Tensor]:
    """Describe the tensors of a file, in the order of their bytes.

    Args:
      path: a `.safetensors` file.

    Returns:
      name -> tensor.

    Raises:
      CheckpointError: the file breaks the format or holds a dtype that is not supported.
    """
    with reading(path), open(path, "rb") as file:
        size = os.fstat(file.fileno()).st_size
        prefix = file.read(8)
        length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else size
        if length > min(size - 8, MAX_HEADER):
            raise _damaged(path, f"its header has {length} bytes, more than the file or {MAX_HEADER}")
        text = file.read(length)
    header = parse_json(text, path) if text.startswith(b"{") else None
    if not isinstance(header, dict):
        raise _damaged(path, "its header is not a JSON object")
    metadata = header.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _damaged(path, "its metadata are not text")
    if len(header) > MAX_TENSORS:
        raise _damaged(path, f"it declares more than {MAX_TENSORS} tensors")
    start = 8 + length
    entries = sorted(
        (_entry(name, value, path) for name, value in header.items()), key=lambda entry: entry[3:]
    )
    position = 0
    tensors = {}
    for name, dtype, shape, begin, end in entries:
        if begin != position:
            raise _damaged(path, f"the bytes of {short(name)} overlap others or leave a hole")
        position = end
        tensors[name] = Tensor(shape, dtype, partial(_read, path, start + begin, end - begin, dtype, shape))
    if position != size - start:
        raise _damaged(path, f"its tensors take {position} bytes, but {size - start} follow the header")
    return tensors


def write(
    path: Path,
    specs: Iterable[tuple[str, tuple[int, ...], np.dtype]],
    read: Callable[[str], np.ndarray],
    metadata: Mapping[str, str],
) -> None:
    """Write a file as the safetensors library does, holding one tensor at a time.

    Args:
      path: the file; it appears whole or not at all.
      specs: name, shape and dtype of every tensor.
      read: returns the tensor of a name.
      metadata: text stored in the header; transformers requires `format`.

    Raises:
      CheckpointError: a dtype that the format lacks.
      ResourceError: the disk is full or the folder may not be written.
    """
    entries = []
    for name, shape, dtype in specs:
        if np.dtype(dtype) not in _NAMES:
            raise CheckpointError(
                f"{name} is {dtype}; safetensors holds {', '.join(DTYPES)}: convert it first."
            )
        entries.append((name, tuple(shape), np.dtype(dtype)))
    entries.sort(key=lambda entry: (_RANK[_NAMES[entry[2]]], entry[0]))
    header: dict[str, Any] = {"__metadata__": dict(metadata)} if metadata else {}
    position = 0
    for name, shape, dtype in entries:
        begin, position = position, position + byte_size(shape, dtype, name)
        header[name] = {"dtype": _NAMES[dtype], "shape": list(shape), "data_offsets": [begin, position]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with replacing(path) as temporary, open(temporary, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        for name, shape, dtype in entries:
            file.write(bytes_of(read(name), name, shape, dtype))


def _read(path: Path, offset: int, size: int, dtype: np.dtype, shape: tuple[int, ...]) -> np.ndarray:
    return as_array(file_bytes(path, offset, size), dtype, shape)


def _entry(name: str, value: Any, path: Path) -> tuple[str, np.dtype, tuple[int, ...], int, int]:
    """Name, dtype, shape, first and last byte of a header entry, checked on its own."""
    what = f"{path}: {short(check_name(name, str(path)))}"
    if not isinstance(value, dict) or set(value) != {"dtype", "shape", "data_offsets"}:
        raise _damaged(path, f"{short(name)} lacks dtype, shape or data_offsets")
    kind, shape, offsets = value["dtype"], value["shape"], value["data_offsets"]
    if not isinstance(kind, str) or kind not in DTYPES:
        raise CheckpointError(
            f"{what} has dtype {short(kind)}; supported are {', '.join(DTYPES)}: convert it first."
        )
    size = byte_size(shape, DTYPES[kind], what)
    if (
        not isinstance(offsets, list)
        or len(offsets) != 2
        or not all(type(n) is int and n >= 0 for n in offsets)
    ):
        raise _damaged(path, f"{short(name)} does not have two offsets")
    if offsets[1] - offsets[0] != size:
        raise _damaged(path, f"{short(name)} takes {size} bytes, but its offsets do not")
    return name, DTYPES[kind], tuple(shape), offsets[0], offsets[1]


def _damaged(path: Path, why: str) -> CheckpointError:
    return CheckpointError(
        f"{path} is not a valid safetensors file: {why}; it is damaged or was not copied completely."
    )
