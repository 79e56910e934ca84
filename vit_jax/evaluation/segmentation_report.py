"""How good a segmentation is, class by class, over the pixels of a whole set."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vit_jax.data.images.overlays import colours
from vit_jax.evaluation.figure import FAINT, INK, MARGIN, font, shortened
from vit_jax.evaluation.finite import finite
from vit_jax.evaluation.metrics.segmentation import ious
from vit_jax.objectives.outputs.segmentation import Segmentation

LISTED, WORST = 30, 20  # classes that are all listed, and drawn of more
_NAME, _BAR, _LINE = 160, 360, 22  # pixels


class SegmentationCounts:
    """Pixels that are labelled and predicted, of every record added up.

    Args:
      output: says the classes.
    """

    def __init__(self, output: Segmentation):
        self._names = output.class_names
        self._sums = np.zeros((3, len(self._names)), np.int64)

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Add records: `labelled`, `predicted` and `hits` `(b, c)`."""
        self._sums += [rows[name].sum(axis=0, dtype=np.int64) for name in ("labelled", "predicted", "hits")]

    def report(self) -> "SegmentationReport":
        """Return the report on all of them."""
        return SegmentationReport(self._names, *self._sums)


@dataclass(frozen=True, eq=False)
class SegmentationReport:
    """Intersection over union and accuracy of each class.

    Attributes:
      class_names: in order of their numbers.
      labelled, predicted, hits: pixels `(c,)` that have a class, that are predicted to have it, and both.
    """

    class_names: tuple[str, ...]
    labelled: np.ndarray
    predicted: np.ndarray
    hits: np.ndarray

    @property
    def about(self) -> str:
        """What it is a report on, in words."""
        return f"{len(self.class_names):,} classes of pixels"

    @property
    def iou(self) -> np.ndarray:
        """Intersection over union of each class `(c,)`, NaN of those that are neither there nor predicted."""
        return ious(self.labelled, self.predicted, self.hits)

    @property
    def accuracy(self) -> np.ndarray:
        """Of the pixels of each class the share that is right `(c,)`, NaN of those that are not there."""
        return np.divide(
            self.hits, self.labelled, out=np.full(len(self.hits), np.nan), where=self.labelled > 0
        )

    def lines(self, *, everything: bool = False) -> list[str]:
        """Return it as text; of many classes the worst, unless `everything` is asked for."""
        shown, title = self._shown(everything), []
        if len(shown) < len(self.class_names):
            title = [
                f"the {len(shown)} classes with the lowest IoU of {len(self.class_names):,} (all: --per-class)"
            ]
        width = max(5, *(len(self.class_names[label]) for label in shown))
        total = max(int(self.labelled.sum()), 1)
        iou, accuracy = self.iou.tolist(), self.accuracy.tolist()
        body = [
            f"{self.class_names[label]:<{width}}  {self.labelled[label] / total:>7.2%}  {_score(iou[label]):>7}  "
            f"{_score(accuracy[label]):>8}"
            for label in shown
        ]
        return [*title, f"{'class':<{width}}  {'pixels':>7}  {'IoU':>7}  {'accuracy':>8}", *body]

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it; classes in order of their numbers."""
        columns = (self.labelled, self.predicted, self.iou, self.accuracy)
        names = ("pixels", "predicted", "iou", "accuracy")
        rows = zip(self.class_names, *(column.tolist() for column in columns))
        return finite({"classes": [{"class": name, **dict(zip(names, values))} for name, *values in rows]})

    def draw(self, path: str | Path, of: str) -> None:
        """Draw the IoU of each class as a PNG, of many the worst; `of` says what was evaluated."""
        shown, known = self._shown(False), self.iou[~np.isnan(self.iou)]
        width, top = 2 * MARGIN + _NAME + _BAR + 60, 70
        canvas = Image.new("RGB", (width, top + _LINE * len(shown) + MARGIN), (255, 255, 255))
        pen = ImageDraw.Draw(canvas)
        pen.text((MARGIN, 14), f"mIoU {known.mean():.1%}" if len(known) else "no pixels", INK, font=font(20))
        pen.text((MARGIN, 42), shortened(of, font(13), width - 2 * MARGIN), FAINT, font=font(13))
        palette, left = colours(len(self.class_names)), MARGIN + _NAME
        for row, label in enumerate(shown):
            y, iou = top + _LINE * row, float(self.iou[label])
            value = 0.0 if np.isnan(iou) else iou
            pen.text((MARGIN, y), shortened(self.class_names[label], font(13), _NAME - 8), INK, font=font(13))
            pen.rectangle(
                (left, y + 2, left + round(_BAR * value), y + _LINE - 6), tuple(palette[label].tolist())
            )
            pen.text((left + round(_BAR * value) + 6, y), _score(iou), INK, font=font(13))
        canvas.save(path, "PNG")

    def _shown(self, everything: bool) -> np.ndarray:
        classes = np.arange(len(self.class_names))
        if len(classes) <= LISTED or everything:
            return classes
        return np.lexsort((classes, np.nan_to_num(self.iou, nan=2.0)))[:WORST]


def _score(value: float) -> str:
    return "-" if np.isnan(value) else f"{value:.4f}"
