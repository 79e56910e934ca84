"""Values of images, as a regression gives them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_jax.data.classes import some
from vit_jax.objectives.outputs.base import Columns, Output, Outputs, Prediction, check_texts


class ValuePrediction(Prediction):
    """The values of one image."""

    @property
    def values(self) -> tuple[float, ...]:
        """In order of the output's names; none if there is an error."""
        return tuple(self.record.get("values", ()))


@dataclass(frozen=True)
class Values(Output):
    """One or several numbers.

    `predict` gives `values` `(b, k)`; `evaluate_rows` gives `value` `(b, k)` too, NaN for unknown.

    Attributes:
      names: of the values, in order.
      units: of each; none where they are not said.
    """

    kind = "values"
    prediction = ValuePrediction
    keeps = False
    names: tuple[str, ...]
    units: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        check_texts(self.names, "names")
        check_texts(self.units, "units")

    @property
    def vector(self) -> tuple[str, int]:
        """The values."""
        return "values", len(self.names)

    @property
    def summary(self) -> str:
        """Their number, and the first of them."""
        return f"{len(self.names)} values, {some(self.names, 3)}"

    @property
    def columns(self) -> Columns:
        """The values."""
        return {"values": (float, self.names)}

    def record(
        self, outputs: Outputs, size: tuple[int, int] | None = None, geometry: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Return the values in order."""
        return {"values": [float(value) for value in outputs["values"]]}

    def text(self, record: Mapping[str, Any]) -> str:
        """Return `age 31.5 years   height 1.82 m`."""
        units = [f" {unit}" if unit else "" for unit in self.units or ("",) * len(self.names)]
        values = zip(self.names, record["values"], units)
        return "   ".join(f"{name} {value:.6g}{unit}" for name, value, unit in values)

    def line(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return an object of all values by name."""
        return {"values": dict(zip(self.names, record["values"]))}

    @property
    def evaluated_columns(self) -> Columns:
        """The values that the data says, and those predicted."""
        return {"truth": (float, tuple(f"truth_{name}" for name in self.names)), **self.columns}

    def evaluated(self, row: Outputs) -> dict[str, Any]:
        """Return the values in order; where the data says none, none."""
        truth = [None if np.isnan(value) else float(value) for value in row["value"]]
        return {"truth": truth, **self.record(row)}
