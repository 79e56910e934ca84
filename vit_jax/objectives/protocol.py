"""What goes between an objective and what trains it: fields, moments, frozen networks, the output of a loss."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax
import numpy as np

from vit_jax.objectives.pictures import DISPLAY

Params = Any
Buffers = Any
Batch = Mapping[str, jax.Array]
Sums = dict[str, jax.Array]
Rows = dict[str, jax.Array]
HostBatch = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class DataInfo:
    """What an objective may know about the training set.

    Attributes:
      num_classes: number of classes, or of values.
      class_names: their names, in order of label.
      class_counts: examples of each class, or None when unknown.
      label_counts: of several labels an image, how many have each class and how many have it not, or None.
      value_scale: mean and standard deviation of each value, or None.
      shapes: of what the transforms leave of a record to train on, by name; empty where nothing is trained.
      records: how many there are to train on; 0 where it is not known.
    """

    num_classes: int
    class_names: tuple[str, ...] = ()
    class_counts: tuple[int, ...] | None = None
    label_counts: tuple[tuple[int, int], ...] | None = None
    value_scale: tuple[tuple[float, float], ...] | None = None
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    records: int = 0


@dataclass(frozen=True)
class Field:
    """What an objective needs of one field of a record, after the transforms.

    Attributes:
      shape: of one record; None stands for any size, and for any shape, but of an `image` for the model's.
      dtype: its name, or None for any.
    """

    shape: tuple[int | None, ...] | None = None
    dtype: str | None = None

    def __str__(self) -> str:
        sizes = ", ".join("any" if size is None else str(size) for size in self.shape or ())
        return f"{'any shape' if self.shape is None else f'({sizes})'} {self.dtype or ''}".rstrip()

    def accepts(self, shape: tuple[int, ...], dtype: Any) -> bool:
        """Return whether an array of this shape and dtype will do."""
        fits = self.shape is None or (
            len(self.shape) == len(shape)
            and all(ours in (None, theirs) for ours, theirs in zip(self.shape, shape))
        )
        return fits and self.dtype in (None, np.dtype(dtype).name)


@dataclass(frozen=True)
class Moment:
    """Where a run stands, as its step sees it.

    Attributes:
      step: updates made before this one, int32 scalar, traced; in evaluation `total`, a NumPy scalar.
      total: steps of the run.
      per_epoch: steps of an epoch, at least 1.
      constants: parameters of the objective's frozen networks, by name.
    """

    step: Any
    total: int
    per_epoch: int
    constants: Mapping[str, Params]


@dataclass(frozen=True)
class Constant:
    """A frozen network: it is sharded like any other, but neither trained nor stored in checkpoints.

    Attributes:
      config: its configuration; None for one that no family describes, made by `init`.
      source: the checkpoint that its parameters come from, whatever `vit_jax.load` takes.
      options: what `weights.load.open_pretrained` is told beside, such as the classes of its head.
      init: `init(key) -> params`, for one that does not come from a checkpoint; its key follows from the seed.
    """

    config: Any = None
    source: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    init: Callable[[jax.Array], Params] | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossOutput:
    """What a loss returns beside its value.

    Attributes:
      metrics: scalars to log, means over the batch.
      buffers: those that the loss has changed, by their top-level names; the others stay. Only these are looked at for
        numbers that are not finite, and only these go from microbatch to microbatch.
      weight: what the mean loss was divided by (rows, or the sum of their weights); accumulation over
        microbatches weighs each with it, so that the result equals that of the whole batch.
      sums: arrays that are added up over microbatches, for `Objective.combine`.
    """

    metrics: dict[str, jax.Array]
    buffers: Buffers
    weight: jax.Array
    sums: Sums = field(default_factory=dict)


@dataclass(frozen=True)
class Example:
    """Pictures of one record.

    Attributes:
      caption: one line.
      images: `(h, w, c)` uint8, as many as there are columns.
      record: where it comes from.
      right: whether the model is right about it; None where it cannot be.
    """

    caption: str
    images: Sequence[Any]
    record: str = ""
    right: bool | None = None


@dataclass(frozen=True)
class Illustration:
    """Pictures that show what a model does, a row of them for each example.

    Attributes:
      title: above the figure.
      columns: what each column shows.
      examples: in the order of the figure.
      side: pixels; small pictures are enlarged in blocks until their longer side has as many, and large ones are shrunk
        to twice as many.
    """

    title: str
    columns: tuple[str, ...]
    examples: list[Example]
    side: int = DISPLAY


class Scorer(Protocol):
    """Metrics of a whole evaluation set, made on the host of what the model says of each record."""

    def see(self, rows: Mapping[str, np.ndarray]) -> None:
        """Take a batch of what `Objective.evaluate_rows` returned, the rows that count, in the order of the records."""
        ...

    def metrics(self) -> dict[str, float]:
        """Return the metrics of everything seen, which `Objective.metric_modes` has."""
        ...
