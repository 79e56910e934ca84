"""Encoded images to uint8 arrays, by these rules.

JPEG, PNG, WebP, GIF, BMP and TIFF, told by their content and not by their name. EXIF orientation is applied, that of
XMP is not, nor are gamma and colour profiles. Alpha and transparent colours are laid over white. 16-bit values are
divided by 257 and rounded. Palettes, CMYK and one-bit images become RGB; the first frame of an animation is taken, the
first picture of several in a file. What follows the end of the image is ignored.

Sizes are checked before any pixel is decoded: 64 megapixels at most, or as the caller says; above 12, at least a byte
of the file for every 100 pixels, which every photograph has (of 16-bit PNG and TIFF a quarter of both); run-length
coded BMP, which is slow, 1 megapixel. Baseline JPEG, whose rows cost less, is refused only if it cannot be complete;
JPEG of several scans also if it goes over its pixels more often than any real one. A file that ends early is an error
and never a half-grey image, as is any other damage that can be told: PNG has checksums, in JPEG, WebP and TIFF a
flipped bit may only give other pixels.

JPEG goes through libjpeg-turbo (`data.images.jpeg`), which is bit-identical to Pillow and faster, PNG through
`data.images.png`, TIFF through `data.images.tiff`; everything else through Pillow.
"""

import io
import os
import struct

import numpy as np
from PIL import BmpImagePlugin, GifImagePlugin, Image, WebPImagePlugin

from vit_jax.data.images.jpeg import ORIENTATION as ORIENTATION
from vit_jax.data.images.jpeg import JpegHeader, decode_jpeg, exif_orientation, oriented, read_header
from vit_jax.data.images.png import SIGNATURE, png_size, read_png
from vit_jax.data.images.strips import strips
from vit_jax.data.images.tiff import SIGNATURES as TIFF_SIGNATURES
from vit_jax.data.images.tiff import TiffHeader, decode_tiff, tiff_header
from vit_jax.errors import ConfigError, DataError
from vit_jax.paths import read_file

FORMATS = ("JPEG", "PNG", "WebP", "GIF", "BMP", "TIFF")
MAX_PIXELS = 64_000_000
MAX_MEGAPIXELS = MAX_PIXELS / 1e6
MOST_MEGAPIXELS = 10_000  # that anybody may allow
MAX_BYTES = 5 * MAX_PIXELS  # of a file: as BMP, 4 bytes a pixel and what else there is
JPEG = b"\xff\xd8\xff"
# What a file may claim however small it is. Beyond, deflate packs at most 8256 one-bit pixels into a byte, WebP any
# number; photographs take a byte for 2 to 50.
_FREE_PIXELS = 12_000_000
_PIXELS_PER_BYTE = 100
_SIXTEEN_BIT_COST = 4  # what such a pixel counts
_RUN_LENGTH_PIXELS = 1_000_000

_PLUGINS = {
    "WebP": WebPImagePlugin.WebPImageFile,
    "GIF": GifImagePlugin.GifImageFile,
    "BMP": BmpImagePlugin.BmpImageFile,
}
# Formats that are not read but named; the second table is of ISO media files, by brand.
_OTHERS = {
    b"%!PS": "PostScript",
    b"%PDF": "PDF",
    b"8BPS": "PSD",
    b"\0\0\1\0": "ICO",
    b"\0\0\0\x0cjP  ": "JPEG 2000",
    b"\0\0\0\x0cJXL ": "JPEG XL",
    b"\xff\x0a": "JPEG XL",
    b"<svg": "SVG",
    b"<?xml": "XML",
    b"<html": "HTML",
    b"<!DOCTYPE": "HTML",
}
_MEDIA = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIF"}
# Modes of Pillow's whose values have no bounds, or are no colours of a screen.
_UNBOUNDED = ("I", "F", "LAB")
# What Pillow raises on damaged files, found by mutating valid ones.
DAMAGED = (
    *(OSError, SyntaxError, ValueError, EOFError, IndexError, KeyError),
    *(struct.error, Image.DecompressionBombError),
)


def load_image(path: str | os.PathLike[str], channels: int = 3) -> np.ndarray:
    """Return an image file as uint8 `(h, w, channels)`.

    Args:
      path: a JPEG, PNG, WebP, GIF, BMP or TIFF file.
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
        return read_file(path, MAX_BYTES)
    except OSError as error:
        reason = error.strerror or error
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
        image, orientation = _decode_with_pillow(data, format_of(data), max_pixels)
    else:
        image, orientation = decode_jpeg(data, header), header.orientation
    return to_channels(oriented(image, orientation), channels)


def check_megapixels(value: object, name: str) -> None:
    """Raise `ConfigError` unless `value` is a number of megapixels that images may have; `name` names it."""
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 < value <= MOST_MEGAPIXELS:
        raise ConfigError(f"{name} is {value!r}; it must be a number above 0, at most {MOST_MEGAPIXELS}.")


def check_decoded_channels(channels: int) -> None:
    """Raise `ConfigError` unless image files can be decoded to so many channels."""
    if channels not in (1, 3):
        raise ConfigError(
            f"image files decode to 1 or 3 channels, not {channels}; for other numbers, use data.source 'arrays'."
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


def format_of(data: bytes) -> str:
    """Return the format of an image file, one of `FORMATS`.

    Raises:
      DataError: it is none of them; what it is, is named if that is known.
    """
    if not data:
        raise DataError("the file is empty; replace or remove it.")
    if data.startswith(JPEG):
        return "JPEG"
    if data.startswith(SIGNATURE):
        return "PNG"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "WebP"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "GIF"
    if data.startswith(b"BM"):
        return "BMP"
    if data.startswith(TIFF_SIGNATURES):
        return "TIFF"
    is_media = data[4:8] == b"ftyp" and data[8:12] in _MEDIA
    names = (
        [_MEDIA[data[8:12]]] if is_media else [n for start, n in _OTHERS.items() if data.startswith(start)]
    )
    named = f" but {names[0]}" if names else ""
    raise DataError(
        f"not an image of a known format ({', '.join(FORMATS)}){named}; convert, replace or remove it."
    )


def check_size(size: tuple[int, int], max_pixels: int, bytes_: int | None = None, cost: int = 1) -> None:
    """Raise `DataError` unless an image of this width and height, from so many bytes, may be decoded."""
    width, height = size
    if width * height > max_pixels:
        raise DataError(
            f"the image has {width}x{height} pixels, more than the {max_pixels / 1e6:g} megapixels allowed; "
            "shrink or remove it, or allow more: data.max_megapixels, in predictions max_megapixels."
        )
    if width < 1 or height < 1:
        raise DataError(f"the image has {width}x{height} pixels; replace or remove it.")
    if bytes_ is not None and width * height * cost > max(_FREE_PIXELS, _PIXELS_PER_BYTE * bytes_):
        raise DataError(
            f"the image claims {width}x{height} pixels in {bytes_} bytes; above {_FREE_PIXELS // cost / 1e6:g} "
            f"megapixels every {_PIXELS_PER_BYTE // cost} need a byte: shrink or remove it."
        )


def damaged(kind: str, reason: object) -> DataError:
    """Return what to say of a damaged file of some format."""
    return DataError(f"the {kind} image is damaged ({reason}); replace or remove it.")


def jpeg_header(data: bytes, max_pixels: int = MAX_PIXELS) -> JpegHeader | None:
    """Return the header of an encoded image if it is a JPEG, None if it is anything else.

    Raises:
      DataError: it is damaged or too large.
    """
    if not data.startswith(JPEG):
        return None
    header = read_header(data)
    # Rows that come in order cost no more than their pixels; of others, all coefficients are kept until the last scan.
    check_size((header.width, header.height), max_pixels, None if header.in_order else len(data))
    return header


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
    raise damaged("WebP", "it ends within the header")


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


# Sizes are read before Pillow opens a file: it allocates the whole canvas of some.
_SIZES = {"PNG": png_size, "WebP": _webp_size, "GIF": _gif_size}


def _decode_with_pillow(data: bytes, kind: str, max_pixels: int) -> tuple[np.ndarray, int]:
    """Return RGB pixels as stored, and their EXIF orientation."""
    frame = None
    try:
        if kind in _SIZES:
            cost = _SIXTEEN_BIT_COST if kind == "PNG" and data[24] == 16 else 1
            check_size(_SIZES[kind](data), max_pixels, len(data), cost)
        if kind == "PNG":
            image, exif = read_png(data)
            if isinstance(image, np.ndarray):
                return image, exif_orientation(exif)
        elif kind == "TIFF":
            return _decode_tiff(data, max_pixels)
        else:
            # The plugin of the format itself: `Image.open` would warn of large images, which are handled here.
            image = _PLUGINS[kind](io.BytesIO(data))
            exif = image.info.get("exif", b"").removeprefix(b"Exif\0\0")
            if kind == "GIF" and image.tile:
                frame = image.tile[0].extents
            if kind == "BMP" and image.tile and image.tile[0].codec_name == "bmp_rle":
                _check_run_length(image.size)
        check_size(image.size, max_pixels, len(data))
        return _over_white(image, frame), exif_orientation(exif)
    except DAMAGED as error:
        raise damaged(kind, error) from error


def _decode_tiff(data: bytes, max_pixels: int) -> tuple[np.ndarray, int]:
    header = tiff_header(data)
    check_tiff_size(header, len(data), max_pixels)
    image = decode_tiff(data, header)
    return image if isinstance(image, np.ndarray) else _over_white(image, None), header.orientation


def check_tiff_size(header: TiffHeader, bytes_: int, max_pixels: int = MAX_PIXELS) -> None:
    """Raise `DataError` unless a TIFF, or its whole tiles, may be decoded."""
    cost = _SIXTEEN_BIT_COST if header.bits == 16 else 1
    for size in ((header.width, header.height), header.padded):
        check_size(size, max_pixels, bytes_, cost)


def from_pillow(image: Image.Image, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return the pixels of an image of Pillow's, uint8 `(h, w, 3)` or grey `(h, w, 1)`, as its file gives them.

    Raises:
      DataError: it is damaged, too large, or of a mode that does not say which value is white.
    """
    if image.mode in _UNBOUNDED:
        remedy = (
            "convert it to RGB"
            if image.mode == "LAB"
            else "give uint8, with its white at 255: Image.fromarray((255 / white * np.asarray(image)).astype('uint8'))"
        )
        raise DataError(f"the image is of mode {image.mode}, which does not define white; {remedy}.")
    check_size(image.size, max_pixels)
    try:
        if image.mode.startswith("I;16"):
            values, key = np.asarray(image).astype(np.uint32), image.info.get("transparency")
            values[values == (65535 if key is None else key)] = 65535
            pixels = ((values * 255 + 32895) >> 16).astype(np.uint8)[..., None]  # division by 257, rounded
        else:
            unread = isinstance(image, GifImagePlugin.GifImageFile) and image.tile
            frame = unread[0].extents if unread else None
            pixels = _over_white(image, frame)
        return oriented(pixels, _orientation(image))
    except DAMAGED as error:
        raise damaged(image.format or "given", error) from error


def _orientation(image: Image.Image) -> int:
    """Return the EXIF orientation; Pillow would take that of XMP too, which files are not turned by."""
    exif = image.info.get("exif")
    if isinstance(exif, bytes):
        return exif_orientation(exif.removeprefix(b"Exif\0\0"))
    told_by_xmp = "xmp" in image.info or "XML:com.adobe.xmp" in image.info
    return 1 if told_by_xmp else image.getexif().get(ORIENTATION, 1)


def _check_run_length(size: tuple[int, int]) -> None:
    width, height = size
    if width * height > _RUN_LENGTH_PIXELS:
        raise DataError(
            f"the image has {width}x{height} pixels; run-length coded BMP is read only up to "
            f"{_RUN_LENGTH_PIXELS / 1e6:g} megapixels, as decoding it is slow: convert it."
        )


def _over_white(image: Image.Image, frame: tuple[int, int, int, int] | None) -> np.ndarray:
    """Return the colours of an image of any mode; around its frame (left, top, right, bottom) it is white."""
    image.load()
    width, height = image.size
    result = np.empty((height, width, 3), np.uint8)
    for rows in strips(height, width):
        strip = image.crop((0, rows.start, width, rows.stop))
        if image.has_transparency_data:
            strip = strip.convert("RGBA")
            strip = Image.alpha_composite(Image.new("RGBA", strip.size, "white"), strip)
        result[rows] = np.asarray(strip.convert("RGB"))
    if frame:
        left, top, right, bottom = frame
        result[:top] = result[bottom:] = result[:, :left] = result[:, right:] = 255
    return result
