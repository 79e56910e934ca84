"""Maps of float32, such as depth, as PNG files without loss."""

import io

import numpy as np
from PIL import Image

from vit_jax.data.images.decode import DAMAGED, MAX_PIXELS, check_size, damaged
from vit_jax.data.images.png import png_size, read_values
from vit_jax.errors import DataError


def encode_floats(values: np.ndarray) -> bytes:
    """Return a map as a PNG file of four channels, the bytes of each number, as tfds stores images of float32.

    Args:
      values: float32 `(h, w)`.
    """
    buffer = io.BytesIO()
    channels = np.ascontiguousarray(values, "<f4").view(np.uint8).reshape(*values.shape, 4)
    Image.fromarray(channels).save(buffer, "PNG")
    return buffer.getvalue()


def decode_floats(data: bytes, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Return the map that `encode_floats` has stored, float32 `(h, w)`.

    Args:
      data: the contents of the file.
      max_pixels: largest area accepted.

    Raises:
      DataError: it is no such file, damaged or too large; the record is the caller's to name.
    """
    try:
        check_size(png_size(data), max_pixels, len(data), cost=4)
        channels = np.asarray(read_values(data)[0])
    except DAMAGED as error:
        raise damaged("PNG", error) from error
    if channels.dtype != np.uint8 or channels.shape[2:] != (4,):
        raise DataError(f"a map of float32 cannot be {channels.dtype} of shape {channels.shape}.")
    return np.ascontiguousarray(channels).view("<f4")[..., 0].astype(np.float32)
