"""Several classes of an image, with their probabilities."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_jax.data.classes import some
from vit_jax.errors import ConfigError
from vit_jax.objectives.outputs.base import Columns, Output, Outputs, Prediction, check_texts
from vit_jax.objectives.outputs.classes import Classes


class LabelPrediction(Prediction):
    """The classes of one image."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Names, most probable first; there may be none."""
        return tuple(self.record.get("labels", ()))

    @property
    def probabilities(self) -> tuple[float, ...]:
        """Of these classes."""
        return tuple(self.record.get("probabilities", ()))


@dataclass(frozen=True)
class Labels(Output):
    """The classes whose probability reaches their threshold, most probable first.

    `predict` gives `probabilities` `(b, c)`; `evaluate_rows` gives `labels` `(b, c)` too: 1, 0, or NaN for unknown.

    Attributes:
      class_names: in order of the model's outputs.
      thresholds: one for each class; none where no evaluation has tuned them.
    """

    kind = "labels"
    prediction = LabelPrediction
    keeps = False
    class_names: tuple[str, ...]
    thresholds: tuple[float, ...]

    def __post_init__(self) -> None:
        check_texts(self.class_names, "class_names")

    @property
    def vector(self) -> tuple[str, int]:
        """The probabilities of all classes."""
        return "probabilities", len(self.class_names)

    @property
    def summary(self) -> str:
        """Their number, and the first of them."""
        return f"any of {len(self.class_names)} classes, {some(self.class_names, 3)}, from {self._least} on"

    @property
    def columns(self) -> Columns:
        """The classes and their probabilities."""
        count = len(self.class_names)
        return {"labels": (str, count), "probabilities": (float, count)}

    def record(
        self, outputs: Outputs, size: tuple[int, int] | None = None, geometry: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Return the classes from their thresholds on; of equal probabilities the first.

        Raises:
          ConfigError: the thresholds are not known.
        """
        if not self.thresholds:
            raise ConfigError(
                "objective.thresholds are to be tuned, but the checkpoint was saved before an evaluation tuned "
                "them; give numbers, such as objective.thresholds=0.5."
            )
        chances = outputs["probabilities"]
        order = np.argsort(-chances, kind="stable")
        found = order[chances[order] >= np.asarray(self.thresholds)[order]]
        return {
            "labels": [self.class_names[i] for i in found],
            "probabilities": [float(chances[i]) for i in found],
        }

    def text(self, record: Mapping[str, Any]) -> str:
        """Return `cat 98.1%   dog 71.2%`, or `none from 50% on`."""
        both = zip(record["labels"], record["probabilities"])
        return "   ".join(f"{name} {chance:.1%}" for name, chance in both) or f"none from {self._least} on"

    def line(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return an object for each class."""
        both = zip(record["labels"], record["probabilities"])
        return {"labels": [{"label": name, "probability": chance} for name, chance in both]}

    def best(self, top: int) -> Classes:
        """Return the `top` most probable classes, whether or not they reach their thresholds."""
        return Classes(self.class_names).best(top)

    @property
    def evaluated_columns(self) -> Columns:
        """The classes that the data says, those predicted, and their probabilities."""
        return {"truth": (str, len(self.class_names)), **self.columns}

    def evaluated(self, row: Outputs) -> dict[str, Any]:
        """Return classes by name."""
        truth = [name for name, has in zip(self.class_names, row["labels"]) if has == 1]
        return {"truth": truth, **self.record(row)}

    def compared(self, row: Outputs) -> tuple[str, bool]:
        """Return in words what is predicted of a record, missing and too much, and whether all of it is right.

        Args:
          row: see `evaluated`.
        """
        found = self.record(row)
        wrong = {
            "missing": [name for name in self.evaluated(row)["truth"] if name not in found["labels"]],
            "wrong": [
                n for n, has in zip(self.class_names, row["labels"]) if has == 0 and n in found["labels"]
            ],
        }
        said = [f"{what}: {', '.join(names)}" for what, names in wrong.items() if names]
        return "  ".join([", ".join(found["labels"]) or "none", *said]), not said

    @property
    def _least(self) -> str:
        """In words, the probability that a class must reach."""
        if len(set(self.thresholds)) == 1:
            return f"{100 * self.thresholds[0]:.3g}%"
        return "their thresholds" if self.thresholds else "thresholds not yet tuned"
