"""What an evaluation says beside its metrics, by the kind of what is predicted."""

import importlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from vit_jax.objectives.outputs.base import Output

# Where the counts of each kind of output are; others have metrics alone.
COUNTS = {
    "classes": "vit_jax.evaluation.report:ClassCounts",
    "labels": "vit_jax.evaluation.label_report:LabelCounts",
    "segmentation": "vit_jax.evaluation.segmentation_report:SegmentationCounts",
}


class Report(Protocol):
    """What an evaluation says.

    Attributes:
      about: what it is on, in words.
    """

    about: str

    def lines(self, *, everything: bool = False) -> list[str]:
        """Return it as text; `everything` leaves out nothing, however much it is."""
        ...

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON can hold it."""
        ...

    def draw(self, path: str | Path, of: str) -> None:
        """Draw it as a PNG; `of` says what was evaluated."""
        ...


class Counts(Protocol):
    """What a report needs of every record, added up batch by batch."""

    def add(self, rows: Mapping[str, np.ndarray]) -> None:
        """Add records: what the objective's `evaluate_rows` says of them."""
        ...

    def report(self) -> Report:
        """Return the report on all of them."""
        ...


def counts_of(output: Output | None) -> Counts | None:
    """Return what counts for the report on such predictions, empty; None where there is no report."""
    if output is None or output.kind not in COUNTS:
        return None
    module, _, name = COUNTS[output.kind].partition(":")
    return getattr(importlib.import_module(module), name)(output)
