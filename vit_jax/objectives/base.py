"""The one seam between what is learned and how it is trained.

The training loop, step, checkpoints and sharding know only this protocol. An objective is one file: it
builds its parameters, says what the loss is, and how to evaluate.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import jax

Params = Any
Buffers = Any
Batch = Mapping[str, jax.Array]
Sums = dict[str, jax.Array]


@dataclass(frozen=True)
class DataInfo:
    """What an objective may know about the training set.

    Attributes:
      num_classes: number of classes.
      class_names: their names, in order of label.
      class_counts: examples of each class, or None when unknown.
    """

    num_classes: int
    class_names: tuple[str, ...] = ()
    class_counts: tuple[int, ...] | None = None


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossOutput:
    """What a loss returns beside its value.

    Attributes:
      metrics: scalars to log, means over the batch.
      buffers: the new buffers.
      weight: what the mean loss was divided by (rows, or the sum of their weights); accumulation over
        microbatches weighs each with it, so that the result equals that of the whole batch.
    """

    metrics: dict[str, jax.Array]
    buffers: Buffers
    weight: jax.Array


@dataclass(frozen=True)
class Illustration:
    """Pictures that show what a model does: one row of images (h w c, uint8) per caption.

    Attributes:
      title: one line above the figure.
      columns: what each column shows.
      rows: `(caption, images)`; as many images as columns.
    """

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[str, list[Any]]] = field(default_factory=list)


class Objective(Protocol):
    """What a model is trained to do."""

    @property
    def model(self) -> Any:
        """The configuration of the model being trained."""
        ...

    @property
    def network(self) -> Any:
        """The configuration whose parameters `init` returns: `model`, or one that it is a part of."""
        ...

    @property
    def monitor(self) -> str:
        """Name of the evaluation metric that decides which checkpoint is best."""
        ...

    @property
    def monitor_mode(self) -> str:
        """`max` or `min`."""
        ...

    @property
    def train_flops(self) -> float:
        """Floating-point operations of forward and backward for one example."""
        ...

    def init(self, key: jax.Array) -> tuple[Params, Buffers]:
        """Return parameters (nested dict of float32 arrays) and buffers (nested dict, may be empty)."""
        ...

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Return the batch as the loss wants it: once per step, on the whole batch, before it is divided."""
        ...

    def loss(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        """Return the mean loss over a prepared (micro)batch and what goes with it."""
        ...

    def after_update(self, params: Params, buffers: Buffers, step: jax.Array) -> Buffers:
        """Return the buffers after the parameters were updated, e.g. a teacher's moving average."""
        ...

    def evaluate(self, params: Params, buffers: Buffers, batch: Batch) -> Sums:
        """Return sums over the rows with `batch["mask"]` true, and their number as `count`."""
        ...

    def illustrate(self, params: Params, buffers: Buffers, batch: Batch, rows: int) -> Illustration:
        """Return pictures of what the model does with at most `rows` examples of an evaluation batch.

        Every host calls it with the same batch, and all get the same pictures.
        """
        ...
