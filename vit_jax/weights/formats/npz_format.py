"""npz: a zip archive of numpy arrays, as big_vision and its ancestors publish their weights.

Each member is an `.npy` file: a short header, then the bytes (numpy's NEP 1, Kern 2007). Headers are read by a
strict pattern instead of numpy's reader, which evaluates them and knows arrays of pickled objects. bfloat16 has
no name in the format; big_vision stores it as raw two-byte elements, `|V2`.
"""

import re
import sys
import zipfile
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path

import ml_dtypes
import numpy as np

from vit_jax.errors import CheckpointError
from vit_jax.weights.formats.tensors import (
    Tensor,
    as_array,
    byte_size,
    bytes_of,
    check_name,
    replacing,
    short,
)
from vit_jax.weights.formats.zip_archive import Archive

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
MAX_HEADER = 10_000
_NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8")
_SIZES = r"\((?:\d+L?(?:, ?\d+L?)*,?)?\)"
_ITEM = rf"\s*'(?:descr|fortran_order|shape)':\s*(?:'[^']*'|True|False|{_SIZES})\s*,?"
_HEADER = re.compile(rf"\{{(?:{_ITEM}){{3}}\s*\}}\s*")
_DESCR = re.compile(r"'descr':\s*'([<>|=])(\w+)'")
_SHAPE = re.compile(rf"'shape':\s*({_SIZES})")


def read(archive: Archive) -> dict[str, Tensor]:
    """Describe the arrays of an npz file, in the order of the archive.

    Args:
      archive: the opened file.

    Returns:
      name without `.npy` -> tensor.

    Raises:
      CheckpointError: the file is damaged, or a member is no array of numbers.
    """
    path = archive.path
    tensors = {}
    for member in archive.names():
        name = check_name(member.removesuffix(".npy"), str(path))
        if name == member:
            raise CheckpointError(
                f"{path}: member {short(member)} is not an array; an npz holds only .npy members."
            )
        tensors[name] = _describe(archive, member)
    return tensors


def write(
    path: Path, specs: Iterable[tuple[str, tuple[int, ...], np.dtype]], read: Callable[[str], np.ndarray]
) -> None:
    """Write an npz file as `np.savez` does, holding one array at a time; bfloat16 as raw two-byte elements.

    Args:
      path: the file; it appears whole or not at all.
      specs: name, shape and dtype of every array, in the order wanted.
      read: returns the array of a name.

    Raises:
      CheckpointError: a dtype that the format lacks.
      ResourceError: the disk is full or the folder may not be written.
    """
    with replacing(path) as temporary, zipfile.ZipFile(temporary, "w", allowZip64=True) as archive:
        for name, shape, dtype in specs:
            descr = "|V2" if dtype == BFLOAT16 else np.dtype(dtype).str
            if descr != "|V2" and descr[1:] not in _NUMBERS:
                raise CheckpointError(
                    f"{name} is {dtype}; npz holds bfloat16, {', '.join(_NUMBERS)}: convert it."
                )
            header = {"descr": descr, "fortran_order": False, "shape": tuple(shape)}
            # A fixed time, so that equal weights give equal files.
            with archive.open(zipfile.ZipInfo(f"{name}.npy"), "w", force_zip64=True) as member:
                np.lib.format.write_array_header_1_0(member, header)
                member.write(bytes_of(read(name), name, shape, dtype))


def _describe(archive: Archive, member: str) -> Tensor:
    """Shape and dtype from a member's header, checked against the member's size."""
    what = f"{archive.path}: {short(member)}"
    damaged = CheckpointError(
        f"{what} has no valid numpy header; it is damaged or was not copied completely."
    )
    size = archive.size(member) or 0
    start = bytes(archive.read(member, 0, min(size, 12)))
    width = {1: 2, 2: 4, 3: 4}.get(start[6] if len(start) == 12 else 0, 0)
    length = int.from_bytes(start[8 : 8 + width], "little")
    if start[:6] != b"\x93NUMPY" or not width or length > min(MAX_HEADER, size - 8 - width):
        raise damaged
    header = bytes(archive.read(member, 8 + width, length)).decode("latin-1")
    if "'|O'" in header or "'O'" in header:
        raise CheckpointError(
            f"{what} holds pickled Python objects, which are never loaded; save arrays of numbers."
        )
    descr, shape = _DESCR.search(header), _SHAPE.search(header)
    if not descr or not shape or not _HEADER.fullmatch(header):
        raise damaged
    order, kind = descr.groups()
    if kind != "V2" and kind not in _NUMBERS:
        raise CheckpointError(
            f"{what} has dtype {short(kind)}; supported are V2 (bfloat16), {', '.join(_NUMBERS)}."
        )
    dtype = BFLOAT16 if kind == "V2" else np.dtype(kind)
    dimensions = tuple(int(n[:20]) for n in re.findall(r"\d+", shape[1]))
    declared = byte_size(dimensions, dtype, what)
    offset = 8 + width + length
    if declared != size - offset:
        raise CheckpointError(
            f"{what} declares {declared} bytes but has {size - offset}; the file is damaged."
        )
    swap = order == (">" if sys.byteorder == "little" else "<")
    fortran = re.search(r"'fortran_order':\s*True", header) is not None
    return Tensor(
        dimensions, dtype, partial(_read, archive, member, offset, declared, dtype, dimensions, swap, fortran)
    )


def _read(archive: Archive, member: str, offset: int, size: int, *view) -> np.ndarray:
    return as_array(archive.read(member, offset, size), *view)
