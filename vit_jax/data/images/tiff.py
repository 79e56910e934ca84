"""TIFF files to arrays: the directory of the first page is read and checked here, pieces of it are unpacked by Pillow.

Pillow (through libtiff) sees a directory made anew, of what pixels depend on, so that no metadata, further page or
thumbnail can cost anything or be the reason to refuse a file. Grey values and colours of 8 and 16 bits are unpacked as
plain bytes and put together here, since Pillow leaves out the lower half of 16-bit colours; one-bit images, palettes,
CMYK and JPEG inside of TIFF are Pillow's. What is not read is refused by name.

Reference: Adobe 1992, TIFF 6.0; BigTIFF as libtiff has it.
"""

import ctypes
import io
import struct
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, TiffImagePlugin

from vit_jax.data.images.jpeg import read_header as read_jpeg_header
from vit_jax.data.images.strips import strips
from vit_jax.errors import DataError

SIGNATURES = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLOUR, _FILL_ORDER = 256, 257, 258, 259, 262, 266
_STRIPS, _ORIENTATION, _SAMPLES, _ROWS, _STRIP_SIZES, _PLANAR = 273, 274, 277, 278, 279, 284
_PREDICTOR, _COLOURS, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES = 317, 320, 322, 323, 324, 325
_EXTRA, _FORMAT, _JPEG_TABLES, _SUBSAMPLING = 338, 339, 347, 530
# What pixels depend on; with the options of fax compression.
_NEEDED = {
    *(_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _COLOUR, _FILL_ORDER, _STRIPS, _ORIENTATION, _SAMPLES, _ROWS),
    *(_STRIP_SIZES, _PLANAR, _PREDICTOR, _COLOURS, _TILE_WIDTH, _TILE_HEIGHT, _TILES, _TILE_SIZES, _EXTRA),
    *(_FORMAT, _JPEG_TABLES, _SUBSAMPLING, 292, 293),
}
# Bytes and letters of the types of fields that hold integers or bytes.
_TYPES = {1: "B", 3: "H", 4: "I", 7: "B", 13: "I", 16: "Q"}
_NONE, _JPEG, _FAX = 1, 7, (2, 3, 4)
_COMPRESSIONS = {
    1: "none",
    2: "fax",
    3: "fax",
    4: "fax",
    5: "LZW",
    7: "JPEG",
    8: "deflate",
    32773: "PackBits",
    32946: "deflate",
}
_OTHER_COMPRESSIONS = {
    6: "old JPEG",
    34712: "JPEG 2000",
    34925: "LZMA",
    50000: "Zstandard",
    50001: "WebP",
    34887: "LERC",
}
_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _INK, _YCBCR = 0, 1, 2, 3, 5, 6
_COLOUR_KINDS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 5: "CMYK", 6: "YCbCr"}
_OTHER_COLOURS = {
    4: "a mask",
    8: "CIELab",
    9: "ICCLab",
    10: "ITULab",
    32803: "of a colour filter (raw)",
    34892: "linear raw",
}
_FORMATS = {2: "signed integers", 3: "floating-point numbers", 5: "complex integers", 6: "complex numbers"}
_ASSOCIATED, _UNASSOCIATED = 1, 2
_MOST_FIELDS = 4096


@dataclass(frozen=True)
class TiffHeader:
    """What the first directory of a file says.

    Attributes:
      height, width: as stored, before any rotation.
      padded: width and height with whole strips or tiles, which is what unpacking takes.
      bits: of a value.
      samples: values of a pixel.
      colour: what they mean, `grey`, `RGB`, `palette`, `CMYK` or `YCbCr`.
      alpha: whether the last is alpha.
      orientation: as EXIF's, 1 for none.
      pages: whether there are more.
      fields: of the directory: type, count and bytes by number.
      order: of bytes, `<` or `>`.
    """

    height: int
    width: int
    padded: tuple[int, int]
    bits: int
    samples: int
    colour: str
    alpha: bool
    orientation: int
    pages: bool
    fields: dict[int, tuple[int, int, bytes]]
    order: str

    def numbers(self, field: int, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return the values of a field."""
        if field not in self.fields:
            return default
        kind, count, value = self.fields[field]
        return struct.unpack(f"{self.order}{count}{_TYPES[kind]}", value)

    def number(self, field: int, default: int = 0) -> int:
        """Return the first value of a field."""
        return (*self.numbers(field), default)[0]


def tiff_header(data: bytes) -> TiffHeader:
    """Return what the first page of a file is.

    Raises:
      DataError: it is of a kind that is not read.
      ValueError, struct.error: it is damaged.
    """
    order, big = "<" if data[:2] == b"II" else ">", data[2:4] in (b"+\0", b"\0+")
    fields, following = _fields(data, order, big)
    header = TiffHeader(0, 0, (0, 0), 0, 0, "", False, 1, bool(following), fields, order)
    width, height = header.number(_WIDTH), header.number(_HEIGHT)
    samples = header.number(_SAMPLES, 1)
    bits = header.numbers(_BITS, (1,))
    colour, compression = header.number(_COLOUR, -1), header.number(_COMPRESSION, _NONE)
    if header.number(_FORMAT, 1) in _FORMATS:
        raise _not_read(f"has {_FORMATS[header.number(_FORMAT)]}")
    if compression not in _COMPRESSIONS:
        raise _not_read(f"is compressed with {_OTHER_COMPRESSIONS.get(compression, f'method {compression}')}")
    if colour not in _COLOUR_KINDS:
        raise _not_read(f"has colours that are {_OTHER_COLOURS.get(colour, f'of kind {colour}')}")
    if len(set(bits)) > 1 or bits[0] not in (1, 2, 4, 8, 16):
        raise _not_read(f"has {'+'.join(map(str, bits[:8]))} bits per channel")
    alpha = _alpha(header, colour, samples)
    if bits[0] == 16 and colour not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB):
        raise _not_read(f"is {_COLOUR_KINDS[colour]} of 16 bits")
    if bits[0] < 8 and (samples > 1 or colour not in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _PALETTE)):
        raise _not_read(f"has {bits[0]} bits for each of {samples} channels")
    if samples > 1 and header.number(_PLANAR, 1) != 1:
        raise _not_read("has its channels one after the other, as planes")
    if bits[0] > 1 and header.number(_FILL_ORDER, 1) != 1:
        raise _not_read("has its bits in the reversed order")
    if header.number(_PREDICTOR, 1) not in (1, 2):
        raise _not_read(f"is compressed with predictor {header.number(_PREDICTOR)}")
    return TiffHeader(
        height,
        width,
        _padded(header, width, height),
        bits[0],
        samples,
        _COLOUR_KINDS[colour],
        alpha,
        header.number(_ORIENTATION, 1),
        header.pages,
        fields,
        order,
    )


def _not_read(what: str) -> DataError:
    return DataError(
        f"the TIFF image {what}; read are grey, RGB and RGBA of 8 and 16 bits, one-bit, palette and CMYK images: "
        "convert it, or give arrays (data.source 'arrays')."
    )


def _fields(data: bytes, order: str, big: bool) -> tuple[dict[int, tuple[int, int, bytes]], int]:
    """Return type, count and bytes of the fields of the first directory that matter, and where the next one is."""
    word, counter, inline = ("Q", "Q", 8) if big else ("I", "H", 4)
    (start,) = struct.unpack_from(order + word, data, 8 if big else 4)
    (count,) = struct.unpack_from(order + counter, data, start)
    if count > _MOST_FIELDS:
        raise ValueError(f"it claims {count} fields")
    entry = struct.Struct(f"{order}HH{word}{inline}s")
    position, found = start + struct.calcsize(order + counter), {}
    for _ in range(count):
        field, kind, values, value = entry.unpack_from(data, position)
        position += entry.size
        if field not in _NEEDED or field in found:
            continue
        if kind not in _TYPES or not values:
            raise ValueError(f"field {field} is not of numbers")
        size = values * struct.calcsize(order + _TYPES[kind])
        if size > inline:
            (at,) = struct.unpack(order + word, value)
            value = data[at : at + size]
        if len(value) < size:
            raise ValueError(f"field {field} lies beyond its end")
        found[field] = kind, values, value[:size]
    following = data[position : position + inline]
    return found, int.from_bytes(following, "little")


def _alpha(header: TiffHeader, colour: int, samples: int) -> bool:
    """Return whether the last channel is alpha.

    Raises:
      DataError: there are channels of which it is not said what they are.
    """
    known = {_RGB: 3, _YCBCR: 3, _INK: 4}.get(colour, 1)
    extra = header.numbers(_EXTRA)[: max(0, samples - known)]
    if samples == known:
        return False
    if samples == known + 1 and extra in ((_ASSOCIATED,), (_UNASSOCIATED,)) and colour != _INK:
        return True
    if (
        samples == 4 and colour == _RGB and _EXTRA not in header.fields
    ):  # as OpenCV writes RGBA, and Pillow reads it
        return True
    raise _not_read(
        f"has {samples} channels, {known} of {_COLOUR_KINDS[colour]} and others that are not alpha"
    )


def _padded(header: TiffHeader, width: int, height: int) -> tuple[int, int]:
    """Return width and height of the whole tiles or strips."""
    if _TILES in header.fields:
        tile = header.number(_TILE_WIDTH), header.number(_TILE_HEIGHT)
        if min(tile) < 1:
            raise ValueError("its tiles have no size")
        return -(-width // tile[0]) * tile[0], -(-height // tile[1]) * tile[1]
    return width, height


def decode_tiff(data: bytes, header: TiffHeader) -> np.ndarray | Image.Image:
    """Return the pixels of the first page as stored.

    Returns:
      uint8 `(h, w, 1)` or `(h, w, 3)`, laid over white; or an image of Pillow's.

    Raises:
      DataError: of a kind that is not read.
      ValueError: damaged; also whatever Pillow raises.
    """
    compression = header.number(_COMPRESSION, _NONE)
    _check_pieces(data, header, compression)
    if header.bits >= 8 and header.colour in ("grey", "RGB") and compression != _JPEG:
        return _over_white(_values(data, header), header)
    image = _opened(data, header, {_ORIENTATION: None})
    image.load()
    return image


def tiff_values(data: bytes, header: TiffHeader) -> np.ndarray:
    """Return the values of the first page as they are stored, `(h, w)` or `(h, w, c)`; indices of a palette too.

    Raises:
      DataError: compression may have changed them.
      ValueError: damaged; also whatever Pillow raises.
    """
    compression = header.number(_COMPRESSION, _NONE)
    if compression == _JPEG:
        raise DataError("it is compressed as JPEG, which changes values; save it as PNG.")
    _check_pieces(data, header, compression)
    if header.bits >= 8 and header.colour in ("grey", "RGB"):
        return _values(data, header)
    image = _opened(data, header, {_ORIENTATION: None})
    image.load()
    return np.asarray(image)


def _check_pieces(data: bytes, header: TiffHeader, compression: int) -> None:
    """Raise `ValueError` unless all strips or tiles are there, and `DataError` for JPEG in several scans."""
    tiled = _TILES in header.fields
    places = header.numbers(_TILES if tiled else _STRIPS)
    sizes = header.numbers(_TILE_SIZES if tiled else _STRIP_SIZES)
    width, height = header.padded
    tile_width, tile_height = header.number(_TILE_WIDTH), header.number(_TILE_HEIGHT)
    rows = tile_height if tiled else min(header.number(_ROWS, height) or height, height)
    expected = -(-height // rows) * (width // tile_width if tiled else 1)
    if len(places) != expected or len(sizes) != expected:
        raise ValueError(f"it has {len(places)} of {expected} pieces and {len(sizes)} sizes")
    bits = header.bits * header.samples
    for number, (place, size) in enumerate(zip(places, sizes)):
        if place + size > len(data):
            raise ValueError("it ends within its pixels")
        if compression == _NONE:
            lines = rows if tiled else min(rows, height - number * rows)
            if size < lines * (((tile_width if tiled else width) * bits + 7) // 8):
                raise ValueError("it has fewer rows than its header says")
        if compression == _JPEG:
            jpeg = read_jpeg_header(data[place : place + size])
            if not jpeg.in_order or jpeg.width * jpeg.height > max(
                1, (tile_width if tiled else width) * rows
            ):
                raise _not_read("has JPEG inside that is not baseline or of another size")


def _opened(data: bytes, header: TiffHeader, changes: dict[int, Any]) -> Image.Image:
    """Return Pillow's image of a copy whose directory has only what is needed, with some fields changed.

    Args:
      data: the file.
      header: of it.
      changes: new values by field; None leaves a field out.
    """
    order, fields = header.order, dict(header.fields)
    for field, value in changes.items():
        fields.pop(field, None)
        if value is not None:
            fields[field] = 4, 1, struct.pack(order + "I", value)
    start = len(data) + len(data) % 2
    table, rest = struct.pack(order + "H", len(fields)), b""
    behind = start + len(table) + len(fields) * 12 + 4
    for field, (kind, count, value) in sorted(fields.items()):
        if _TYPES[kind] == "Q":  # which BigTIFF has; Pillow reads that in one order of bytes only
            kind, value = 4, struct.pack(f"{order}{count}I", *struct.unpack(f"{order}{count}Q", value))
        table += struct.pack(order + "HHI", field, kind, count)
        if len(value) > 4:
            table += struct.pack(order + "I", behind + len(rest))
            rest += value + bytes(len(value) % 2)
        else:
            table += value.ljust(4, b"\0")
    mark = SIGNATURES[0] if order == "<" else SIGNATURES[1]
    head = mark + struct.pack(order + "I", start)
    copy = b"".join([head, data[8:], bytes(len(data) % 2), table, bytes(4), rest])
    _quieten()
    return TiffImagePlugin.TiffImageFile(io.BytesIO(copy))


@cache
def _quieten() -> None:
    """Keep Pillow's libtiff from printing what it says of damaged files; Pillow raises for these all the same."""
    # Symbols are looked up in what the module was linked with; where that has none, there is nothing to quieten.
    handler = getattr(ctypes.CDLL(Image.core.__file__), "TIFFSetErrorHandler", None)
    if handler is not None:
        handler.argtypes, handler.restype = [ctypes.c_void_p], ctypes.c_void_p
        handler(None)


def _values(data: bytes, header: TiffHeader) -> np.ndarray:
    """Return the values of an image of 8 or 16 bits, uint8 or uint16 `(h, w, c)`.

    The bytes of a row are what Pillow takes for the pixels of a wider grey image.
    """
    item = header.bits // 8
    wide = item * header.samples
    changes = {
        _WIDTH: header.width * wide,
        _BITS: 8,
        _SAMPLES: 1,
        _COLOUR: _BLACK_IS_ZERO,
        _ORIENTATION: None,
        _PREDICTOR: None,
        _EXTRA: None,
        _FORMAT: None,
        _PLANAR: None,
    }
    if _TILES in header.fields:
        changes[_TILE_WIDTH] = header.number(_TILE_WIDTH) * wide
    image = _opened(data, header, changes)
    image.load()
    kind = np.dtype(f"{header.order}u{item}")
    values = np.array(image).view(kind).reshape(header.height, header.width, header.samples)
    if header.number(_PREDICTOR, 1) == 1:
        return values
    # Each value is the difference to the one on its left, in every tile anew.
    values = values.astype(kind.newbyteorder("="))
    across = header.number(_TILE_WIDTH) if _TILES in header.fields else header.width
    for left in range(0, header.width, across):
        part = values[:, left : left + across]
        np.cumsum(part, axis=1, dtype=values.dtype, out=part)
    return values


def _over_white(values: np.ndarray, header: TiffHeader) -> np.ndarray:
    """Return values as uint8 grey or RGB laid over white; of 16 bits, divided by 257 and rounded once."""
    height, width, samples = values.shape
    most, colours = 2**header.bits - 1, samples - header.alpha
    inverted = header.number(_COLOUR) == _WHITE_IS_ZERO
    if most == 255 and not header.alpha:
        return ~values if inverted else values
    result = np.empty((height, width, colours), np.uint8)
    associated = header.numbers(_EXTRA)[:1] == (_ASSOCIATED,)
    for rows in strips(height, width):
        strip = values[rows].astype(np.uint32)
        colour = most - strip[..., :colours] if inverted else strip[..., :colours]
        if not header.alpha:
            result[rows] = _eight_bits(colour)
            continue
        opacity = strip[..., -1:]
        if associated:
            whole = np.minimum(colour + (most - opacity), most)
            result[rows] = whole if most == 255 else _eight_bits(whole)
        else:
            share = opacity * np.float32(1 / most / (most // 255))
            result[rows] = np.rint(255 - (most - colour).astype(np.float32) * share)
    return result


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """Return 16-bit values divided by 257, rounded."""
    return (values * 255 + 32895) >> 16
