"""The one seam between what is learned and how it is trained.

The training loop, step, checkpoints and sharding know only this class. An objective is one folder: it builds its
parameters, says what the loss is, and how to evaluate.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from vit_jax.errors import ConfigError
from vit_jax.models.flops import training_flops
from vit_jax.objectives.encoder import encoder_state, pooled_features
from vit_jax.objectives.images import pictures_of, raw_images
from vit_jax.objectives.outputs.base import Output
from vit_jax.objectives.outputs.illustration import illustrated
from vit_jax.objectives.outputs.seen import seen
from vit_jax.objectives.protocol import (
    Batch,
    Buffers,
    Constant,
    DataInfo,
    Example,
    Field,
    HostBatch,
    Illustration,
    LossOutput,
    Moment,
    Params,
    Rows,
    Scorer,
    Sums,
)

__all__ = [
    "Batch",
    "Buffers",
    "Constant",
    "DataInfo",
    "Example",
    "Field",
    "HostBatch",
    "Illustration",
    "LossOutput",
    "Moment",
    "Objective",
    "Params",
    "Rows",
    "Scorer",
    "Sums",
]


class Objective(ABC):
    """What a model is trained to do; `init`, `loss` and `evaluate` must be said, everything else has a default.

    An objective is a value (a frozen dataclass), and its methods are pure functions.

    Attributes:
      model: the configuration of the model being trained.
    """

    model: Any

    # ---- what it needs, and what it is made of

    @property
    def fields(self) -> Mapping[str, Field]:
        """What `prepare` and `loss` need of a record after the transforms, by name."""
        return {"image": Field()}

    @property
    def eval_fields(self) -> Mapping[str, Field]:
        """What `evaluate` needs of a record, by name."""
        return self.fields

    @property
    def network(self) -> Any:
        """The configuration whose parameters `init` returns: `model`, or one that it is a part of; None if no family
        describes them."""
        return self.model

    @property
    def encoder(self) -> str:
        """The path of `model`'s parameters among those of `init`; empty if they are all."""
        return ""

    @property
    def encoders(self) -> Mapping[str, str]:
        """Where several networks like `model` lie in a state, by the names that `--weights` takes, the one first whose
        features count: `{"teacher": "buffers/teacher", "student": "params/encoder"}`; empty if there is one.
        """
        alone = self.network is None and self.encoder
        return {self.encoder: f"params/{self.encoder}"} if alone else {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """What `evaluate_rows` predicts, in order of label; empty if it predicts no classes."""
        return ()

    @property
    def outputs_named(self) -> bool:
        """Whether the names of the data's classes are those of `network`'s outputs, and go where its weights go."""
        return True

    @property
    def train_flops(self) -> float:
        """Floating-point operations of forward and backward for one example."""
        return training_flops(self.model)

    @property
    def any_shape(self) -> bool:
        """Whether it takes images that keep their shape, of a model that does, see `objectives.images`."""
        return False

    @property
    def loss_may_rise(self) -> bool:
        """Whether a loss that rises is no sign that anything is wrong."""
        return False

    def constants(self) -> Mapping[str, Constant]:
        """Return the frozen networks that it uses, by name; their parameters come with `at`."""
        return {}

    def refuses(self, config: Any) -> None:  # noqa: B027, nothing is refused unless it says so
        """Raise `ConfigError` for a configuration that this objective cannot be trained with."""

    # ---- training

    def at(self, moment: Moment) -> "Objective":
        """Return the objective as it is at this moment of a run, for schedules and frozen networks.

        A step calls it while it is traced, and everything else on what it returns; for example
        `dataclasses.replace(self, moment=moment)`.
        """
        return self

    @abstractmethod
    def init(self, key: jax.Array) -> tuple[Params, Buffers]:
        """Return parameters (nested dict of float32 arrays) and buffers (nested dict, may be empty)."""

    def begin(self, params: Params, buffers: Buffers) -> Buffers:
        """Return the buffers that training begins with, once weights of a checkpoint were loaded into `params`."""
        return buffers

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Return the batch as the loss wants it: once per step, on the whole batch, before it is divided."""
        return batch

    @abstractmethod
    def loss(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        """Return the mean loss over a prepared (micro)batch and what goes with it."""

    def combine(self, buffers: Buffers, sums: Sums) -> Buffers:
        """Return the buffers once the whole batch was seen, given what `LossOutput.sums` add up to; once a step."""
        return buffers

    def project(self, params: Params) -> Params:
        """Return updated parameters within their bounds, e.g. a clamped logit scale."""
        return params

    def after_update(self, params: Params, buffers: Buffers, step: jax.Array) -> Buffers:
        """Return the buffers after the parameters were updated, e.g. a teacher's moving average."""
        return buffers

    def concerns(self, metrics: Mapping[str, float]) -> Mapping[str, str]:
        """Return what looks wrong about a run's mean metrics, one line for each kind, such as a collapse.

        A run asks whenever it logs, after its first tenth, and tells each kind once.
        """
        return {}

    def activations(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> dict[str, jax.Array]:
        """Return what the model computes for a prepared batch, by name and in order; `blocks` are `(l, b, n, d)`.

        It serves to find where numbers are not finite; nothing, if the objective does not say.
        """
        return {}

    # ---- evaluation

    @property
    def monitor(self) -> str:
        """Name of the evaluation metric that decides which checkpoint is best, unless another is configured."""
        return "loss"

    @property
    def metric_modes(self) -> Mapping[str, str]:
        """What is better of each evaluation metric: `max` or `min`; there are no others."""
        return {"loss": "min"}

    @abstractmethod
    def evaluate(self, params: Params, buffers: Buffers, batch: Batch) -> Sums:
        """Return sums over the rows with `batch["mask"]` true, arrays of any shape, and their number as `count`."""

    def summarise(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return the metrics of sums over the whole set: of each scalar its mean."""
        return {
            name: float(value) / float(sums["count"])
            for name, value in sums.items()
            if name != "count" and not np.ndim(value)
        }

    def evaluate_rows(self, params: Params, buffers: Buffers, batch: Batch) -> tuple[Sums, Rows]:
        """Return what `evaluate` does, and what the model says of each row of the batch; by default its predictions.

        A classifier gives `classes` int32 `(b, k)`, the `k` most probable ones, best first, or -1 where a logit is not
        finite, and their `probabilities` `(b, k)`.
        """
        said = {} if self.output is None else self.predict(params, buffers, batch)
        return self.evaluate(params, buffers, batch), said

    def scorer(self) -> Scorer | None:
        """Return what makes metrics of the rows of `evaluate_rows` on the host, new for each evaluation, or None."""
        return None

    # ---- predictions

    @property
    def output(self) -> Output | None:
        """How predictions are written and drawn; None where there are none."""
        return None

    def predict(self, params: Params, buffers: Buffers, batch: Batch) -> dict[str, jax.Array]:
        """Return what the model says of raw images `(b, h, w, c)` uint8, arrays with leading `b`, by name.

        Raises:
          ConfigError: the objective predicts nothing.
        """
        raise ConfigError(
            f"{type(self).__name__} makes no predictions for images; use its encoder, for example with vit-jax "
            "features."
        )

    def features(self, params: Params, buffers: Buffers, batch: Batch) -> jax.Array:
        """Return one row of features for each raw image `(b, h, w, c)` uint8 of a batch, float32 `(b, d)`.

        By default what the encoder pools, see `objectives.encoder`: the first of `encoders`.
        """
        return pooled_features(self.model, *encoder_state(self, params, buffers), batch)

    def settled(self, metrics: Mapping[str, float]) -> "Objective":
        """Return the objective of a checkpoint with what its own evaluation has found, such as thresholds."""
        return self

    def plain(self, params: Params, buffers: Buffers) -> Params:
        """Return parameters of `network` that say by themselves what buffers of the objective say of its outputs."""
        return params

    def illustrate(
        self, params: Params, buffers: Buffers, batch: HostBatch, records: Sequence[str]
    ) -> Illustration:
        """Return pictures of what the model does with each example of a batch: of predictions, or else of features.

        Every host calls it with the same batch, and all get the same pictures.

        Args:
          params, buffers: of the model.
          batch: examples as evaluation reads them, whole on every host; see `objectives.images.pictures_of`.
          records: where each comes from.
        """
        if self.output is None:
            return seen(self.model, *encoder_state(self, params, buffers), batch, records)
        predict = jax.jit(self.predict)
        return illustrated(
            lambda images: predict(params, buffers, {"image": images}),
            self.output,
            raw_images(batch),
            pictures_of(batch, self.model),
            records,
        )
