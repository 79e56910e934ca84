"""Classes of images, with their probabilities."""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_jax.data.classes import some
from vit_jax.data.images.resizing import check_integer
from vit_jax.objectives.outputs.base import Columns, Output, Outputs, Prediction, check_texts

TOP = 5  # classes of each record that an evaluation keeps


class ClassPrediction(Prediction):
    """The most probable classes of one image."""

    @property
    def classes(self) -> tuple[str, ...]:
        """Names, most probable first; none if there is an error."""
        return tuple(self.record.get("classes", ()))

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Of these classes."""
        return tuple(self.record.get("probabilities", ()))


@dataclass(frozen=True)
class Classes(Output):
    """The most probable classes.

    `predict` gives `probabilities` `(b, c)`; `evaluate_rows` gives `label` `(b,)` and of the `k` most probable classes
    `classes` `(b, k)`, -1 where logits are not finite, and their `probabilities` `(b, k)`.

    Attributes:
      class_names: in order of label.
      top: how many of them a prediction names; all if there are fewer.
    """

    kind = "classes"
    prediction = ClassPrediction
    judged, keeps = True, False
    class_names: tuple[str, ...]
    top: int = TOP

    def __post_init__(self) -> None:
        check_texts(self.class_names, "class_names")

    @property
    def vector(self) -> tuple[str, int]:
        """The probabilities of all classes."""
        return "probabilities", len(self.class_names)

    @property
    def summary(self) -> str:
        """Their number, and the first of them."""
        return f"{len(self.class_names)} classes, {some(self.class_names, 3)}"

    @property
    def columns(self) -> Columns:
        """The classes and their probabilities."""
        count = min(self.top, len(self.class_names))
        return {"classes": (str, count), "probabilities": (float, count)}

    def record(
        self, outputs: Outputs, size: tuple[int, int] | None = None, geometry: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Return the most probable classes; of equal ones the first."""
        chances = outputs["probabilities"]
        best: list[int] = np.argsort(-chances, kind="stable")[: self.top].tolist()
        return {
            "classes": [self.class_names[i] for i in best],
            "probabilities": [float(chances[i]) for i in best],
        }

    def text(self, record: Mapping[str, Any]) -> str:
        """Return `cat 98.1%   dog 1.2%`."""
        return "   ".join(
            f"{name} {chance:.1%}" for name, chance in zip(record["classes"], record["probabilities"])
        )

    def line(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return an object for each class."""
        both = zip(record["classes"], record["probabilities"])
        return {"predictions": [{"class": name, "probability": chance} for name, chance in both]}

    @property
    def evaluated_columns(self) -> Columns:
        """The label, the most probable class, and the further ones."""
        first = {"label": str, "prediction": str, "probability": float}
        return {**first, "classes": (str, TOP), "probabilities": (float, TOP)}

    def evaluated(self, row: Outputs) -> dict[str, Any]:
        """Return label and classes by name; where logits are not finite, no class."""
        known, names = row["classes"][0] >= 0, self.class_names
        best = [names[i] for i in row["classes"].tolist()] if known else []
        chances = row["probabilities"].tolist() if known else []
        return {
            "label": names[int(row["label"])],
            "prediction": best[0] if known else None,
            "probability": chances[0] if known else None,
            "classes": best,
            "probabilities": chances,
        }

    def best(self, top: int) -> "Classes":
        """Return the same with only the `top` most probable classes."""
        top = top.item() if isinstance(top, np.integer) else top
        check_integer(top, "top", 1)
        return dataclasses.replace(self, top=top)
