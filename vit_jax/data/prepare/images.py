"""What the header of an image file tells, and images made smaller."""

import io
import warnings
from dataclasses import dataclass

import cv2
import numpy as np
from PIL import Image

from vit_jax.data.decode import FORMATS, MAX_PIXELS, ORIENTATION, decode
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


def read_header(data: bytes, name: str = "") -> Header:
    """Return what the header of an image file tells.

    Args:
      data: contents of the file.
      name: of the file, whose extension is compared with the contents.

    Raises:
      DataError: not an image of a known format, or larger than `decode` accepts.
    """
    if not data:
        raise DataError("the file is empty; replace or remove it.")
    try:
        with warnings.catch_warnings():
            # Large images are told below; Pillow refuses the largest itself.
            warnings.simplefilter("ignore")
            image = Image.open(io.BytesIO(data), formats=FORMATS)
    except (OSError, SyntaxError, ValueError, EOFError, Image.DecompressionBombError) as error:
        raise DataError(f"not an image of a known format ({', '.join(FORMATS)}), or damaged.") from error
    kind = next(known for known in FORMATS if known.upper() == (image.format or "").upper())
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise DataError(
            f"the image has {width}x{height} pixels, more than the {MAX_PIXELS / 1e6:g} megapixels allowed."
        )
    if kind == "JPEG" and b"\xff\xd9" not in data[-65536:]:
        raise DataError("the JPEG image is damaged (its end is missing).")
    return Header(kind, width, height, tuple(_oddities(image, kind, data, name)))


def _oddities(image: Image.Image, kind: str, data: bytes, name: str) -> list[str]:
    found = []
    extension = name.rpartition(".")[2].lower() if "." in name else ""
    named = {"jpg": "JPEG", "jpeg": "JPEG", "png": "PNG", "webp": "WebP", "gif": "GIF", "bmp": "BMP"}.get(
        extension
    )
    if named and named != kind:
        found.append(f"{kind} named .{extension}")
    if kind == "PNG" and data[24] == 16:
        found.append("16-bit")
    elif image.mode in _MODES:
        found.append(_MODES[image.mode])
    if image.info.get("progressive"):
        found.append("progressive")
    if getattr(image, "n_frames", 1) > 1:
        found.append("animated")
    # Of PNG, Pillow finds EXIF by decoding all of it.
    if kind in ("JPEG", "WebP") and image.getexif().get(ORIENTATION, 1) != 1:
        found.append("EXIF-rotated")
    return found


def shrunk(data: bytes, header: Header, short_side: int, quality: int) -> bytes:
    """Return an image file as a JPEG whose short side is `short_side`, or as it is if it is no larger.

    Raises:
      DataError: it cannot be decoded.
    """
    short = min(header.width, header.height)
    if short <= short_side:
        return data
    image = decode(data)
    height, width = image.shape[:2]
    # Averaging over areas is antialiased, and three times as fast as Pillow's filters.
    size = max(1, round(width * short_side / short)), max(1, round(height * short_side / short))
    smaller = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    done, encoded = cv2.imencode(
        ".jpg", cv2.cvtColor(smaller, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality]
    )
    assert done
    return np.asarray(encoded).tobytes()
