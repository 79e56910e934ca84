"""What a model's outputs are called, how they are written and how they are drawn; on the host, without jax."""

import dataclasses
import importlib
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from vit_jax.errors import ConfigError, nearest

NOT_FINITE = "the model's outputs are not finite"

# Of a table: `str`, `int`, `float`, a list of so many of them at most, or a list with a name for each of them.
Columns = Mapping[str, type | tuple[type, int | tuple[str, ...]]]
# Of one image or one record, by name.
Outputs = Mapping[str, np.ndarray]

# Where the outputs of each kind are.
OUTPUTS = {
    "classes": "vit_jax.objectives.outputs.classes:Classes",
    "values": "vit_jax.objectives.outputs.values:Values",
    "labels": "vit_jax.objectives.outputs.labels:Labels",
    "segmentation": "vit_jax.objectives.outputs.segmentation:Segmentation",
}


@dataclass(frozen=True)
class Prediction:
    """What a model says of one image.

    Attributes:
      image: path of the image, or `image` and its number.
      record: what it says, in the columns of the output, as JSON can hold it; empty if there is an error.
      error: why there is no prediction: the image cannot be read, where such are skipped, or `NOT_FINITE`.
      outputs: the arrays that the model gave, where the record does not hold them all, such as masks.
      size: height and width of the image as it was given.
      geometry: float32 `(2, 3)`, from its pixels to those that the model saw, see `data.geometry`.
    """

    image: str
    record: dict[str, Any]
    error: str = ""
    outputs: Outputs = field(default_factory=dict, compare=False, repr=False)
    size: tuple[int, int] | None = field(default=None, compare=False, repr=False)
    geometry: np.ndarray | None = field(default=None, compare=False, repr=False)


class Output(ABC):
    """How the predictions of a task are written and drawn. Subclasses are frozen dataclasses of what JSON can hold.

    Attributes:
      kind: the name of the class in `OUTPUTS`.
      prediction: what holds a prediction.
      judged: whether `evaluate_rows` gives `label` and `classes`, so that a record is right or wrong.
      keeps: whether a prediction keeps the model's arrays beside its record.
    """

    kind: ClassVar[str]
    prediction: ClassVar[type[Prediction]] = Prediction
    judged: ClassVar[bool] = False
    keeps: ClassVar[bool] = True

    @property
    def vector(self) -> tuple[str, int] | None:
        """Name and length of the array that is a row of numbers for each image, such as probabilities; None of none."""
        return None

    @property
    def summary(self) -> str:
        """What is predicted, in a few words."""
        return self.kind

    @property
    @abstractmethod
    def columns(self) -> Columns:
        """What a table has of each image, beside its name."""

    @abstractmethod
    def record(
        self, outputs: Outputs, size: tuple[int, int] | None = None, geometry: np.ndarray | None = None
    ) -> dict[str, Any]:
        """Return the values of `columns` of one image, as Python's own numbers, texts and lists.

        Args:
          outputs: the objective's `predict` of it, without the axis of the batch; finite.
          size: height and width of the image as it was given; None for what the model saw.
          geometry: float32 `(2, 3)`, from its pixels to those that the model saw.
        """

    @abstractmethod
    def text(self, record: Mapping[str, Any]) -> str:
        """Return a record as what is printed beside the image's name."""

    def line(self, record: Mapping[str, Any]) -> dict[str, Any]:
        """Return a record as a line of JSON has it, beside the image's name."""
        return dict(record)

    @property
    def evaluated_columns(self) -> Columns:
        """What a table has of each record that was evaluated, beside its name: also what the data say of it."""
        return self.columns

    def evaluated(self, row: Outputs) -> dict[str, Any]:
        """Return the values of `evaluated_columns` of one record.

        Args:
          row: the objective's `evaluate_rows` of it.
        """
        return self.record(row)

    def files(
        self, outputs: Outputs, stem: str, image: np.ndarray, geometry: np.ndarray | None = None
    ) -> dict[str, bytes]:
        """Return files that say what a table cannot, such as masks, by name; none where there is nothing.

        Args:
          outputs: see `record`.
          stem: how their names begin.
          image: uint8 `(h, w, c)`, as it was given.
          geometry: see `record`.
        """
        return {}

    @property
    def writes_files(self) -> bool:
        """Whether `files` gives any."""
        return type(self).files is not Output.files

    def draw(self, image: np.ndarray, outputs: Outputs) -> np.ndarray | None:
        """Return a picture of a prediction, uint8 `(h, w, 3)`, or None where there is nothing to draw.

        Args:
          image: uint8 `(h, w, c)`, as the model saw it.
          outputs: see `record`.
        """
        return None

    def best(self, top: int) -> "Output":
        """Return the same, but only the `top` best of each prediction.

        Raises:
          ConfigError: predictions have no order.
        """
        raise ConfigError(
            f"top is {top}, but the model predicts {self.kind}, which are not ranked; leave it out."
        )

    def predicted(
        self,
        name: str,
        outputs: Outputs,
        size: tuple[int, int] | None = None,
        geometry: np.ndarray | None = None,
    ) -> Prediction:
        """Return the prediction of an image; of outputs that are not finite it has an error and no record.

        Args:
          name: of the image.
          outputs, size, geometry: see `record`.
        """
        finite = all(np.isfinite(x).all() for x in outputs.values() if np.issubdtype(x.dtype, np.inexact))
        record = self.record(outputs, size, geometry) if finite else {}
        kept = outputs if self.keeps else {}
        return self.prediction(name, record, "" if finite else NOT_FINITE, kept, size, geometry)

    def to_json(self) -> dict[str, Any]:
        """Return what `output_from_json` takes."""
        fields: Any = dataclasses.asdict(self)  # type: ignore[call-overload]
        return {"kind": self.kind, **fields}


def register_output(kind: type[Output]) -> None:
    """Make outputs of another package known by their `kind`, so that what was exported with them is read."""
    OUTPUTS[kind.kind] = f"{kind.__module__}:{kind.__qualname__}"


def output_from_json(described: Mapping[str, Any]) -> Output:
    """Return the output that `Output.to_json` has described.

    Raises:
      ConfigError: there is no such kind, or its fields are others.
    """
    fields = dict(described)
    name = fields.pop("kind", None)
    if name not in OUTPUTS:
        raise ConfigError(
            f"outputs are of kind {name!r}; known are {', '.join(OUTPUTS)}.{nearest(str(name), OUTPUTS)}"
        )
    module, _, attribute = OUTPUTS[name].partition(":")
    kind = getattr(importlib.import_module(module), attribute)
    try:
        return kind(**{key: _frozen(value) for key, value in fields.items()})
    except TypeError as error:
        raise ConfigError(f"outputs of kind {name!r} are not described like this: {error}.") from None


def check_texts(values: Any, what: str) -> None:
    """Raise `ConfigError` unless all are texts; `what` they are."""
    for value in values:
        if not isinstance(value, str):
            raise ConfigError(f"{what} has {value!r:.60}, which is not a string.")


def _frozen(value: Any) -> Any:
    """Return JSON's lists as tuples."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value
