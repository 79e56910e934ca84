"""Supervised classification of images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.errors import ConfigError
from vit_jax.models.families import family_of
from vit_jax.models.functional import ModelFunctions
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.patches import Patches
from vit_jax.models.problem import LOSSES
from vit_jax.models.registry import model_functions
from vit_jax.objectives.base import Objective
from vit_jax.objectives.classification.erasing import erase
from vit_jax.objectives.classification.mixing import mix, partners
from vit_jax.objectives.classification.options import ClassificationOptions
from vit_jax.objectives.images import image_fields, inputs, normalise, on_host, pictures_of, raw_images
from vit_jax.objectives.losses import (
    sigmoid_cross_entropy,
    smooth_one_hot,
    softmax_cross_entropy,
    thresholded_bce,
)
from vit_jax.objectives.outputs.base import Output
from vit_jax.objectives.outputs.classes import TOP, Classes
from vit_jax.objectives.pictures import attention_overlay
from vit_jax.objectives.protocol import (
    Batch,
    Buffers,
    DataInfo,
    Example,
    Field,
    HostBatch,
    Illustration,
    LossOutput,
    Params,
    Rows,
    Sums,
)
from vit_jax.random import fold

AT_ONCE = 16  # examples whose attention is computed at once: of many it would fill the memory


@dataclass(frozen=True)
class Classification(Objective):
    """Cross-entropy of one label per image, with mixing, smoothing and class weights.

    Attributes:
      model: the classifier's configuration; its `problem` is what the loss teaches.
      options: the loss and its settings.
      data: names of the classes, for captions, and their counts, for balanced class weights.
    """

    model: Any
    options: ClassificationOptions
    data: DataInfo
    functions: ModelFunctions = field(init=False, compare=False)
    class_weights: np.ndarray | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if not self.data.num_classes:
            raise ConfigError(
                f"classification needs a head: num_classes is {self.model.num_classes}, and the data has no classes; "
                "choose data with labels, or an objective that needs none, such as mae."
            )
        if not self.model.num_classes or not family_of(self.model).per_image(self.model):
            pool = f" and pool is {self.model.pool!r}" if hasattr(self.model, "pool") else ""
            raise ConfigError(
                f"classification needs a head: num_classes is {self.model.num_classes}{pool}; set model.num_classes "
                "and a pool that gives one vector per image, such as cls, mean or map."
            )
        if self.data.num_classes != self.model.num_classes:
            raise ConfigError(
                f"model.num_classes is {self.model.num_classes} and the data has {self.data.num_classes} classes; "
                f"set model.num_classes={self.data.num_classes} or leave it out."
            )
        options = self.options
        spread = options.label_smoothing / self.model.num_classes
        if options.loss == "bce" and options.bce_threshold is not None and spread > options.bce_threshold:
            raise ConfigError(
                f"objective.label_smoothing is {options.label_smoothing}, which raises all classes above "
                f"bce_threshold {options.bce_threshold}; set label_smoothing=0 or bce_threshold=None."
            )
        if family_of(self.model).budget(self.model) is not None:
            _check_alone(options)
        object.__setattr__(self, "model", replace(self.model, problem=LOSSES[options.loss]))
        object.__setattr__(self, "functions", model_functions(self.model))
        object.__setattr__(self, "class_weights", _class_weights(self))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, or their numbers where there are none."""
        return self.data.class_names or tuple(map(str, range(self.model.num_classes)))

    @property
    def any_shape(self) -> bool:
        """Images may keep their shape."""
        return True

    @property
    def monitor(self) -> str:
        """The metric that decides which checkpoint is best."""
        return "accuracy"

    @property
    def metric_modes(self) -> Mapping[str, str]:
        """What is better of each metric."""
        return {"loss": "min", "accuracy": "max", "top5_accuracy": "max"}

    @property
    def fields(self) -> Mapping[str, Field]:
        """An image of the model's size, and its label."""
        return {
            **image_fields(self.model),
            "label": Field((), "int32"),
        }

    def init(self, key: jax.Array) -> tuple[Params, Buffers]:
        """Return fresh parameters, and the model's buffers."""
        return self.functions.init_state(key)

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Normalise images, erase boxes of them, make soft targets and mix, over the whole batch."""
        options, raw = self.options, batch["image"]
        if isinstance(raw_images(batch), Patches):
            targets = smooth_one_hot(batch["label"], self.model.num_classes, options.label_smoothing)
            return {"image": inputs(batch, self.model), "target": targets}
        # Bytes, not numbers, are moved between devices, unless an image has to be erased before another sees it.
        others = None
        if not options.erase_probability:
            others = normalise(partners(raw, options.mix_partner), self.model.preprocessing)
        images = erase(
            normalise(raw, self.model.preprocessing),
            fold(key, "erase"),
            probability=options.erase_probability,
            mode=options.erase_mode,
            area=options.erase_area,
            aspect=options.erase_aspect,
            count=options.erase_count,
        )
        targets = smooth_one_hot(batch["label"], self.model.num_classes, options.label_smoothing)
        images, targets = mix(
            images,
            targets,
            fold(key, "mix"),
            mixup_alpha=options.mixup,
            cutmix_alpha=options.cutmix,
            cutmix_minmax=options.cutmix_minmax,
            probability=options.mix_probability,
            cutmix_probability=options.cutmix_probability,
            mode=options.mix_mode,
            partner=options.mix_partner,
            dominant=options.mix_dominant,
            corrected=options.cutmix_corrected,
            others=others,
        )
        return {"image": images, "target": targets}

    def __reduce__(self) -> tuple[object, ...]:
        # Made anew elsewhere: the functions of a model cannot be pickled.
        return build, (self.model, self.options, self.data)

    def loss(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        """Return the weighted mean loss; metrics are the loss and the accuracy on the (mixed) images."""
        logits, buffers = self.functions.apply_state(params, buffers, batch["image"], key)
        losses = self._losses(logits, batch["target"])
        weights = jnp.ones_like(losses)
        if self.class_weights is not None:
            # A mixed target weighs as the mixture of its classes.
            weights = batch["target"] @ jnp.asarray(self.class_weights)
        # Where all rows of a microbatch have weight 0 it says nothing; 0 / 0 would spoil the whole batch.
        total = jnp.maximum(weights.sum(), 1e-12)
        loss = (losses * weights).sum() / total
        # Of a mixed image, the class with the larger share.
        correct = jnp.argmax(logits, axis=-1) == jnp.argmax(batch["target"], axis=-1)
        metrics = {"loss": loss, "accuracy": jnp.mean(correct.astype(jnp.float32))}
        return loss, LossOutput(metrics, buffers, total)

    def evaluate(self, params: Params, buffers: Buffers, batch: Batch) -> Sums:
        """Return sums of loss, top-1 and top-5 hits over the rows that count."""
        return self._sums(self.logits(params, buffers, batch), batch)

    def evaluate_rows(self, params: Params, buffers: Buffers, batch: Batch) -> tuple[Sums, Rows]:
        """Return the sums of `evaluate`, and of each row the five most probable classes with their probabilities."""
        logits = self.logits(params, buffers, batch)
        # Of equal logits the first class is taken, as in the sums.
        classes = jax.lax.top_k(logits, min(TOP, self.model.num_classes))[1]
        chances = jnp.take_along_axis(self.probabilities(logits), classes, axis=1)
        finite = jnp.isfinite(logits).all(axis=1, keepdims=True)
        rows = {
            "classes": jnp.where(finite, classes.astype(jnp.int32), -1),
            "probabilities": jnp.where(finite, chances, jnp.nan),
        }
        return self._sums(logits, batch), rows

    def _sums(self, logits: jax.Array, batch: Batch) -> Sums:
        targets = jax.nn.one_hot(batch["label"], self.model.num_classes, dtype=jnp.float32)
        label = batch["label"][:, None]
        own = jnp.take_along_axis(logits, label, axis=1)
        # Of equal logits the first class wins, as in argmax: a head of zeros knows nothing.
        ahead = (logits > own) | ((logits == own) & (jnp.arange(self.model.num_classes) < label))
        rank = jnp.sum(ahead, axis=1)
        # Not-a-number compares false and would rank first: such a row is simply wrong.
        rank = jnp.where(jnp.isfinite(logits).all(axis=1), rank, self.model.num_classes)
        rows = {"loss": self._losses(logits, targets), "accuracy": (rank < 1).astype(jnp.float32)}
        if self.model.num_classes > 5:
            rows["top5_accuracy"] = (rank < 5).astype(jnp.float32)
        mask = batch["mask"]
        sums = {name: jnp.sum(jnp.where(mask, values, 0.0)) for name, values in rows.items()}
        return sums | {"count": jnp.sum(mask.astype(jnp.float32))}

    def logits(self, params: Params, buffers: Buffers, batch: Batch) -> jax.Array:
        """Return logits `(b, classes)` of raw images."""
        images = inputs(batch, self.model)
        return self.functions.apply_state(params, buffers, images)[0]

    @property
    def output(self) -> Output:
        """Classes."""
        return Classes(self.class_names)

    def predict(self, params: Params, buffers: Buffers, batch: Batch) -> dict[str, jax.Array]:
        """Return the `probabilities` `(b, classes)` of raw images, not-a-number where a logit is not finite."""
        logits = self.logits(params, buffers, batch)
        finite = jnp.isfinite(logits).all(axis=1, keepdims=True)
        return {"probabilities": jnp.where(finite, self.probabilities(logits), jnp.nan)}

    def probabilities(self, logits: jax.Array) -> jax.Array:
        """Return what logits `(b, classes)` mean: of all classes together, or of each on its own."""
        together = self.model.problem == "single_label"
        return jax.nn.softmax(logits) if together else jax.nn.sigmoid(logits)

    def activations(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> dict[str, jax.Array]:
        """Return what the model computes for a prepared batch, by name and in order; `blocks` are `(l, b, n, d)`."""
        names = family_of(self.model).names_traced(self.model)
        call = self.functions.apply_state(params, buffers, batch["image"], key, capture=names)[0]
        logits, captured = call if names else (call, {})
        return {name: captured[name] for name in names} | {"logits": logits}

    def illustrate(
        self, params: Params, buffers: Buffers, batch: HostBatch, records: Sequence[str]
    ) -> Illustration:
        """Return images with their predictions and, of a model with attention, where the last block looks."""
        explanation = family_of(self.model).explain(self.model)
        wanted = () if explanation is None else (explanation.capture,)

        @jax.jit
        def look(params: Params, buffers: Buffers, images: Any) -> tuple[jax.Array, Any]:
            seen = inputs({"image": images}, self.model)
            call = self.functions.apply_state(params, buffers, seen, capture=wanted)[0]
            logits, captured = call if wanted else (call, {})
            return self.probabilities(logits), captured

        images, labels, examples = pictures_of(batch, self.model), batch["label"], []
        grids = [(int(r), int(c)) for r, c in batch["grid"]] if "grid" in batch else [None] * len(images)
        for start in range(0, len(images), AT_ONCE):
            rows = slice(start, start + AT_ONCE)
            some = jax.tree.map(itemgetter(rows), raw_images(batch))
            chances, captured = on_host(look(params, buffers, some))
            for row, image in enumerate(images[rows]):
                best, label = int(chances[row].argmax()), labels[rows][row]
                verdict = "right" if best == label else f"WRONG, it is {self.class_names[int(label)]}"
                caption = f"{self.class_names[best]}  {chances[row][best]:.1%}  {verdict}"
                shown = [image]
                if explanation is not None:
                    weights, grid = captured[explanation.capture][row], grids[rows][row]
                    shown.append(attention_overlay(image, weights, explanation, grid))
                examples.append(Example(caption, shown, records[len(examples)], bool(best == label)))
        columns = ("image", "attention, last block")[: 1 if explanation is None else 2]
        return Illustration("Predictions", columns, examples)

    def _losses(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        if self.options.loss == "softmax":
            return softmax_cross_entropy(logits, targets)
        if self.options.loss == "sigmoid":
            return sigmoid_cross_entropy(logits, targets)
        return thresholded_bce(logits, targets, self.options.bce_threshold)


def build(model: Any, options: ClassificationOptions, data: DataInfo) -> Classification:
    """Return the objective; see `objectives.registry`."""
    return Classification(model, options, data)


def _check_alone(options: ClassificationOptions) -> None:
    """Raise ConfigError where several images become one, or boxes of them are erased: they need images of one shape."""
    on = ("mixup", "cutmix", "cutmix_minmax", "erase_probability")
    for name in on:
        if value := getattr(options, name):
            off = "None" if name == "cutmix_minmax" else "0"
            raise ConfigError(
                f"objective.{name} is {value}, which needs images of one shape, but model.max_patches lets them keep "
                f"their own; set objective.{name}={off}, or max_patches to 0."
            )


def _class_weights(objective: Classification) -> np.ndarray | None:
    chosen, classes = objective.options.class_weights, objective.model.num_classes
    if isinstance(chosen, tuple):
        if len(chosen) != classes:
            raise ConfigError(
                f"objective.class_weights has {len(chosen)} values; give one for each of the {classes} classes."
            )
        return np.asarray(chosen, np.float32)
    if chosen == "none":
        return None
    counts = np.asarray(objective.data.class_counts or (), np.float32)
    if len(counts) != classes or counts.min() < 1:
        raise ConfigError(
            "objective.class_weights is 'balanced', but the number of examples per class is not known (or some "
            "class has none); give one weight per class."
        )
    return counts.sum() / (classes * counts)
