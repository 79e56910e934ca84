"""Any objective, with low-rank factors beside the model's parameters: `models.lora` says what they are."""

from dataclasses import dataclass
from typing import Any

import jax

from vit_jax.models.lora import ROOT, Lora
from vit_jax.objectives.base import Batch, Buffers, Illustration, LossOutput, Objective, Params, Sums
from vit_jax.random import fold


@dataclass(frozen=True)
class Adapted:
    """An objective whose parameters are a model's and, under `lora`, the factors that change it.

    Attributes:
      objective: what is learned; it sees the parameters with the factors merged.
      lora: which layers have factors.
    """

    objective: Objective
    lora: Lora

    @property
    def model(self) -> Any:
        """The configuration of the model being trained."""
        return self.objective.model

    @property
    def network(self) -> Any:
        """The configuration of the plain parameters, those without factors."""
        return self.objective.network

    @property
    def monitor(self) -> str:
        """Name of the evaluation metric that decides which checkpoint is best."""
        return self.objective.monitor

    @property
    def monitor_mode(self) -> str:
        """`max` or `min`."""
        return self.objective.monitor_mode

    @property
    def train_flops(self) -> float:
        """Of the objective: gradients go through the whole kernels, so nothing is saved."""
        return self.objective.train_flops

    def init(self, key: jax.Array) -> tuple[Params, Buffers]:
        """Return the objective's parameters with the factors, and its buffers."""
        params, buffers = self.objective.init(key)
        return {**params, ROOT: self.lora.init(fold(key, ROOT), params)}, buffers

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Return the batch as the objective's loss wants it."""
        return self.objective.prepare(batch, key)

    def loss(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        """Return the objective's loss."""
        return self.objective.loss(self.lora.merge(params), buffers, batch, key)

    def after_update(self, params: Params, buffers: Buffers, step: jax.Array) -> Buffers:
        """Return the objective's buffers after an update."""
        return self.objective.after_update(self.lora.merge(params), buffers, step)

    def activations(self, params: Params, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        """Return what the objective's model computes for a prepared batch; nothing if it does not say."""
        inner: Any = self.objective
        if not hasattr(inner, "activations"):
            return {}
        return inner.activations(self.lora.merge(params), batch, key)

    def evaluate(self, params: Params, buffers: Buffers, batch: Batch) -> Sums:
        """Return the objective's sums."""
        return self.objective.evaluate(self.lora.merge(params), buffers, batch)

    def illustrate(self, params: Params, buffers: Buffers, batch: Batch, rows: int) -> Illustration:
        """Return the objective's pictures."""
        return self.objective.illustrate(jax.jit(self.lora.merge)(params), buffers, batch, rows)
