"""Tables in files of MATLAB (level 5, MAT-files since 1996), read strictly.

Of the format only what a table of numbers and texts needs is known. SciPy's reader knows all of it, and is killed by
the system when lengths in a file are damaged.

Source: MAT-File Format, The MathWorks (mathworks.com/help/pdf_doc/matlab/matfile_format.pdf).
"""

import math
import struct
import zlib
from collections.abc import Iterator
from typing import Any

import numpy as np

_HEADER = 128
_MATRIX, _COMPRESSED = 14, 15
_STRUCT, _CHAR = 2, 4  # classes of matrices; those from 6 to 15 are numbers
_NUMBERS = {
    1: "i1",
    2: "u1",
    3: "<i2",
    4: "<u2",
    5: "<i4",
    6: "<u4",
    7: "<f4",
    9: "<f8",
    12: "<i8",
    13: "<u8",
}
_TEXTS = {1: "latin-1", 2: "latin-1", 4: "utf-16-le", 16: "utf-8", 17: "utf-16-le", 18: "utf-32-le"}


def read_table(content: bytes, name: str, limit: int) -> list[dict[str, Any]]:
    """Return the rows of a variable that is an array of structures; their values are texts or lists of numbers.

    Args:
      content: of the file.
      name: of the variable.
      limit: bytes that it may have, unpacked.

    Raises:
      ValueError: the file has no such variable, is damaged, or holds what is not known here.
    """
    if content[126:128] != b"IM":
        raise ValueError("it is no little-endian file of MATLAB")
    for kind, data in _elements(content[_HEADER:]):
        if kind == _COMPRESSED:
            unpacker = zlib.decompressobj()
            try:
                data = unpacker.decompress(data, limit)
            except zlib.error as error:
                raise ValueError(f"its data cannot be unpacked ({error})") from error
            if unpacker.unconsumed_tail:
                raise ValueError(f"its data unpack to more than {limit} bytes")
            kind, data = _take(_elements(data))
        if kind == _MATRIX:
            found, value = _matrix(data)
            if found == name and isinstance(value, list) and all(isinstance(row, dict) for row in value):
                return value
    raise ValueError(f"it has no table {name!r}")


def _elements(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the kind and the bytes of each element."""
    position = 0
    while position + 8 <= len(data):
        kind, size = struct.unpack_from("<II", data, position)
        start, after = position + 8, 8
        if kind >> 16:  # a short element: its size, its kind and four bytes of data
            kind, size, start, after = kind & 0xFFFF, kind >> 16, position + 4, 4
        if start + size > len(data) or (after == 4 and size > 4):
            raise ValueError(f"an element at byte {position} ends behind the data")
        yield kind, data[start : start + size]
        padding = -size % 8 if kind != _COMPRESSED else 0
        position = position + 8 if after == 4 else start + size + padding


def _take(elements: Iterator[tuple[int, bytes]]) -> tuple[int, bytes]:
    try:
        return next(elements)
    except StopIteration:
        raise ValueError("it ends within an array") from None


def _matrix(data: bytes, inside: bool = False) -> tuple[str, Any]:
    """Return the name and the value of an array: rows, a text, or a list of numbers."""
    if not data:
        return "", []
    elements = _elements(data)
    flags = _take(elements)[1]
    sizes = np.frombuffer(_take(elements)[1], "<i4").tolist()
    name = _take(elements)[1].decode("ascii")
    kind = flags[0] if flags else 0
    if kind == _STRUCT and not inside:
        length = max(1, int.from_bytes(_take(elements)[1], "little"))
        names = _take(elements)[1]
        fields = [
            names[i : i + length].partition(b"\0")[0].decode("ascii") for i in range(0, len(names), length)
        ]
        count = math.prod(sizes)
        if not 0 <= count * len(fields) <= len(data) // 8:
            raise ValueError(f"{count} rows of {len(fields)} fields cannot lie in {len(data)} bytes")
        return name, [{field: _matrix(_take(elements)[1], True)[1] for field in fields} for _ in range(count)]
    type_, raw = _take(elements)
    if kind == _CHAR and type_ in _TEXTS:
        return name, raw.decode(_TEXTS[type_])
    if 6 <= kind <= 15 and type_ in _NUMBERS:
        return name, np.frombuffer(raw, _NUMBERS[type_]).tolist()
    raise ValueError(f"an array is of class {kind}, which is neither numbers nor text")
