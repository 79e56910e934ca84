"""Any objective, with low-rank factors beside the model's parameters: `models.layers.lora` says what they are."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from vit_jax.models.layers.lora import ROOT, Lora
from vit_jax.objectives.base import Objective
from vit_jax.objectives.outputs.base import Output
from vit_jax.objectives.protocol import (
    Batch,
    Buffers,
    Constant,
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
from vit_jax.random import fold


@dataclass(frozen=True)
class Adapted(Objective):
    """An objective whose parameters are a model's and, under `lora`, the factors that change it.

    Attributes:
      objective: what is learned; it sees the parameters with the factors merged.
      lora: which layers have factors.
    """

    objective: Objective
    lora: Lora

    @property
    def model(self) -> Any:  # pyright: ignore[reportIncompatibleVariableOverride]
        """The configuration of the model being trained."""
        return self.objective.model

    @property
    def fields(self) -> Mapping[str, Field]:
        """What the objective's loss needs of a record."""
        return self.objective.fields

    @property
    def eval_fields(self) -> Mapping[str, Field]:
        """What the objective's evaluation needs of a record."""
        return self.objective.eval_fields

    @property
    def network(self) -> Any:
        """The configuration of the plain parameters, those without factors."""
        return self.objective.network

    @property
    def encoder(self) -> str:
        """The path of the model's parameters."""
        return self.objective.encoder

    @property
    def encoders(self) -> Mapping[str, str]:
        """None: an objective with several is not adapted."""
        return {}

    @property
    def class_names(self) -> tuple[str, ...]:
        """What the objective predicts."""
        return self.objective.class_names

    @property
    def outputs_named(self) -> bool:
        """Whether the objective's outputs have the names of the data's classes."""
        return self.objective.outputs_named

    @property
    def monitor(self) -> str:
        """Name of the evaluation metric that decides which checkpoint is best."""
        return self.objective.monitor

    @property
    def metric_modes(self) -> Mapping[str, str]:
        """What is better of each evaluation metric: `max` or `min`."""
        return self.objective.metric_modes

    @property
    def train_flops(self) -> float:
        """Of the objective: gradients go through the whole kernels, so nothing is saved."""
        return self.objective.train_flops

    @property
    def any_shape(self) -> bool:
        """Whether the objective takes images that keep their shape."""
        return self.objective.any_shape

    @property
    def loss_may_rise(self) -> bool:
        """Whether the objective's loss may rise."""
        return self.objective.loss_may_rise

    @property
    def output(self) -> Output | None:
        """How the objective's predictions are written and drawn."""
        return self.objective.output

    def constants(self) -> Mapping[str, Constant]:
        """Return the objective's frozen networks."""
        return self.objective.constants()

    def refuses(self, config: Any) -> None:
        """Raise what the objective raises."""
        self.objective.refuses(config)

    def at(self, moment: Moment) -> "Adapted":
        """Return the objective at a moment, with the same factors."""
        return replace(self, objective=self.objective.at(moment))

    def init(self, key: jax.Array) -> tuple[Params, Buffers]:
        """Return the objective's parameters with the factors, and its buffers."""
        params, buffers = self.objective.init(key)
        return {**params, ROOT: self.lora.init(fold(key, ROOT), params)}, buffers

    def begin(self, params: Params, buffers: Buffers) -> Buffers:
        """Return the buffers that the objective begins with."""
        return self.objective.begin(self.lora.merge(params), buffers)

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Return the batch as the objective's loss wants it."""
        return self.objective.prepare(batch, key)

    def loss(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        """Return the objective's loss."""
        return self.objective.loss(self.lora.merge(params), buffers, batch, key)

    def combine(self, buffers: Buffers, sums: Sums) -> Buffers:
        """Return the objective's buffers after a whole batch."""
        return self.objective.combine(buffers, sums)

    def project(self, params: Params) -> Params:
        """Return the parameters with the plain ones as the objective bounds them."""
        plain = {name: value for name, value in params.items() if name != ROOT}
        return {**self.objective.project(plain), ROOT: params[ROOT]}

    def after_update(self, params: Params, buffers: Buffers, step: jax.Array) -> Buffers:
        """Return the objective's buffers after an update."""
        return self.objective.after_update(self.lora.merge(params), buffers, step)

    def concerns(self, metrics: Mapping[str, float]) -> Mapping[str, str]:
        """Return what the objective finds wrong."""
        return self.objective.concerns(metrics)

    def activations(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> dict[str, jax.Array]:
        """Return what the objective's model computes for a prepared batch."""
        return self.objective.activations(self.lora.merge(params), buffers, batch, key)

    def evaluate(self, params: Params, buffers: Buffers, batch: Batch) -> Sums:
        """Return the objective's sums."""
        return self.objective.evaluate(self.lora.merge(params), buffers, batch)

    def summarise(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return the objective's metrics."""
        return self.objective.summarise(sums)

    def evaluate_rows(self, params: Params, buffers: Buffers, batch: Batch) -> tuple[Sums, Rows]:
        """Return the objective's sums and rows."""
        return self.objective.evaluate_rows(self.lora.merge(params), buffers, batch)

    def scorer(self) -> Scorer | None:
        """Return the objective's scorer."""
        return self.objective.scorer()

    def predict(self, params: Params, buffers: Buffers, batch: Batch) -> dict[str, jax.Array]:
        """Return the objective's predictions."""
        return self.objective.predict(self.lora.merge(params), buffers, batch)

    def features(self, params: Params, buffers: Buffers, batch: Batch) -> jax.Array:
        """Return the objective's features."""
        return self.objective.features(self.lora.merge(params), buffers, batch)

    def settled(self, metrics: Mapping[str, float]) -> "Adapted":
        """Return it with the objective's."""
        return replace(self, objective=self.objective.settled(metrics))

    def plain(self, params: Params, buffers: Buffers) -> Params:
        """Return the objective's, with the factors merged."""
        return self.objective.plain(self.lora.merge(params), buffers)

    def illustrate(
        self, params: Params, buffers: Buffers, batch: HostBatch, records: Sequence[str]
    ) -> Illustration:
        """Return the objective's pictures."""
        return self.objective.illustrate(jax.jit(self.lora.merge)(params), buffers, batch, records)
