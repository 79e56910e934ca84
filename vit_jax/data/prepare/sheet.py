"""A contact sheet: pictures in rows and columns, each with a caption."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_MARGIN = 4
_CAPTION = 16
_LEAST = 64


def contact_sheet(images: Sequence[np.ndarray], captions: Sequence[str], columns: int) -> Image.Image:
    """Return pictures side by side.

    Args:
      images: each `(h, w, c)` of 1 or 3 channels; uint8, or floats, which are stretched from the
        least to the largest value.
      captions: one of each, cut where it is too long.
      columns: pictures in a row.
    """
    height, width = (max(sides) for sides in zip(*(image.shape[:2] for image in images)))
    scale = max(1, -(-_LEAST // min(height, width)))
    cell = height * scale + _MARGIN + _CAPTION, width * scale + _MARGIN
    rows = -(-len(images) // columns)
    sheet = Image.new("RGB", (columns * cell[1] + _MARGIN, rows * cell[0] + _MARGIN), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=11)
    for index, (image, caption) in enumerate(zip(images, captions)):
        top, left = (place * size + _MARGIN for place, size in zip(divmod(index, columns), cell))
        size = image.shape[1] * scale, image.shape[0] * scale
        sheet.paste(_picture(image).resize(size, Image.Resampling.NEAREST), (left, top))
        while caption and draw.textlength(caption, font) > width * scale:
            caption = caption[:-1]
        draw.text((left, top + height * scale + 1), caption, "black", font)
    return sheet


def _picture(image: np.ndarray) -> Image.Image:
    if image.dtype != np.uint8:
        low, high = float(image.min()), float(image.max())
        image = ((image - low) * (255 / max(high - low, 1e-6))).astype(np.uint8)
    channels = image.shape[-1]
    return Image.fromarray(image[..., 0] if channels not in (3, 4) else image[..., :3]).convert("RGB")
