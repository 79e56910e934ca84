"""TFRecord files: length (8 bytes), its CRC (4), data, its CRC (4), and so on; little-endian."""

import os
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from vit_jax.data.prepare.crc32c import masked_crc32c
from vit_jax.errors import DataError

_HEADER = struct.Struct("<QI")
_CRC = struct.Struct("<I")


def scan(path: Path) -> Iterator[tuple[int, int]]:
    """Yield offset and size of the data of each record, reading lengths only.

    Raises:
      DataError: the file is damaged or ends within a record.
    """
    with path.open("rb") as file:
        end, position = os.fstat(file.fileno()).st_size, 0
        while position < end:
            header = os.pread(file.fileno(), _HEADER.size, position)
            size, crc = _HEADER.unpack(header) if len(header) == _HEADER.size else (0, None)
            if crc is not None and crc != masked_crc32c(header[:8]):
                raise DataError(
                    f"{path} is not a TFRecord file or is damaged at byte {position}; fetch it again."
                )
            if crc is None or position + _HEADER.size + size + _CRC.size > end:
                raise DataError(f"{path} ends within a record, at byte {end}; fetch it again.")
            yield position + _HEADER.size, size
            position += _HEADER.size + size + _CRC.size


def read(file: BinaryIO, offset: int, size: int) -> bytes:
    """Return the data of a record that `scan` found.

    Raises:
      DataError: the data does not match its checksum.
    """
    file.seek(offset)
    block = file.read(size + _CRC.size)
    data = block[:size]
    if len(block) < size + _CRC.size or _CRC.unpack(block[size:])[0] != masked_crc32c(data):
        raise DataError("the data does not match its checksum; fetch the file again.")
    return data


def write(file: BinaryIO, data: bytes) -> None:
    """Append a record."""
    length = struct.pack("<Q", len(data))
    file.write(length + _CRC.pack(masked_crc32c(length)) + data + _CRC.pack(masked_crc32c(data)))
