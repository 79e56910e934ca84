"""A report as one picture: confusion matrix with recall and precision beside it, and the reliability diagram."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vit_jax.evaluation.figure import FAINT, INK, MARGIN, RIGHT, WRONG, font, shortened, wrapped
from vit_jax.evaluation.report import Report
from vit_jax.evaluation.tally import BINS

MATRIX = 560  # pixels: the side of the matrix where there are many classes
LARGEST_CELL, SMALLEST_CELL, NAMED_CELL = 64, 3, 13  # pixels: from the last on, classes are named
ALL, SOME = (
    150,
    40,
)  # classes: more than the first are too many for a picture, which then shows the second number
BARS, SIDE = 70, 300  # pixels: bars beside the matrix, and the width of what stands to the right of it
LISTED = 10  # pairs of classes
EMPTY, PAPER = (238, 238, 240), (255, 255, 255)
BLUE, GREY = (44, 98, 165), (200, 200, 206)


def draw_report(report: Report, path: str | Path, *, of: str = "") -> Path:
    """Write a report as a PNG and return its path.

    Args:
      report: what to draw.
      path: where to.
      of: what was evaluated, for the title.
    """
    shown = _shown_classes(report)
    cell = int(np.clip(MATRIX // len(shown), SMALLEST_CELL, LARGEST_CELL))
    small, named = font(min(13, max(cell, 11))), cell >= NAMED_CELL
    names = [shortened(report.class_names[label], small, 150) for label in shown]
    if not named:
        names = [str(label) for label in shown]
    longest = math.ceil(max(small.getlength(name) for name in names))
    lead = math.ceil(max(longest, font(13).getlength("precision")))
    side = cell * len(shown)
    left, right = MARGIN + lead + 6, BARS + 44
    width = left + side + right + 40 + SIDE + MARGIN
    headline, facts = _headline(report, of), _facts(report, len(shown))
    titles, lines = (
        wrapped(headline, font(20), width - 2 * MARGIN),
        wrapped(facts, font(13), width - 2 * MARGIN),
    )
    top = 24 + 26 * len(titles) + 18 * len(lines) + 34 + (longest if named else 14)
    height = top + max(side + BARS + 34, SIDE + 90 + 18 * (1 + len(report.confused(LISTED)))) + MARGIN
    canvas = Image.new("RGB", (width, height), PAPER)
    pen = ImageDraw.Draw(canvas)
    pen.text((MARGIN, 14), "\n".join(titles), INK, font=font(20))
    pen.text((MARGIN, 20 + 26 * len(titles)), "\n".join(lines), FAINT, font=font(13))
    _matrix(canvas, pen, report, shown, (left, top), cell)
    _names(canvas, pen, names, (left, top), cell, small, every=1 if named else _stride(cell))
    _bars(pen, report, shown, (left, top), cell, small)
    across = left + side + right + 40
    _reliability(pen, report, (across, top))
    _pairs(pen, report, (across, top + SIDE + 90))
    canvas.save(path, "PNG")
    return Path(path)


def _shown_classes(report: Report) -> np.ndarray:
    """Return all classes, or of many those of the most confused pairs, in order of label."""
    classes = len(report.class_names)
    if classes <= ALL:
        return np.arange(classes)
    paired = [label for pair in report.confused(SOME) for label in (pair.label, pair.prediction)]
    return np.sort(list(dict.fromkeys([*paired, *range(SOME)]))[:SOME])


def _headline(report: Report, of: str) -> str:
    return f"Accuracy {report.accuracy:.1%}: {of or f'{report.records:,} records'}"


def _facts(report: Report, shown: int) -> str:
    facts = [f"balanced accuracy {report.balanced_accuracy:.1%}", f"macro F1 {report.mean('f1'):.3f}"]
    if len(report.class_names) > 5:
        facts.append(f"top-5 accuracy {report.top5_accuracy:.1%}")
    facts.append(f"calibration error {report.calibration_error:.3f}")
    missing = int((report.support == 0).sum())
    if missing:
        facts.append(f"{missing:,} of {len(report.class_names):,} classes have no records")
    if report.not_finite:
        facts.append(f"{report.not_finite:,} records have logits that are not finite, which count as wrong")
    if shown < len(report.class_names):
        facts.append(
            f"shown are the {shown} of {len(report.class_names):,} classes, those of the most confused pairs"
        )
    return ", ".join(facts)


def _matrix(
    canvas: Any, pen: Any, report: Report, shown: np.ndarray, corner: tuple[int, int], cell: int
) -> None:
    """Draw shares of each row: what is right in blue, what is wrong in red; a row without records is grey."""
    counts = report.confusion[shown][:, shown].toarray()
    share = counts / np.maximum(report.support[shown], 1)[:, None]
    # A mistake in a hundred has to be seen.
    strength = np.where(counts > 0, 0.12 + 0.88 * np.sqrt(share), 0)[..., None]
    ink = np.where(np.eye(len(shown), dtype=bool)[..., None], BLUE, WRONG)
    colours = np.rint(PAPER + strength * (ink - np.asarray(PAPER))).astype(np.uint8)
    colours[report.support[shown] == 0] = EMPTY
    x, y = corner
    side = cell * len(shown)
    canvas.paste(Image.fromarray(colours.repeat(cell, axis=0).repeat(cell, axis=1)), corner)
    if cell >= NAMED_CELL:
        for place in range(1, len(shown)):
            pen.line((x + place * cell, y, x + place * cell, y + side), EMPTY)
            pen.line((x, y + place * cell, x + side, y + place * cell), EMPTY)
    pen.rectangle((x - 1, y - 1, x + side, y + side), outline=GREY)
    number = font(min(14, max(9, cell // 2)))
    for row, column in np.argwhere(counts > 0):
        text = _short(int(counts[row, column]))
        if number.getlength(text) <= cell - 4 and cell >= 18:
            colour = PAPER if strength[row, column, 0] > 0.55 else INK
            place = (x + (column + 0.5) * cell, y + (row + 0.5) * cell)
            pen.text(place, text, colour, font=number, anchor="mm")


def _names(
    canvas: Any, pen: Any, names: list[str], corner: tuple[int, int], cell: int, small: Any, every: int
) -> None:
    """Name rows and columns, or every so many of them."""
    x, y = corner
    side = cell * len(names)
    for place in range(0, len(names), every):
        middle = (place + 0.5) * cell
        pen.text((x - 6, y + middle), names[place], INK, font=small, anchor="rm")
        if every > 1:
            pen.text((x + middle, y - 4), names[place], INK, font=small, anchor="mb")
            continue
        length = math.ceil(small.getlength(names[place]))
        upright = Image.new("RGB", (max(length, 1), 18), PAPER)
        ImageDraw.Draw(upright).text((0, 9), names[place], INK, font=small, anchor="lm")
        canvas.paste(upright.rotate(90, expand=True), (round(x + middle - 9), y - 6 - length))
    pen.text((MARGIN, y - 4), "label", FAINT, font=font(13), anchor="lb")
    above = 12 if every > 1 else math.ceil(max(small.getlength(name) for name in names))
    pen.text((x + side / 2, y - 12 - above), "prediction", FAINT, font=font(13), anchor="mb")


def _bars(
    pen: Any, report: Report, shown: np.ndarray, corner: tuple[int, int], cell: int, small: Any
) -> None:
    """Draw recall to the right of each row and precision below each column; a dash where it is not defined."""
    x, y = corner
    side = cell * len(shown)
    thick = max(1, min(cell - 2, 22)) if cell > 4 else cell
    pen.text((x + side + 8, y - 4), "recall", FAINT, font=font(13), anchor="lb")
    pen.text((x - 6, y + side + 8), "precision", FAINT, font=font(13), anchor="rt")
    for place, label in enumerate(shown):
        near = place * cell + (cell - thick) // 2
        for value, begin, down in (
            (report.recall[label], side + 8, False),
            (report.precision[label], side + 8, True),
        ):
            length = 0 if np.isnan(value) else round(float(value) * BARS)
            bar, whole = (
                (near, begin, near + thick - 1, begin + size)
                if down
                else (begin, near, begin + size, near + thick - 1)
                for size in (length, BARS)
            )
            pen.rectangle([a + b for a, b in zip(whole, (x, y, x, y))], EMPTY)
            if length:
                pen.rectangle([a + b for a, b in zip(bar, (x, y, x, y))], RIGHT)
            text = "-" if np.isnan(value) else f"{value:.0%}"
            if cell < NAMED_CELL or (down and small.getlength(text) > cell - 2):
                continue
            middle = (place + 0.5) * cell
            spot = (x + middle, y + begin + BARS + 4) if down else (x + begin + BARS + 4, y + middle)
            pen.text(spot, text, INK, font=small, anchor="mt" if down else "lm")


def _reliability(pen: Any, report: Report, corner: tuple[int, int]) -> None:
    """Draw how often predictions are right by how sure they are, and how many are as sure."""
    x, y = corner
    side, counts = SIDE - 40, 50
    x += 40
    caption = font(13)
    pen.text((x, y - 8), "Calibration: accuracy against confidence", INK, font=caption, anchor="lb")
    bar = side / BINS
    most = max(int(report.bin_records.max()), 1)
    for place in range(BINS):
        begin, end = round(x + place * bar) + 1, round(x + (place + 1) * bar) - 1
        records = int(report.bin_records[place])
        if records:
            right, sure = report.bin_accuracy[place], report.bin_confidence[place]
            low, high = sorted((y + side - right * side, y + side - sure * side))
            pen.rectangle((begin, y + side - right * side, end, y + side), BLUE)
            pen.rectangle((begin, low, end, high), outline=WRONG)
            tall = max(1, round(counts * records / most))
            pen.rectangle((begin, y + side + 30 + counts - tall, end, y + side + 30 + counts), GREY)
    for step in range(0, 40, 2):
        pen.line([(x + side * at / 40, y + side - side * at / 40) for at in (step, step + 1)], INK, width=2)
    pen.rectangle((x, y, x + side, y + side), outline=GREY)
    for value in (0.0, 0.5, 1.0):
        pen.text((x - 5, y + side - value * side), f"{value:.0%}", FAINT, font=caption, anchor="rm")
        pen.text((x + value * side, y + side + 4), f"{value:.0%}", FAINT, font=caption, anchor="mt")
    pen.text((x - 5, y + side + 30 + counts), "records", FAINT, font=font(10), anchor="rb")
    under = "x: confidence; y: accuracy; red: the gap"
    pen.text((x, y + side + 34 + counts), under, FAINT, font=font(11), anchor="lt")


def _pairs(pen: Any, report: Report, corner: tuple[int, int]) -> None:
    x, y = corner
    caption = font(13)
    pairs = report.confused(LISTED)
    pen.text((x, y), "Most confused" if pairs else "Nothing is confused", INK, font=caption)
    for row, pair in enumerate(pairs, 1):
        names = [report.class_names[label] for label in (pair.label, pair.prediction)]
        text = f"{names[0]} as {names[1]}"
        numbers = f"{pair.records:,} ({pair.share:.0%})"
        pen.text((x + SIDE, y + 18 * row), numbers, FAINT, font=caption, anchor="ra")
        room = SIDE - caption.getlength(numbers) - 10
        pen.text((x, y + 18 * row), shortened(text, caption, room), INK, font=caption)


def _stride(cell: int) -> int:
    return next(every for every in (5, 10, 20, 50) if every * cell >= 30)


def _short(count: int) -> str:
    return str(count) if count < 10_000 else f"{count / 1000:.0f}k"
