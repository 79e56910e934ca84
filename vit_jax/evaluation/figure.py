"""Illustrations as a PNG, drawn with Pillow alone."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vit_jax.objectives.base import Illustration

TILE, GAP, MARGIN, COLUMNS = 112, 8, 20, 4  # pixels, and illustrated examples side by side
INK, FAINT, WRONG = (25, 25, 30), (110, 110, 120), (200, 30, 30)


def draw(illustration: Illustration, path: str | Path) -> Path:
    """Write an illustration as a PNG and return its path.

    Args:
      illustration: pictures `(h, w, c)` uint8 of any size; small ones are enlarged in blocks.
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
            canvas.paste(_tile(np.asarray(image)), (x + column * (TILE + GAP), y))
        pen.text((x, y + TILE + 5), text, WRONG if "WRONG" in text else INK, font=caption)
    canvas.save(path)
    return Path(path)


def _tile(image: np.ndarray) -> Image.Image:
    channels = image.shape[-1]
    shown = image if channels == 3 else np.repeat(image[..., :1], 3, axis=-1)
    small = max(image.shape[:2]) < TILE
    kind = Image.Resampling.NEAREST if small else Image.Resampling.BICUBIC
    return Image.fromarray(shown).resize((TILE, TILE), kind)
