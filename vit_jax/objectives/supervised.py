"""What objectives have in common whose model has one output for each of several targets of an image."""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.errors import ConfigError
from vit_jax.models.families import family_of
from vit_jax.models.functional import ModelFunctions
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.registry import model_functions
from vit_jax.objectives.base import Objective
from vit_jax.objectives.images import image_fields, inputs
from vit_jax.objectives.known import known_mean, split_known
from vit_jax.objectives.protocol import Batch, Buffers, DataInfo, Field, LossOutput, Params, Rows, Sums


@dataclass(frozen=True)
class Supervised(Objective):
    """A loss of each output against its target, where that is known.

    Subclasses say what `problem` the outputs solve, in which field of a record the targets are, the loss of each entry,
    and what outputs mean; and the names of buffers that are their `own` and not the model's.

    Attributes:
      model: the configuration of the model, whose head has an output for each target.
      options: the loss and its settings.
      data: what the targets are called, and what is known of them.
    """

    problem: ClassVar[str]
    target: ClassVar[str]
    own: ClassVar[tuple[str, ...]] = ()

    model: Any
    options: Any
    data: DataInfo
    functions: ModelFunctions = field(init=False, compare=False)

    def __post_init__(self) -> None:
        name, outputs = self.target, self.model.num_classes
        if not outputs or not family_of(self.model).per_image(self.model):
            pool = f" and pool is {self.model.pool!r}" if hasattr(self.model, "pool") else ""
            raise ConfigError(
                f"learning {name} needs a head: num_classes is {outputs}{pool}; set model.num_classes and a pool "
                "that gives one vector per image, such as cls, mean or map."
            )
        if self.data.num_classes != outputs:
            raise ConfigError(
                f"model.num_classes is {outputs}, but the data has {self.data.num_classes} {name}; set "
                f"model.num_classes={self.data.num_classes} or leave it out."
            )
        object.__setattr__(self, "model", replace(self.model, problem=self.problem))
        object.__setattr__(self, "functions", model_functions(self.model))

    def __reduce__(self) -> tuple[object, ...]:
        # Made anew elsewhere: the functions of a model cannot be pickled.
        return type(self), (self.model, self.options, self.data)

    @property
    def any_shape(self) -> bool:
        """Images may keep their shape."""
        return True

    @property
    def names(self) -> tuple[str, ...]:
        """What each output is called, or its number where it has no name."""
        return self.data.class_names or tuple(map(str, range(self.model.num_classes)))

    @property
    def fields(self) -> Mapping[str, Field]:
        """An image of the model's size, and a target for each output."""
        return {
            **image_fields(self.model),
            self.target: Field((self.model.num_classes,), "float32"),
        }

    def init(self, key: jax.Array) -> tuple[Params, Buffers]:
        """Return fresh parameters, and the model's buffers."""
        return self.functions.init_state(key)

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Return normalised images, and targets."""
        return {
            "image": inputs(batch, self.model),
            self.target: batch[self.target],
        }

    def loss(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        """Return the mean loss over the entries that are known."""
        outputs, changed = self.functions.apply_state(params, self._of_model(buffers), batch["image"], key)
        targets, known = split_known(batch[self.target])
        loss, weight = known_mean(self.train_losses(outputs, targets, buffers), known)
        more = self.train_metrics(outputs, batch[self.target], buffers)
        return loss, LossOutput({"loss": loss} | more, changed, weight)

    def train_losses(self, outputs: jax.Array, targets: jax.Array, buffers: Buffers) -> jax.Array:
        """Return the loss of each entry that training is for, `(b, c)`; by default that of evaluation."""
        return self.losses(outputs, targets, buffers)

    def train_metrics(self, outputs: jax.Array, targets: jax.Array, buffers: Buffers) -> dict[str, jax.Array]:
        """Return further means over the known entries of a batch; targets that are not known are NaN."""
        return {}

    @abstractmethod
    def losses(self, outputs: jax.Array, targets: jax.Array, buffers: Buffers) -> jax.Array:
        """Return the loss of each entry, `(b, c)`, of outputs and targets without NaN."""

    @abstractmethod
    def said(self, outputs: jax.Array, buffers: Buffers) -> dict[str, jax.Array]:
        """Return what outputs `(b, c)` mean, as `predict` does."""

    def outputs(self, params: Params, buffers: Buffers, batch: Batch) -> jax.Array:
        """Return the model's outputs `(b, c)` of raw images."""
        images = inputs(batch, self.model)
        return self.functions.apply_state(params, self._of_model(buffers), images)[0]

    def predict(self, params: Params, buffers: Buffers, batch: Batch) -> dict[str, jax.Array]:
        """Return what the model says of raw images."""
        return self.said(self.outputs(params, buffers, batch), buffers)

    def evaluate(self, params: Params, buffers: Buffers, batch: Batch) -> Sums:
        """Return the sum of the losses over the known entries of the rows that count."""
        return self._sums(self.outputs(params, buffers, batch), buffers, batch)

    def evaluate_rows(self, params: Params, buffers: Buffers, batch: Batch) -> tuple[Sums, Rows]:
        """Return the sums of `evaluate`, and of each row what the model says and its targets."""
        outputs = self.outputs(params, buffers, batch)
        rows = self.said(outputs, buffers) | {self.target: batch[self.target]}
        return self._sums(outputs, buffers, batch), rows

    def summarise(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return the mean loss over the known entries; NaN if there are none."""
        known = float(sums["known"])
        return {"loss": float(sums["loss"]) / known if known else float("nan")}

    def activations(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> dict[str, jax.Array]:
        """Return what the model computes for a prepared batch, by name and in order; `blocks` are `(l, b, n, d)`."""
        names = family_of(self.model).names_traced(self.model)
        inputs = params, self._of_model(buffers), batch["image"], key
        call = self.functions.apply_state(*inputs, capture=names)[0]
        outputs, captured = call if names else (call, {})
        return {name: captured[name] for name in names} | {"logits": outputs}

    def _of_model(self, buffers: Buffers) -> Buffers:
        return {name: value for name, value in buffers.items() if name not in self.own}

    def _sums(self, outputs: jax.Array, buffers: Buffers, batch: Batch) -> Sums:
        targets, known = split_known(batch[self.target])
        known &= batch["mask"][:, None]
        losses = self.losses(outputs, targets, buffers)
        return {
            "loss": jnp.where(known, losses, 0.0).sum(),
            "known": known.sum().astype(jnp.float32),
            "count": batch["mask"].sum().astype(jnp.float32),
        }
