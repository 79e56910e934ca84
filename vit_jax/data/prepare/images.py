"""What the header of an image file tells, and images made smaller."""

import io
import struct
import warnings
from dataclasses import dataclass, replace

import cv2
import numpy as np
from PIL import Image

from vit_jax.data.images.decode import FORMATS, JPEG, MAX_PIXELS, ORIENTATION, check_size, decode, jpeg_header
from vit_jax.data.images.jpeg import check_end
from vit_jax.data.images.png import SIGNATURE, png_size
from vit_jax.data.images.resizing import resize_fast
from vit_jax.data.images.tiff import SIGNATURES as TIFF_SIGNATURES
from vit_jax.data.images.tiff import tiff_header
from vit_jax.errors import DataError

# Pillow's modes, beside RGB, that are rarer than users think.
_MODES = {
    "CMYK": "CMYK",
    "L": "grey",
    "LA": "alpha",
    "RGBA": "alpha",
    "P": "palette",
    "PA": "palette",
    "1": "one-bit",
}

_OTHERS = ("WebP", "GIF", "BMP")  # formats whose header Pillow reads
_PNG_COLOURS = {0: "grey", 3: "palette", 4: "alpha", 6: "alpha"}
_EXTENSIONS = {
    **dict.fromkeys(("jpg", "jpeg", "jpe", "jfif"), "JPEG"),
    **dict.fromkeys(("tif", "tiff"), "TIFF"),
    **{"png": "PNG", "webp": "WebP", "gif": "GIF", "bmp": "BMP"},
}


@dataclass(frozen=True)
class Header:
    """What is known of an image before its pixels are decoded.

    Attributes:
      format: one of `FORMATS`.
      width, height: as stored, before any EXIF rotation.
      oddities: what makes it unlike a plain RGB image; also `PNG named .jpg` and the like.
    """

    format: str
    width: int
    height: int
    oddities: tuple[str, ...]


def read_header(data: bytes, name: str = "", max_pixels: int = MAX_PIXELS) -> Header:
    """Return what the header of an image file tells.

    Args:
      data: contents of the file.
      name: of the file, whose extension is compared with the contents.
      max_pixels: largest area accepted.

    Raises:
      DataError: not an image of a known format, larger than `decode` accepts, or a JPEG without an end.
    """
    if not data:
        raise DataError("the file is empty; replace or remove it.")
    if data.startswith(JPEG):
        header = _read_jpeg(data, max_pixels)
    else:
        if data.startswith(SIGNATURE):
            header = _read_png(data)
        else:
            header = _read_tiff(data) if data.startswith(TIFF_SIGNATURES) else _read_with_pillow(data)
        check_size((header.width, header.height), max_pixels)
    extension = name.rpartition(".")[2].lower() if "." in name else ""
    if _EXTENSIONS.get(extension, header.format) != header.format:
        return replace(header, oddities=(f"{header.format} named .{extension}", *header.oddities))
    return header


def _read_jpeg(data: bytes, max_pixels: int) -> Header:
    """Return the header without Pillow, in a tenth of its time (measured): most images are JPEG."""
    header = jpeg_header(data, max_pixels)
    assert header is not None
    check_end(data, header)
    found = {1: ["grey"], 4: ["CMYK"]}.get(header.components, [])
    # The marker of the frame, without what is arithmetic coding and what is hierarchical.
    found += ["progressive"] * (data[header.frame + 1] & 3 == 2)
    found += ["EXIF-rotated"] * (header.orientation != 1)
    return Header("JPEG", header.width, header.height, tuple(found))


def _read_png(data: bytes) -> Header:
    """Return the header without Pillow, which refuses files with much compressed text."""
    try:
        (width, height), depth, colour = png_size(data), data[24], data[25]
    except (struct.error, IndexError) as error:
        raise DataError(
            "the PNG image is damaged (it ends within the header); replace or remove it."
        ) from error
    kind = "one-bit" if depth == 1 and not colour else _PNG_COLOURS.get(colour, "")
    found = ["16-bit" if depth == 16 else kind]
    found += ["animated"] * (data.find(b"acTL", 0, data.find(b"IDAT")) > 0)
    return Header("PNG", width, height, tuple(filter(None, found)))


def _read_tiff(data: bytes) -> Header:
    """Return the header as it is decoded: Pillow warns of much that is of no account."""
    try:
        header = tiff_header(data)
    except (ValueError, struct.error) as error:
        raise DataError(f"the TIFF image is damaged ({error}); replace or remove it.") from error
    kind = "one-bit" if header.bits == 1 else header.colour
    found = [] if kind in ("RGB", "YCbCr") else [kind]
    found += ["alpha"] * header.alpha + ["16-bit"] * (header.bits == 16) + ["several pages"] * header.pages
    found += ["EXIF-rotated"] * (header.orientation != 1)
    return Header("TIFF", header.width, header.height, tuple(found))


def _read_with_pillow(data: bytes) -> Header:
    try:
        with warnings.catch_warnings():
            # Large images are told by their size; Pillow refuses the largest itself.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=_OTHERS)
            # Counting the frames of an animation reads all of its file.
            frames = getattr(image, "n_frames", 1)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(
            f"not an image of a known format ({', '.join(FORMATS)}), or damaged; convert, replace or remove it."
        ) from error
    kind = next(known for known in FORMATS if known.upper() == (image.format or "").upper())
    found = [_MODES.get(image.mode, "")] + ["animated"] * (frames > 1)
    found += ["EXIF-rotated"] * (kind == "WebP" and image.getexif().get(ORIENTATION, 1) != 1)
    return Header(kind, *image.size, tuple(filter(None, found)))


def shrunk(data: bytes, header: Header, short_side: int, quality: int, max_pixels: int = MAX_PIXELS) -> bytes:
    """Return an image file as a JPEG whose short side is `short_side`, or as it is if it is no larger.

    Raises:
      DataError: it cannot be decoded.
    """
    short = min(header.width, header.height)
    if short <= short_side:
        return data
    image = decode(data, max_pixels=max_pixels)
    height, width = image.shape[:2]
    size = max(1, round(height * short_side / short)), max(1, round(width * short_side / short))
    smaller = resize_fast(image, size, "bicubic")
    done, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(smaller, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    assert done
    return np.asarray(encoded).tobytes()
