"""PNG files to RGB arrays: their chunks are read and checked here, the pixels decoded by Pillow.

Only the chunks that pixels depend on are passed on, after their checksums were compared. So no text, colour profile
or animation can cost anything or be the reason to refuse a file, and a flipped bit is an error and no other pixel.
Values of 16 bits are read in two halves, because Pillow would leave out the lower one.
"""

import io
import struct
import zlib

import numpy as np
from PIL import Image, PngImagePlugin

from vit_jax.data.images.strips import strips

SIGNATURE = b"\x89PNG\r\n\x1a\n"
_PIECE = 2**16  # bytes unpacked at a time
_NEEDED = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND", b"eXIf")
# First row, first column, and steps of the seven passes of an interlaced image.
_PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
# Channels by colour type.
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
# Mode of Pillow and coding of the bytes of a 16-bit image, by colour type: such that two images together have all
# of them, or one whose channels are the bytes.
_HALVES = {
    0: ("LA", ("LA",)),
    2: ("RGB", ("RGB;16B", "RGB;16L")),
    4: ("RGBA", ("RGBA",)),
    6: ("RGBA", ("RGBA;16B", "RGBA;16L")),
}


def png_size(data: bytes) -> tuple[int, int]:
    """Return width and height; `struct.error` if the file is too short."""
    return struct.unpack_from(">II", data, 16)


def read_png(data: bytes) -> tuple[Image.Image | np.ndarray, bytes]:
    """Return the pixels of a file, and its EXIF block.

    Returns:
      An image of Pillow's, or of a 16-bit file uint8 `(h, w, 3)` laid over white; and bytes.

    Raises:
      ValueError: the file is damaged; also whatever Pillow raises.
    """
    chunks, first = _read_chunks(data)
    exif, palette, transparent = (first.get(name, b"") for name in (b"eXIf", b"PLTE", b"tRNS"))
    header, parts = _header(first), _pixels(chunks)
    if header[2] == 16:
        return _sixteen_bits(header, _joined(parts), transparent[8:-4]), exif[8:-4]
    if header[3] == 3 and len(palette) < 15:
        raise ValueError("its palette is missing")
    if header[3] not in (0, 2, 3):
        transparent = b""  # it has alpha
    return _opened(first, header, parts, palette, transparent), exif[8:-4]


def read_values(data: bytes) -> tuple[Image.Image, bytes]:
    """Return the values of a file as they are stored, indices of its palette and 16 bits, and its EXIF block.

    Raises:
      ValueError: the file is damaged; also whatever Pillow raises.
    """
    chunks, first = _read_chunks(data)
    image = _opened(first, _header(first), _pixels(chunks), first.get(b"PLTE", b""), b"")
    return image, first.get(b"eXIf", b"")[8:-4]


def _read_chunks(data: bytes) -> tuple[list[tuple[bytes, bytes]], dict[bytes, bytes]]:
    """Return the chunks that matter, and the first of each name."""
    chunks = _chunks(data)
    if chunks[0][0] != b"IHDR" or len(chunks[0][1]) != 25:
        raise ValueError("it does not begin with its size")
    return chunks, dict(reversed(chunks))


def _header(first: dict[bytes, bytes]) -> tuple[int, ...]:
    """Return width, height, bits, colour type, two methods, and whether the image is interlaced."""
    return struct.unpack(">IIBBBBB", first[b"IHDR"][8:-4])


def _pixels(chunks: list[tuple[bytes, bytes]]) -> list[bytes]:
    """Return the chunks of the pixels."""
    return [chunk for name, chunk in chunks if name == b"IDAT"]


def _opened(
    first: dict[bytes, bytes], header: tuple[int, ...], parts: list[bytes], palette: bytes, transparent: bytes
) -> Image.Image:
    """Return the image of some chunks, all of whose rows are there."""
    # In the right order: some files have colours after the pixels.
    plain = b"".join([SIGNATURE, first[b"IHDR"], palette, transparent, *parts, first[b"IEND"]])
    image = PngImagePlugin.PngImageFile(io.BytesIO(plain))
    image.load()
    _check_rows(image, header, _joined(parts))
    return image


def _joined(parts: list[bytes]) -> bytes:
    return b"".join(part[8:-4] for part in parts)


def _chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Return the names of the chunks that matter, and all their bytes."""
    found, position = [], len(SIGNATURE)
    while not found or found[-1][0] != b"IEND":
        if position + 12 > len(data):
            raise ValueError("its end is missing")
        length, name = struct.unpack_from(">I4s", data, position)
        end = position + 12 + length
        if name in _NEEDED:
            chunk = data[position:end]
            if end > len(data):
                raise ValueError(f"it ends within {name.decode()}")
            if zlib.crc32(chunk[4:-4]) != int.from_bytes(chunk[-4:], "big"):
                raise ValueError(f"the checksum of {name.decode()} is wrong")
            found.append((name, chunk))
        elif not name[0] & 0x20:  # whoever does not know it cannot decode the pixels
            raise ValueError(f"unknown chunk {name!r}")
        position = end
    return found


def _check_rows(image: Image.Image, header: tuple[int, ...], pixels: bytes) -> None:
    """Raise `ValueError` if there are fewer rows than the header says, which Pillow leaves black without a word.

    To count them the pixels have to be unpacked again; but if the last row is not black, it was there.
    """
    width, height, depth, colour, *_, interlaced = header
    if image.crop((0, height - 1, width, height)).tobytes().strip(b"\0") and not interlaced:
        return
    bits, missing = depth * _CHANNELS[colour], 0
    for top, left, down, right in _PASSES if interlaced else ((0, 0, 1, 1),):
        rows, columns = -((top - height) // down), -((left - width) // right)
        if columns > 0:
            missing += max(0, rows) * (1 + (columns * bits + 7) // 8)
    inflater = zlib.decompressobj()
    try:
        for start in range(0, len(pixels), _PIECE):
            piece = pixels[start : start + _PIECE]
            while piece and missing > 0:
                missing -= len(inflater.decompress(piece, _PIECE))
                piece = inflater.unconsumed_tail
        missing -= len(inflater.flush()) if missing > 0 else 0
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if missing > 0:
        raise ValueError("it has fewer rows than its header says")


def _sixteen_bits(header: tuple[int, ...], pixels: bytes, transparent: bytes) -> np.ndarray:
    """Return the colours of 16-bit values divided by 257, rounded once, over white."""
    width, height, _, colour, *methods, interlaced = header
    if colour not in _HALVES or any(methods) or interlaced > 1:
        raise ValueError("no such kind of 16-bit image")
    mode, codings = _HALVES[colour]
    size = width, height
    halves = [Image.frombytes(mode, size, pixels, "zip", coding, interlaced) for coding in codings]
    _check_rows(halves[0], header, pixels)
    channels = _CHANNELS[colour]
    key = np.frombuffer(transparent, ">u2") if colour in (0, 2) and len(transparent) == 2 * channels else None
    result = np.empty((height, width, 3), np.uint8)
    for rows in strips(height, width):
        box = (0, rows.start, width, rows.stop)
        # Bytes in the order of the file, high before low.
        parts = [np.asarray(half.crop(box)) for half in halves]
        values = np.stack(parts, -1).reshape(*parts[0].shape[:2], -1).view(">u2")
        colours = values[..., : 3 if channels > 2 else 1].astype(np.uint32)
        if channels in (2, 4):
            opaque = values[..., -1:] * np.float32(1 / 65535 / 257)
            result[rows] = np.rint(255 - (65535 - colours).astype(np.float32) * opaque)
            continue
        if key is not None:
            colours[(values == key).all(-1)] = 65535
        result[rows] = (colours * 255 + 32895) >> 16  # division by 257, rounded
    return result
