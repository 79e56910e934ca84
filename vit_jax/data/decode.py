"""Encoded images to uint8 arrays, by these rules.

JPEG, PNG, WebP, GIF and BMP, told by their content and not by their name. EXIF orientation is applied. Alpha
and transparent colours are laid over white. 16-bit values are divided by 257 and rounded. Palettes, CMYK and
one-bit images become RGB; the first frame of an animation is taken. Sizes are checked before any pixel is
decoded. A file that ends early is an error and never a half-grey image.

JPEG goes through libjpeg-turbo (`data.jpeg`), which is bit-identical to Pillow and faster, 16-bit PNG through OpenCV
because Pillow cuts it to 8 bits; everything else goes through Pillow.
"""

import io
import os
import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
from PIL import (
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageOps,
    JpegImagePlugin,
    PngImagePlugin,
    WebPImagePlugin,
)

from vit_jax.data.jpeg import JpegHeader, decode_jpeg, oriented, read_header
from vit_jax.errors import ConfigError, DataError

FORMATS = ("JPEG", "PNG", "WebP", "GIF", "BMP")
MAX_PIXELS = 64_000_000
JPEG = b"\xff\xd8\xff"
ORIENTATION = 0x0112

_PLUGINS = {
    "JPEG": JpegImagePlugin.JpegImageFile,
    "PNG": PngImagePlugin.PngImageFile,
    "WebP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
# What Pillow raises on damaged files, found by mutating valid ones.
_DAMAGED = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError),
    *(struct.error, zlib.error, cv2.error, Image.DecompressionBombError),
)


def load_image(path: str | os.PathLike[str], channels: int = 3) -> np.ndarray:
    """Return an image file as uint8 `(h, w, channels)`.

    Args:
      path: a JPEG, PNG, WebP, GIF or BMP file.
      channels: 3 for RGB, 1 for grey.

    Raises:
      DataError: the file is missing or not such an image; path and reason are named.
    """
    try:
        return decode(read_bytes(path), channels)
    except DataError as error:
        if str(error).startswith(str(path)):
            raise
        raise DataError(f"{path}: {error}") from error


def read_bytes(path: str | os.PathLike[str]) -> bytes:
    """Return the contents of a file.

    Raises:
      DataError: it cannot be read; path and reason are named.
    """
    try:
        return Path(path).read_bytes()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path} cannot be read: {reason}; check the path and its permissions.") from error


def decode(data: bytes, channels: int = 3, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return an encoded image as uint8 `(h, w, channels)`.

    Args:
      data: the contents of an image file.
      channels: 3 for RGB, 1 for grey (ITU-R 601 luma).
      max_pixels: largest area accepted.

    Raises:
      DataError: not an image, damaged, or too large; the reason is named, the record is the caller's to name.
    """
    check_decoded_channels(channels)
    header = jpeg_header(data, max_pixels)
    if header is None:
        return to_channels(_decode_with_pillow(data, _format(data), max_pixels), channels)
    return to_channels(oriented(decode_jpeg(data, header), header.orientation), channels)


def check_decoded_channels(channels: int) -> None:
    """Raise `ConfigError` unless image files can be decoded to so many channels."""
    if channels not in (1, 3):
        raise ConfigError(
            f"image files decode to 1 or 3 channels, not {channels}; others need data.source 'arrays'."
        )


def to_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Return an image with another number of channels: grey from RGB, or a grey image repeated.

    Grey is the luma of ITU-R 601 in the fixed-point arithmetic of Pillow; equal channels give exactly their
    value.

    Args:
      image: `(h, w, c)`.
      channels: how many to return.

    Raises:
      DataError: there is no such conversion.
    """
    present = image.shape[-1]
    if present == channels:
        return image
    if present == 1:
        return np.repeat(image, channels, axis=-1)
    if present == 3 and channels == 1:
        if image.dtype != np.uint8:
            return image @ np.array([[0.299], [0.587], [0.114]], image.dtype)
        red, green, blue = np.moveaxis(image.astype(np.uint32), -1, 0)
        luma = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
        return luma.astype(np.uint8)[..., None]
    raise DataError(
        f"the image has {present} channels, which cannot become {channels}; 1 can become any number, 3 can "
        "become 1."
    )


def _format(data: bytes) -> str:
    if not data:
        raise DataError("the file is empty; replace or remove it.")
    if data.startswith(JPEG):
        return "JPEG"
    if data.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"BM"):
        return "BMP"
    raise DataError(f"not an image of a known format ({', '.join(FORMATS)}); convert, replace or remove it.")


def _check_size(size: tuple[int, int], max_pixels: int) -> None:
    width, height = size
    if width * height > max_pixels:
        raise DataError(
            f"the image has {width}x{height} pixels, more than the {max_pixels / 1e6:g} megapixels allowed; "
            "shrink or remove it."
        )
    if width < 1 or height < 1:
        raise DataError(f"the image has {width}x{height} pixels; replace or remove it.")


def _damaged(kind: str, reason: object) -> DataError:
    return DataError(f"the {kind} image is damaged ({reason}); replace or remove it.")


def jpeg_header(data: bytes, max_pixels: int = MAX_PIXELS) -> JpegHeader | None:
    """Return the header of an encoded image if it is a JPEG with grey or RGB pixels, None if it is anything else.

    Raises:
      DataError: it is damaged or too large.
    """
    if not data.startswith(JPEG):
        return None
    header = read_header(data)
    _check_size((header.width, header.height), max_pixels)
    return header if header.components in (1, 3) else None


def _webp_size(data: bytes) -> tuple[int, int]:
    """Return width and height, from whichever of the three kinds of first chunk there is."""
    chunk, body = data[12:16], data[20:30]
    if len(body) == 10 and chunk == b"VP8X":
        return 1 + int.from_bytes(body[4:7], "little"), 1 + int.from_bytes(body[7:10], "little")
    if len(body) == 10 and chunk == b"VP8 ":
        width, height = struct.unpack("<HH", body[6:10])
        return width & 0x3FFF, height & 0x3FFF
    if len(body) >= 5 and chunk == b"VP8L":
        bits = int.from_bytes(body[1:5], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    raise _damaged("WebP", "it ends within the header")


def _gif_size(data: bytes) -> tuple[int, int]:
    """Return width and height of the canvas, which the first frame may enlarge."""
    width, height, flags = struct.unpack("<HHB", data[6:11])
    colours = 2 << (flags & 7) if flags & 0x80 else 0
    position = 13 + 3 * colours
    while data[position] != 0x2C:  # up to the first frame
        if data[position] == 0x21:  # an extension: its kind, then blocks that begin with their length
            position += 2
            while data[position]:
                position += 1 + data[position]
        position += 1
    left, top, frame_width, frame_height = struct.unpack("<HHHH", data[position + 1 : position + 9])
    return max(width, left + frame_width), max(height, top + frame_height)


# Formats of which Pillow allocates the whole canvas when it opens them.
_SIZES = {"WebP": _webp_size, "GIF": _gif_size}


def _decode_with_pillow(data: bytes, kind: str, max_pixels: int) -> np.ndarray:
    # The plugin of the format itself: `Image.open` would warn of large images, which are handled here.
    try:
        if kind in _SIZES:
            _check_size(_SIZES[kind](data), max_pixels)
        image = _PLUGINS[kind](io.BytesIO(data))
        _check_size(image.size, max_pixels)
        if kind == "PNG" and data[24] == 16:
            image = _sixteen_bit_png(data, image)
        image = ImageOps.exif_transpose(image)
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return np.asarray(image.convert("RGB"))
    except _DAMAGED as error:
        raise _damaged(kind, error) from error


def _sixteen_bit_png(data: bytes, image: Image.Image) -> Image.Image:
    """Return the 8-bit RGB or RGBA image of a 16-bit PNG; `image` is what Pillow read of its header."""
    pixels = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    if pixels is None:
        raise OSError("its pixels cannot be decoded")
    if pixels.ndim == 2:
        # OpenCV drops the transparent value of a grey image, but not that of a coloured one.
        opaque = np.where(pixels == image.info.get("transparency", -1), 0, 65535).astype(np.uint16)
        pixels = np.stack([pixels, pixels, pixels, opaque], axis=-1)
    blue_green_red = ((pixels.astype(np.uint32) + 128) // 257).astype(np.uint8)
    code = cv2.COLOR_BGRA2RGBA if pixels.shape[-1] == 4 else cv2.COLOR_BGR2RGB
    result = Image.fromarray(cv2.cvtColor(blue_green_red, code))
    result.getexif()[ORIENTATION] = image.getexif().get(ORIENTATION, 1)
    return result
