"""JPEG files to RGB arrays with libjpeg-turbo: whole, only the rows down to a crop's end, or at a fraction of the size.

Decoding is bit-identical to Pillow's. What libjpeg says of damaged files is an error here and never a half-grey
image. Rows below a crop are not decoded: the height in a copy of the header is lowered to where the crop ends, after
which the library finds "extraneous bytes" and stops. Almost all of the time goes into undoing the entropy coding,
row after row, so what saves time is to do it for fewer rows.

JPEG has no checksum: a flipped bit that libjpeg does not notice gives other pixels, here as everywhere.
"""

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg

from vit_jax.data.images.strips import strips
from vit_jax.errors import DataError

# What libjpeg warns of that harms no pixel, in the header and after the pixels. It tells of the first thing only, so
# that damage may hide behind what is wrong with the header.
_OF_HEADER = ("extraneous bytes", "JFIF revision", "Adobe color transform")
_AT_END = "extraneous bytes before marker 0xd9"
_AFTER_PIXELS = re.compile("extraneous bytes before marker 0xd[0-79]")
_PREFIX = re.compile(r"^(Corrupt JPEG data: |tj\w+\(\): )")
# Fill bytes, zeros after 0xFF and markers without contents (TEM, RST) are passed over.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")
_MOST_PER_BYTE = 256  # pixels, as every block of 64 begins and ends with a bit at least
# Each scan of a progressive file is a pass over all coefficients, which costs a nanosecond a pixel and may take only
# a few bytes of the file. Ordinary files have 10 scans, of CMYK 18.
_MAX_SCANNED = 2**31
_FREELY_SCANNED = 150_000_000
_SCANNED_PER_BYTE = 1000
_LEAST_SCAN = 2**16  # what a scan costs that has hardly any pixels, in pixels
# What EXIF orientations 2 to 8 ask for (EXIF 2.3, tag 274): mirror rows, mirror columns, or transpose first.
_ORIENTATIONS = {
    2: (False, 1),
    3: (False, -1),
    4: (False, 0),
    5: (True, None),
    6: (True, 1),
    7: (True, -1),
    8: (True, 0),
}
ORIENTATION = 0x0112
REDUCTIONS = (1, 2, 4, 8)
_CHANNELS = {1: 3, 3: 3, 4: 4}  # that libjpeg is asked for, by components


@dataclass(frozen=True)
class JpegHeader:
    """What the segments before the pixels say.

    Attributes:
      height, width: as stored, before any rotation.
      components: 1 grey, 3 colour, 4 ink.
      frame: where the frame header begins in the file.
      scan: where the compressed pixels begin.
      in_order: whether rows come one after the other: baseline, all components in one scan.
      orientation: of EXIF, 1 for none.
    """

    height: int
    width: int
    components: int
    frame: int
    scan: int
    in_order: bool
    orientation: int


def damaged(reason: object) -> DataError:
    """Return the error of a damaged file."""
    return DataError(f"the JPEG image is damaged ({reason}); replace or remove it.")


def read_header(data: bytes) -> JpegHeader:
    """Return what a file says before its pixels.

    Raises:
      DataError: it is damaged or of a kind that is not read.
    """
    frame, orientation = None, 1
    for marker, start, end in _segments(data):
        # Start of frame: SOF0 to SOF15 without DHT, JPG and DAC, which share their range.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if start + 10 > len(data):
                break
            precision, height, width, components = struct.unpack_from(">BHHB", data, start + 4)
            if precision != 8:
                raise DataError(
                    f"the JPEG image has {precision} bits per channel; only 8 are read: convert it."
                )
            if components not in _CHANNELS:
                raise DataError(
                    f"the JPEG image has {components} channels; only 1, 3 or 4 are read: convert it."
                )
            frame = (start, marker, height, width, components)
        elif marker == 0xE1 and orientation == 1 and data[start + 4 : start + 10] == b"Exif\0\0":
            orientation = exif_orientation(data[start + 10 : end])
        elif marker == 0xDA:
            if frame is None:
                raise damaged("its size is missing")
            begin, kind, height, width, components = frame
            in_order = kind in (0xC0, 0xC1) and start + 4 < len(data) and data[start + 4] == components
            return JpegHeader(height, width, components, begin, end, in_order, orientation)
    raise damaged("it ends within the header")


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, beginning and end of each segment up to the first scan; what is none is skipped, as in libjpeg."""
    end = 2
    while (found := _MARKER.search(data, end)) and found.start() + 4 <= len(data):
        start = found.start()
        marker, end = data[start + 1], start + 2 + (data[start + 2] << 8 | data[start + 3])
        yield marker, start, end
        if marker == 0xDA:
            return


def decode_jpeg(data: bytes, header: JpegHeader, bottom: int | None = None, reduction: int = 1) -> np.ndarray:
    """Return the RGB pixels of a file as stored, EXIF orientation not applied.

    Args:
      data: the file.
      header: see `read_header`.
      bottom: how many rows are wanted, counted at full size; the others may be missing. None: all.
      reduction: 1, 2, 4 or 8: divide height and width by it, in the transform domain, rounding up.

    Returns:
      uint8 `(h, w, 3)`; the rows wanted are the same whatever `bottom` is.

    Raises:
      DataError: the file is damaged.
    """
    check_end(data, header)
    if not header.in_order:
        _check_scans(data, header)
    elif header.width * header.height > _MOST_PER_BYTE * len(data):
        raise damaged(f"{len(data)} bytes cannot have {header.width}x{header.height} pixels")
    height = header.height
    if bottom is not None and header.in_order and bottom + 1 < height:
        height = bottom + 1  # the last row alone blends with colours of the row below
        shortened = bytearray(data)
        shortened[header.frame + 5 : header.frame + 7] = height.to_bytes(2, "big")
        data = shortened  # pyright: ignore[reportAssignmentType]
    rows, columns = -(-height // reduction), -(-header.width // reduction)
    pixels = np.empty((rows, columns, _CHANNELS[header.components]), np.uint8)
    # The library takes the smallest of its sizes that is no smaller than this.
    least = {} if reduction == 1 else {"min_height": rows, "min_width": columns}
    warning = _decode(data, pixels, least)
    if any(words in warning for words in _OF_HEADER) and not _AFTER_PIXELS.search(warning):
        warning = _decode(_plain(data, header.components), pixels, least)
    harmless = "extraneous bytes" if height < header.height else _AT_END
    if warning and harmless not in warning:
        raise damaged(_PREFIX.sub("", warning))
    return pixels if header.components < 4 else _rgb(pixels)


def check_end(data: bytes, header: JpegHeader) -> None:
    """Raise `DataError` if a file has no end: libjpeg would make one up.

    Entropy coding writes no such byte pair, so it is the end and nothing else.
    """
    # From the end, where it is: going through all of a file would show beside its decoding.
    if data.rfind(b"\xff\xd9", header.scan) < 0:
        raise damaged("its end is missing")


def _decode(data: bytes, pixels: np.ndarray, least: dict[str, int]) -> str:
    """Write the pixels of a file; return the first thing that libjpeg says of it, or nothing."""
    colours = "RGB" if pixels.shape[-1] == 3 else "CMYK"
    try:
        # Warnings raise, after the pixels were written.
        simplejpeg.decode_jpeg(data, colours, buffer=pixels, **least)  # pyright: ignore[reportArgumentType]
    except ValueError as error:
        return str(error)
    return ""


def _plain(data: bytes, components: int) -> bytes:
    """Return a file with nothing in its header that libjpeg warns of and reads all the same."""
    parts, end = [b"\xff\xd8"], 2
    for marker, start, end in _segments(data):
        segment = bytearray(data[start:end])
        if marker == 0xE0 and segment[4:9] == b"JFIF\0":
            segment[9:10] = b"\1"  # the version
        elif marker == 0xEE and segment[4:9] == b"Adobe" and segment[15:16] != b"\0":
            segment[15:16] = b"\2" if components == 4 else b"\1"  # what libjpeg assumes of others
        parts.append(bytes(segment))
    return b"".join([*parts, data[end:]])


def _check_scans(data: bytes, header: JpegHeader) -> None:
    """Raise `DataError` if a file would take far longer than its bytes or pixels are worth."""
    scans = data.count(b"\xff\xda", header.scan) + 1
    work = scans * max(header.width * header.height, _LEAST_SCAN)
    if work > min(_MAX_SCANNED, max(_FREELY_SCANNED, _SCANNED_PER_BYTE * len(data))):
        raise damaged(f"{len(data)} bytes that go over {header.width}x{header.height} pixels {scans} times")


def _rgb(ink: np.ndarray) -> np.ndarray:
    """Return the colour that inverted cyan, magenta, yellow and black give, as Pillow does; `(h, w, 4)` to 3."""
    result = np.empty((*ink.shape[:2], 3), np.uint8)
    for rows in strips(*ink.shape[:2]):
        part = ink[rows].astype(np.uint16)
        black = part[..., 3:]
        product = (255 - part[..., :3]) * black + 128
        result[rows] = black - ((product >> 8) + product >> 8)
    return result


def oriented(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return an image turned and mirrored as its EXIF orientation says."""
    if orientation not in _ORIENTATIONS:
        return image
    (transposed, mirrored), channels = _ORIENTATIONS[orientation], image.shape[2:]
    if transposed:
        image = cv2.transpose(image)
    if mirrored is not None:
        image = cv2.flip(image, mirrored)
    return image.reshape(*image.shape[:2], *channels)  # OpenCV drops the axis of a single one


def exif_orientation(exif: bytes) -> int:
    """Return the orientation that the contents of an EXIF block give, 1 if they give none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (start,) = struct.unpack_from(order + "I", exif, 4)
        (count,) = struct.unpack_from(order + "H", exif, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", exif, entry)
            if tag == ORIENTATION and kind == 3:
                value = struct.unpack_from(order + "H", exif, entry + 8)[0]
                return value if value in _ORIENTATIONS else 1
    except struct.error:  # cut short: as if there were none, as Pillow takes it
        pass
    return 1
