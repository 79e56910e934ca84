"""How well each of several labels an image is predicted, and from which probability on it is predicted best."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from vit_jax.evaluation.figure import FAINT, INK, font, shortened
from vit_jax.evaluation.finite import finite
from vit_jax.evaluation.metrics.labels import LabelScorer, f1_scores
from vit_jax.evaluation.metrics.labels import tuned_threshold as tuned
from vit_jax.objectives.outputs.labels import Labels

LISTED = 20  # classes that are told unless all are asked for
WIDTH, NAMES, ROW, TOP = 640, 180, 22, 70  # pixels
BLUE, PAPER = (44, 98, 165), (238, 238, 240)


class LabelCounts:
    """Keeps the probabilities of every record.

    Args:
      output: the classes, with their thresholds.
    """

    def __init__(self, output: Labels):
        self._output = output
        self._scorer = LabelScorer(output.thresholds or "tuned")

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Add records: `probabilities` and `labels`, both `(b, c)`."""
        self._scorer.see(rows)

    def report(self) -> "LabelReport":
        """Return the report on all of them."""
        probabilities, labels = self._scorer.seen()
        thresholds = self._scorer.thresholds()
        return LabelReport(
            self._output.class_names,
            self._scorer.counts(),
            self._scorer.average_precisions(),
            f1_scores(probabilities, labels, thresholds).per_class,
            thresholds,
            np.array([tuned(*column) for column in zip(probabilities.T, labels.T)]),
        )


@dataclass(frozen=True, eq=False)
class LabelReport:
    """What there is to say of each class, `(c,)` each; NaN where it is not defined.

    Attributes:
      class_names: in order.
      records: how many have it.
      average_precision: of its probabilities.
      f1: at its threshold.
      threshold: from which probability on it is predicted.
      best_threshold: which would have had the highest F1 here; for `objective.thresholds`.
    """

    class_names: tuple[str, ...]
    records: np.ndarray
    average_precision: np.ndarray
    f1: np.ndarray
    threshold: np.ndarray
    best_threshold: np.ndarray

    @property
    def about(self) -> str:
        """How many classes it is on."""
        return f"any of {len(self.class_names)} classes"

    def lines(self, *, everything: bool = False) -> list[str]:
        """Return the classes as a table, the worst first; of many, only these."""
        order = np.argsort(
            np.where(np.isnan(self.average_precision), 2, self.average_precision), kind="stable"
        )
        shown = order if everything else order[:LISTED]
        width = max(len("class"), *(len(self.class_names[i]) for i in shown))
        lines = [f"{'class':<{width}}  records      AP      F1  threshold  best threshold"]
        for i in shown:
            lines.append(
                f"{self.class_names[i]:<{width}}  {self.records[i]:>7,}  {self.average_precision[i]:>6.4f}  "
                f"{self.f1[i]:>6.4f}  {self.threshold[i]:>9.4f}  {self.best_threshold[i]:>14.4f}"
            )
        rest = len(order) - len(shown)
        return lines + [f"and {rest:,} more, with --per-class"] * bool(rest)

    def to_json(self) -> dict[str, Any]:
        """Return what is known of each class, in order."""
        columns = {
            name: np.asarray(value).tolist() for name, value in vars(self).items() if name != "class_names"
        }
        return finite(
            {
                "classes": [
                    {"class": name} | {column: values[i] for column, values in columns.items()}
                    for i, name in enumerate(self.class_names)
                ]
            }
        )

    def draw(self, path: str | Path, of: str = "") -> None:
        """Draw the average precision of each class as a bar, in order; of very many classes the worst."""
        worst = np.argsort(
            np.where(np.isnan(self.average_precision), 2, self.average_precision), kind="stable"
        )
        shown = np.sort(worst[: 10 * LISTED])
        canvas = Image.new("RGB", (WIDTH, TOP + ROW * len(shown) + 10), "white")
        pen, text = ImageDraw.Draw(canvas), font(13)
        pen.text((20, 12), "Average precision of each class", INK, font=font(20))
        pen.text((20, 42), shortened(of, text, WIDTH - 40), FAINT, font=text)
        for row, i in enumerate(shown):
            top, value = TOP + row * ROW, float(self.average_precision[i])
            pen.text((20, top), shortened(self.class_names[i], text, NAMES - 30), INK, font=text)
            pen.rectangle((NAMES, top + 2, WIDTH - 80, top + 16), fill=PAPER)
            if not np.isnan(value):
                pen.rectangle((NAMES, top + 2, NAMES + (WIDTH - 80 - NAMES) * value, top + 16), fill=BLUE)
            pen.text((WIDTH - 70, top), "none" if np.isnan(value) else f"{value:.3f}", INK, font=text)
        canvas.save(path, format="PNG")
