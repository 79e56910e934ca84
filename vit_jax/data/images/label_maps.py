"""Label maps: image files whose values are ids and not colours.

Nothing is converted: of a palette the indices count and not the colours, 16 bits stay 16, and three channels are the id
`r + 256 g + 65536 b` of COCO's panoptic maps.
"""

import io

import numpy as np
from PIL import BmpImagePlugin, Image

from vit_jax.data.images.decode import DAMAGED, MAX_PIXELS, check_size, check_tiff_size, damaged, format_of
from vit_jax.data.images.jpeg import exif_orientation, oriented
from vit_jax.data.images.png import png_size, read_values
from vit_jax.data.images.tiff import tiff_header, tiff_values
from vit_jax.errors import DataError

_CHANGING = ("JPEG", "WebP", "GIF")  # by compression, or because writers sort palettes
_MOST_IDS = 2**16  # of 16 bits


def decode_labels(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return the ids of a label map, int32 `(h, w)`, turned as its EXIF orientation says.

    Args:
      data: the contents of a PNG, TIFF or BMP file.
      max_pixels: largest area accepted.

    Raises:
      DataError: not such a file, damaged, too large, or of a format that changes values; the reason is named, the
        record is the caller's to name.
    """
    kind = format_of(data)
    if kind in _CHANGING:
        raise DataError(f"a label map cannot be {kind}, which changes values; save it as PNG.")
    orientation = 1
    try:
        if kind == "PNG":
            check_size(png_size(data), max_pixels, len(data), cost=4 if data[24] == 16 else 1)
            image, exif = read_values(data)
            values, orientation = np.asarray(image), exif_orientation(exif)
        elif kind == "TIFF":
            header = tiff_header(data)
            check_tiff_size(header, len(data), max_pixels)
            values, orientation = tiff_values(data, header), header.orientation
        else:
            image = BmpImagePlugin.BmpImageFile(io.BytesIO(data))
            check_size(image.size, max_pixels, len(data))
            values = np.asarray(image)
        return np.ascontiguousarray(oriented(_ids(values), orientation))
    except DAMAGED as error:
        raise damaged(kind, error) from error


def _ids(values: np.ndarray) -> np.ndarray:
    """Return the ids of values `(h, w)` or `(h, w, c)`; a channel beside those of ids must be opaque."""
    channels = values.shape[-1] if values.ndim == 3 else 1
    most = 255 if values.dtype == np.uint8 else 65535
    if channels in (2, 4) and (values[..., -1] == most).all():
        values, channels = values[..., :-1], channels - 1
    ids = values.reshape(*values.shape[:2], channels).astype(np.int32)
    if channels == 1:
        return ids[..., 0]
    if channels == 3 and values.dtype == np.uint8:
        return ids @ np.array([1, 256, 65536], np.int32)
    raise DataError(
        f"a label map cannot be {values.dtype} of {channels} channels; it must have one of ids, a palette, or three of "
        "8 bits, r + 256 g + 65536 b."
    )


def encode_labels(ids: np.ndarray, colours: np.ndarray | None = None) -> bytes:
    """Return a label map as PNG, which `decode_labels` gives back: of 8 bits if they do, else of 16.

    Args:
      ids: integers `(h, w)` from 0 to 65535.
      colours: uint8 `(c, 3)` of the first ids, a palette for those who look at it; only for ids below 256.

    Raises:
      DataError: an id does not fit.
    """
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= _MOST_IDS:
        raise DataError(
            f"a label map has the id {low if low < 0 else high}; ids must be from 0 to {_MOST_IDS - 1}."
        )
    image = Image.fromarray(ids.astype(np.uint8 if high < 256 else np.uint16))
    if colours is not None and high < 256:
        palette = np.zeros(
            (256, 3), np.uint8
        )  # of a shorter one Pillow makes fewer bits, and loses larger ids
        palette[: len(colours)] = colours[:256]
        image = image.convert("P")
        image.putpalette(palette.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
