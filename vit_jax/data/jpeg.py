"""JPEG files to RGB arrays with libjpeg-turbo: whole, only the rows down to a crop's end, or at a fraction of the size.

Decoding is bit-identical to Pillow's. What libjpeg says of damaged files is an error here and never a half-grey
image. Rows below a crop are not decoded: the height in a copy of the header is lowered to where the crop ends, after
which the library finds "extraneous bytes" and stops. Almost all of the time goes into undoing the entropy coding,
row after row, so what saves time is to do it for fewer rows.
"""

import struct
from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg

from vit_jax.errors import DataError

# What libjpeg warns of that harms no pixel: bytes between segments, unknown versions of the header.
_HARMLESS = ("extraneous bytes", "JFIF revision", "Adobe color transform")
# Each scan of a progressive file costs a pass over all coefficients; ordinary files have ten.
_MAX_SCANNED_PIXELS = 2**30
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
REDUCTIONS = (1, 2, 4, 8)


@dataclass(frozen=True)
class JpegHeader:
    """What the segments before the pixels say.

    Attributes:
      height, width: as stored, before any rotation.
      components: 1 grey, 3 colour, 4 ink.
      frame: where the frame header begins in the file.
      scan: where the compressed pixels begin.
      block_rows: rows of pixels that are coded together, 8 or 16, if rows come one after the other (baseline, all
        components in one scan); 0 if not.
      orientation: of EXIF, 1 for none.
    """

    height: int
    width: int
    components: int
    frame: int
    scan: int
    block_rows: int
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
    position, end = 2, len(data)
    while position + 4 <= end:
        if data[position] != 0xFF:
            raise damaged(f"no marker at byte {position}")
        marker = data[position + 1]
        if marker == 0xFF:  # fill bytes may precede a marker
            position += 1
            continue
        if marker == 0x01 or 0xD0 <= marker <= 0xD8:  # markers without contents
            position += 2
            continue
        length = data[position + 2] << 8 | data[position + 3]
        # Start of frame: SOF0 to SOF15 without DHT, JPG and DAC, which share their range.
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            if position + 10 > end:
                break
            precision, height, width, components = struct.unpack_from(">BHHB", data, position + 4)
            if precision != 8:
                raise DataError(
                    f"the JPEG image has {precision} bits per channel; only 8 are read: convert it."
                )
            frame = (position, marker, height, width, components)
        elif marker == 0xE1:
            orientation = _orientation(data[position + 4 : position + 2 + length]) or orientation
        elif marker == 0xDA:
            if frame is None:
                raise damaged("its size is missing")
            start, kind, height, width, components = frame
            in_order = kind in (0xC0, 0xC1) and position + 4 < end and data[position + 4] == components
            return JpegHeader(height, width, components, start, position + 2 + length, in_order, orientation)
        position += 2 + length
    raise damaged("it ends within the header")


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
    # Entropy coding writes no such byte pair, so it is the end and nothing else. Without one, libjpeg makes one up.
    if data.find(b"\xff\xd9", header.scan) < 0:
        raise damaged("its end is missing")
    if not header.block_rows:
        scans = data.count(b"\xff\xda")
        if scans * header.width * header.height > _MAX_SCANNED_PIXELS:
            raise damaged(f"it goes over its {header.width}x{header.height} pixels {scans} times")
    height = header.height
    if bottom is not None and header.block_rows and bottom + header.block_rows < height:
        # The last row alone blends with colours of the block below.
        height = -(-(bottom + 1) // header.block_rows) * header.block_rows
        shortened = bytearray(data)
        shortened[header.frame + 5 : header.frame + 7] = height.to_bytes(2, "big")
        data = shortened  # pyright: ignore[reportAssignmentType]
    rows, columns = -(-height // reduction), -(-header.width // reduction)
    pixels = np.empty((rows, columns, 3), np.uint8)
    # The library takes the smallest of its sizes that is no smaller than this.
    least = {} if reduction == 1 else {"min_height": rows, "min_width": columns}
    try:
        # Warnings raise, after the pixels were written.
        simplejpeg.decode_jpeg(data, "RGB", buffer=pixels, **least)  # pyright: ignore[reportArgumentType]
    except ValueError as error:
        if not any(words in str(error) for words in _HARMLESS):
            raise damaged(str(error).removeprefix("Corrupt JPEG data: ")) from error
    return pixels


def oriented(image: np.ndarray, orientation: int) -> np.ndarray:
    """Return an image turned and mirrored as its EXIF orientation says."""
    if orientation not in _ORIENTATIONS:
        return image
    transposed, mirrored = _ORIENTATIONS[orientation]
    if transposed:
        image = cv2.transpose(image)
    return image if mirrored is None else cv2.flip(image, mirrored)


def _orientation(contents: bytes) -> int:
    """Return the orientation that an APP1 segment gives, 0 if it gives none."""
    if contents[:6] != b"Exif\0\0" or contents[6:8] not in (b"II", b"MM"):
        return 0
    tiff, order = contents[6:], "<" if contents[6:8] == b"II" else ">"
    try:
        (start,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, start)
        for entry in range(start + 2, start + 2 + 12 * count, 12):
            tag, kind = struct.unpack_from(order + "HH", tiff, entry)
            if tag == 0x0112 and kind == 3:
                return struct.unpack_from(order + "H", tiff, entry + 8)[0]
    except struct.error:  # cut short: as if there were none, as Pillow takes it
        pass
    return 0
