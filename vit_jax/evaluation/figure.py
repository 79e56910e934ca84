"""Illustrations as a PNG, drawn with Pillow alone."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vit_jax.objectives.base import Illustration
from vit_jax.objectives.pictures import DISPLAY, enlarge, to_uint8

TILE, GAP, MARGIN, COLUMNS = DISPLAY, 8, 20, 4  # pixels, and illustrated examples side by side
INK, FAINT, WRONG = (25, 25, 30), (110, 110, 120), (200, 30, 30)


def draw(illustration: Illustration, path: str | Path) -> Path:
    """Write an illustration as a PNG and return its path.

    Args:
      illustration: pictures `(h, w, c)` of any size, values from 0 to 255; small ones are enlarged in blocks.
      path: where to.
    """
    title, caption = (ImageFont.load_default(size) for size in (20, 13))
    pictures = len(illustration.columns)
    cell_width, cell_height = pictures * (TILE + GAP) + MARGIN, TILE + 34
    across = min(COLUMNS, len(illustration.rows))
    down = -(-len(illustration.rows) // across)
    canvas = Image.new("RGB", (MARGIN + across * cell_width, 84 + down * cell_height), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((MARGIN, 14), illustration.title, INK, font=title)
    pen.text((MARGIN, 46), "each example: " + ", ".join(illustration.columns), FAINT, font=caption)
    for index, (text, images) in enumerate(illustration.rows):
        x, y = MARGIN + index % across * cell_width, 76 + index // across * cell_height
        for column, image in enumerate(images):
            tile = _tile(np.asarray(image))
            left, top = (TILE - tile.width) // 2, (TILE - tile.height) // 2
            canvas.paste(tile, (x + column * (TILE + GAP) + left, y + top))
        shown = _shortened(text, caption, cell_width - GAP)
        pen.text((x, y + TILE + 5), shown, WRONG if "WRONG" in text else INK, font=caption)
    canvas.save(path)
    return Path(path)


def _tile(image: np.ndarray) -> Image.Image:
    channels = image.shape[-1]
    shown = image if channels == 3 else np.repeat(image[..., :1], 3, axis=-1)
    tile = Image.fromarray(enlarge(to_uint8(shown)))
    tile.thumbnail((TILE, TILE), Image.Resampling.BICUBIC)
    return tile


def _shortened(text: str, font: Any, width: int) -> str:
    shown = text
    while font.getlength(shown) > width:
        shown = shown[:-2] + "…"
    return shown
