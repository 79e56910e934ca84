"""Illustrations as a PNG, drawn with Pillow alone."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from vit_jax.objectives.base import Illustration
from vit_jax.objectives.pictures import enlarge, to_uint8

GAP, MARGIN, COLUMNS, LINE = 8, 20, 4, 18  # pixels, and illustrated examples side by side
TOP = 76  # where the examples begin under a title of one line
INK, FAINT, WRONG, RIGHT = (25, 25, 30), (110, 110, 120), (200, 30, 30), (20, 130, 60)


def draw(illustration: Illustration, path: str | Path) -> Path:
    """Write an illustration as a PNG and return its path.

    What the model is right about has a green frame and a tick, what it is wrong about a red one and a cross.

    Args:
      illustration: pictures `(h, w, c)` of any size, values from 0 to 255; small ones are enlarged in blocks, see
        `Illustration.side`.
      path: where to.
    """
    title, caption = font(20), font(13)
    side = illustration.side
    examples = [
        (example, [_shown(np.asarray(image), side) for image in example.images])
        for example in illustration.examples
    ]
    sizes = [image.size for _, images in examples for image in images] or [(side, side)]
    tile_width, tile_height = (max(size[axis] for size in sizes) for axis in (0, 1))
    pictures = len(illustration.columns)
    lines = 1 + any(example.record for example, _ in examples)
    cell_width, cell_height = pictures * (tile_width + GAP) + MARGIN, tile_height + 16 + lines * LINE
    across = max(1, min(COLUMNS, len(examples)))
    down = -(-len(examples) // across)
    width = MARGIN + across * cell_width
    headline = wrapped(illustration.title, title, width - 2 * MARGIN)
    top = TOP + 26 * (len(headline) - 1)
    canvas = Image.new("RGB", (width, top + 8 + down * cell_height), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((MARGIN, 14), "\n".join(headline), INK, font=title)
    columns = shortened("each example: " + ", ".join(illustration.columns), caption, width - MARGIN)
    pen.text((MARGIN, top - 30), columns, FAINT, font=caption)
    for index, (example, images) in enumerate(examples):
        x, y = MARGIN + index % across * cell_width, top + index // across * cell_height
        for column, image in enumerate(images):
            left, above = (tile_width - image.width) // 2, (tile_height - image.height) // 2
            canvas.paste(image, (x + column * (tile_width + GAP) + left, y + above))
        text, line, room = x, y + tile_height + 5, cell_width - GAP
        if example.right is not None:
            colour = RIGHT if example.right else WRONG
            pen.rectangle(
                (x - 3, y - 3, x + cell_width - MARGIN - GAP + 2, y + tile_height + 2),
                outline=colour,
                width=2,
            )
            _sign(pen, x, line + 3, example.right)
            text, room = x + 16, room - 16
        colour = WRONG if example.right is False else INK
        pen.text((text, line), shortened(example.caption, caption, room), colour, font=caption)
        record = shortened(example.record, caption, cell_width - GAP, end=True)
        pen.text((x, line + LINE), record, FAINT, font=caption)
    canvas.save(path)
    return Path(path)


def font(size: int) -> Any:
    """Return the font of all pictures."""
    return ImageFont.load_default(size)


def shortened(text: str, font: Any, width: float, *, end: bool = False) -> str:
    """Return text that is at most so many pixels wide: its beginning, or its end, as file names are told by."""
    shown = text
    while shown and font.getlength(shown) > width:
        shown = "…" + shown[2:] if end else shown[:-2] + "…"
        if shown == "…":
            break
    return shown


def wrapped(text: str, font: Any, width: float) -> list[str]:
    """Return text in lines that are at most so many pixels wide, as far as its words are."""
    lines = [""]
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}".strip()
        if font.getlength(longer) <= width or not lines[-1]:
            lines[-1] = longer
        else:
            lines.append(word)
    return [shortened(line, font, width) for line in lines]


def _sign(pen: ImageDraw.ImageDraw, x: int, y: int, right: bool) -> None:
    """Draw a tick or a cross of 10 pixels: colour alone says nothing to every twelfth man."""
    if right:
        pen.line([(x, y + 5), (x + 3, y + 9), (x + 10, y)], RIGHT, width=2)
    else:
        pen.line([(x, y), (x + 9, y + 9)], WRONG, width=2)
        pen.line([(x, y + 9), (x + 9, y)], WRONG, width=2)


def _shown(image: np.ndarray, side: int) -> Image.Image:
    shown = image if image.shape[-1] == 3 else np.repeat(image[..., :1], 3, axis=-1)
    picture = Image.fromarray(enlarge(to_uint8(shown), side))
    picture.thumbnail((2 * side, 2 * side), Image.Resampling.BICUBIC)
    return picture
