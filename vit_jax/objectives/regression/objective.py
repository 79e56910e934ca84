"""One or several values an image."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.errors import ConfigError
from vit_jax.evaluation.metrics.values import ValueScorer
from vit_jax.models.heads.units import SCALE, in_units
from vit_jax.objectives.images import on_host, pictures_of, raw_images
from vit_jax.objectives.known import known_mean, split_known
from vit_jax.objectives.outputs.values import Values
from vit_jax.objectives.protocol import Buffers, DataInfo, Example, HostBatch, Illustration, Params
from vit_jax.objectives.regression.losses import absolute_error, huber, squared_error
from vit_jax.objectives.regression.options import RegressionOptions
from vit_jax.objectives.supervised import Supervised

METRICS = {"mae": "min", "rmse": "min", "r2": "max"}


@dataclass(frozen=True)
class Regression(Supervised):
    """Squared, absolute or Huber's error of scaled values.

    The scaling, `mean` and `std` `(k,)` of each value, is a buffer: so it goes with the parameters wherever they go.
    """

    problem = "regression"
    target = "value"
    own = (SCALE,)

    options: RegressionOptions

    @property
    def monitor(self) -> str:
        """The metric that decides which checkpoint is best."""
        return "mae"

    @property
    def metric_modes(self) -> Mapping[str, str]:
        """What is better of each metric; of several values also of each."""
        modes = {"loss": "min"} | METRICS
        if len(self.names) > 1:
            modes |= {f"{metric}/{name}": mode for metric, mode in METRICS.items() for name in self.names}
        return modes

    def refuses(self, config: Any) -> None:
        """Raise `ConfigError` for options that are not one for each value, or a scaling by what is not known."""
        for name in ("mean", "units"):
            given, values = getattr(self.options, name), self.model.num_classes
            if given and len(given) != values:
                raise ConfigError(
                    f"objective.{name} has {len(given)} values; give one for each of the {values} targets."
                )
        if self.options.scaling == "standard" and self.data.value_scale is None:
            raise ConfigError(
                "objective.scaling is 'standard', but the training values are not known before all records are "
                "read; set scaling='given' with mean and std, or 'none'."
            )
        for name, (mean, std) in zip(self.names, self.data.value_scale or ()):
            if not std:
                raise ConfigError(
                    f"all values of {name!r} in the training records are {mean:g}, so there is nothing to learn; "
                    f"leave {name} out, or add records."
                )

    def init(self, key: jax.Array) -> tuple[Params, Buffers]:
        """Return fresh parameters, the model's buffers, and the scaling."""
        scale = np.tile(np.array([0, 1], np.float32), (self.model.num_classes, 1))
        if self.options.scaling == "given":
            scale = np.stack([self.options.mean, self.options.std], axis=1)
        elif self.options.scaling == "standard" and self.data.value_scale is not None:
            scale = np.asarray(self.data.value_scale)
        mean, std = jnp.asarray(scale, jnp.float32).T
        params, buffers = super().init(key)
        # Values that are all the same are learned as they are.
        return params, buffers | {SCALE: {"mean": mean, "std": jnp.where(std > 0, std, 1)}}

    def losses(self, outputs: jax.Array, targets: jax.Array, buffers: Buffers) -> jax.Array:
        """Return the error of each scaled value."""
        scale = buffers[SCALE]
        scaled = (targets - scale["mean"]) / scale["std"]
        if self.options.loss == "huber":
            return huber(outputs, scaled, self.options.delta)
        return (squared_error if self.options.loss == "mse" else absolute_error)(outputs, scaled)

    def train_metrics(self, outputs: jax.Array, targets: jax.Array, buffers: Buffers) -> dict[str, jax.Array]:
        """Return the mean absolute error in the values' units."""
        filled, known = split_known(targets)
        return {"mae": known_mean(jnp.abs(self.said(outputs, buffers)["values"] - filled), known)[0]}

    def said(self, outputs: jax.Array, buffers: Buffers) -> dict[str, jax.Array]:
        """Return `values` `(b, k)` in their units."""
        return {"values": outputs * buffers[SCALE]["std"] + buffers[SCALE]["mean"]}

    def plain(self, params: Params, buffers: Buffers) -> Params:
        """Return the parameters of a model whose outputs are the values in their units."""
        return params if self.options.scaling == "none" else in_units(params, **buffers[SCALE])

    def scorer(self) -> ValueScorer:
        """Return what adds up the errors of all records."""
        return ValueScorer(self.names)

    @property
    def output(self) -> Values:
        """The values by name."""
        return Values(self.names, self.options.units)

    def illustrate(
        self, params: Params, buffers: Buffers, batch: HostBatch, records: Sequence[str]
    ) -> Illustration:
        """Return images with the values that are predicted and those that are right."""
        targets, output = batch["value"], self.output
        found = on_host(jax.jit(self.predict)(params, buffers, {"image": raw_images(batch)}))["values"]
        examples = []
        for image, own, values, record in zip(pictures_of(batch, self.model), targets, found, records):
            said, right = (output.text(output.record({"values": x})) for x in (values, own))
            examples.append(Example(f"{said}  (it is {right})", [image], record))
        return Illustration("Predictions", ("image",), examples)


def build(model: Any, options: RegressionOptions, data: DataInfo) -> Regression:
    """Return the objective; see `objectives.registry`."""
    return Regression(model, options, data)
