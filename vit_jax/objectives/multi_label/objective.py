"""Several labels an image: each class is a choice of its own."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.errors import ConfigError
from vit_jax.evaluation.metrics.labels import UNTUNED, LabelScorer
from vit_jax.objectives.images import on_host, pictures_of, raw_images
from vit_jax.objectives.multi_label.losses import asymmetric_loss, binary_cross_entropy, smooth
from vit_jax.objectives.multi_label.options import MultiLabelOptions
from vit_jax.objectives.outputs.labels import Labels
from vit_jax.objectives.protocol import Buffers, DataInfo, Example, HostBatch, Illustration, Params
from vit_jax.objectives.supervised import Supervised


@dataclass(frozen=True)
class MultiLabel(Supervised):
    """Binary cross-entropy or the asymmetric loss of each class.

    Attributes:
      tuned: the thresholds that an evaluation has found, by class or one for all; see `settled`.
    """

    problem = "multi_label"
    target = "labels"

    options: MultiLabelOptions
    tuned: tuple[float, ...] = ()

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.model, self.options, self.data, self.tuned)

    @property
    def monitor(self) -> str:
        """The metric that decides which checkpoint is best."""
        return "mAP"

    @property
    def metric_modes(self) -> Mapping[str, str]:
        """What is better of each metric; thresholds that were tuned are none better than others."""
        best = dict.fromkeys(("mAP", "AP_micro", "f1_macro", "f1_micro", "f1_samples"), "max")
        return {"loss": "min"} | best | dict.fromkeys(self._threshold_names, "")

    def refuses(self, config: Any) -> None:
        """Raise `ConfigError` for numbers that are not one for each class, or balanced ones of unknown counts."""
        for name in ("positive_weights", "thresholds"):
            given, classes = getattr(self.options, name), self.model.num_classes
            if isinstance(given, tuple) and len(given) != classes:
                raise ConfigError(
                    f"objective.{name} has {len(given)} values; give one for each of the {classes} classes."
                )
        if self.options.positive_weights == "balanced" and self.data.label_counts is None:
            raise ConfigError(
                "objective.positive_weights is 'balanced', but the number of training images per class is not "
                "known before all records are read; give one number per class."
            )

    def train_losses(self, outputs: jax.Array, targets: jax.Array, buffers: Buffers) -> jax.Array:
        """Return the loss of each entry with smoothing and the weights of positives."""
        return self._losses(outputs, smooth(targets, self.options.label_smoothing), self._positive_weights())

    def losses(self, outputs: jax.Array, targets: jax.Array, buffers: Buffers) -> jax.Array:
        """Return the loss of each entry."""
        return self._losses(outputs, targets, 1.0)

    def said(self, outputs: jax.Array, buffers: Buffers) -> dict[str, jax.Array]:
        """Return the `probabilities` `(b, c)` of each class; NaN all, where an output of an image is not finite."""
        finite = jnp.isfinite(outputs).all(axis=1, keepdims=True)
        return {"probabilities": jnp.where(finite, jax.nn.sigmoid(outputs), jnp.nan)}

    def scorer(self) -> LabelScorer:
        """Return what scores the probabilities of all records together, at thresholds that were tuned before if any."""
        return LabelScorer(self.tuned or self.options.thresholds, self._threshold_names)

    @property
    def output(self) -> Labels:
        """The classes from their thresholds on; those to be tuned are known once an evaluation has done that."""
        given = self.tuned if isinstance(self.options.thresholds, str) else self.options.thresholds
        if not isinstance(given, tuple):
            given = (given,)
        return Labels(self.names, given * len(self.names) if len(given) == 1 else given)

    def settled(self, metrics: Mapping[str, float]) -> "MultiLabel":
        """Return the objective with the thresholds that the evaluation of a checkpoint has tuned, if it has."""
        found = tuple(metrics[name] for name in self._threshold_names if name in metrics)
        return dataclasses.replace(self, tuned=found)

    def illustrate(
        self, params: Params, buffers: Buffers, batch: HostBatch, records: Sequence[str]
    ) -> Illustration:
        """Return images with the classes that are predicted, and those that are missing or too many."""
        labels = batch["labels"]
        seen = {"image": raw_images(batch)}
        chances = on_host(jax.jit(self.predict)(params, buffers, seen))["probabilities"]
        unknown = not self.output.thresholds
        output = dataclasses.replace(self, tuned=(UNTUNED,)).output if unknown else self.output
        examples = []
        for image, own, chance, record in zip(pictures_of(batch, self.model), labels, chances, records):
            caption, right = output.compared({"probabilities": chance, "labels": own})
            examples.append(Example(caption, [image], record, right))
        title = f"Predictions of {UNTUNED:.0%} or more" if unknown else "Predictions"
        return Illustration(title, ("image",), examples)

    @property
    def _threshold_names(self) -> tuple[str, ...]:
        if self.options.thresholds == "tuned":
            return ("threshold",)
        if self.options.thresholds == "tuned_per_class":
            return tuple(f"threshold/{name}" for name in self.names)
        return ()

    def _losses(self, outputs: jax.Array, targets: jax.Array, weights: Any) -> jax.Array:
        if self.options.loss == "bce":
            return binary_cross_entropy(outputs, targets, weights)
        return asymmetric_loss(
            outputs,
            targets,
            gamma_negative=self.options.gamma_negative,
            gamma_positive=self.options.gamma_positive,
            clip=self.options.clip,
            positive_weights=weights,
        )

    def _positive_weights(self) -> Any:
        given = self.options.positive_weights
        if given == "none" or (
            given == "balanced" and self.data.label_counts is None
        ):  # not trained, see `refuses`
            return 1.0
        if isinstance(given, tuple):
            return np.asarray(given, np.float32)
        positives, negatives = np.asarray(self.data.label_counts, np.float32).T
        # Of a class that no image has there is no positive part to weigh.
        return np.where(positives > 0, negatives / np.maximum(positives, 1), 1).astype(np.float32)


def build(model: Any, options: MultiLabelOptions, data: DataInfo) -> MultiLabel:
    """Return the objective; see `objectives.registry`."""
    return MultiLabel(model, options, data)
