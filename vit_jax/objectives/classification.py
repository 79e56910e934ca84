"""Supervised classification of images."""

from dataclasses import dataclass, field

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.errors import ConfigError
from vit_jax.models.flops import training_flops
from vit_jax.models.functional import ModelFunctions
from vit_jax.models.registry import model_functions
from vit_jax.models.vit_config import ViTConfig
from vit_jax.objectives.base import Batch, Buffers, DataInfo, Illustration, LossOutput, Params, Sums
from vit_jax.objectives.erasing import erase
from vit_jax.objectives.images import normalise, on_host
from vit_jax.objectives.losses import (
    sigmoid_cross_entropy,
    smooth_one_hot,
    softmax_cross_entropy,
    thresholded_bce,
)
from vit_jax.objectives.mixing import mix, partners
from vit_jax.objectives.options import ClassificationOptions
from vit_jax.objectives.pictures import attention_overlay
from vit_jax.random import fold


@dataclass(frozen=True)
class Classification:
    """Cross-entropy of one label per image, with mixing, smoothing and class weights.

    Attributes:
      model: the classifier's configuration.
      options: the loss and its settings.
      data: names of the classes, for captions, and their counts, for balanced class weights.
    """

    model: ViTConfig
    options: ClassificationOptions
    data: DataInfo
    monitor: str = "accuracy"
    monitor_mode: str = "max"
    functions: ModelFunctions = field(init=False, compare=False)
    class_weights: np.ndarray | None = field(init=False, compare=False)

    def __post_init__(self) -> None:
        if not self.model.num_classes or self.model.pool == "none":
            raise ConfigError(
                f"classification needs a head: num_classes is {self.model.num_classes} and pool is "
                f"{self.model.pool!r}; set model.num_classes and a pool of cls, mean or map."
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
                f"objective.label_smoothing is {options.label_smoothing}, which lifts all classes above "
                f"bce_threshold {options.bce_threshold}; set label_smoothing=0 or bce_threshold=None."
            )
        object.__setattr__(self, "functions", model_functions(self.model))
        object.__setattr__(self, "class_weights", _class_weights(self))

    @property
    def network(self) -> ViTConfig:
        """The configuration of all parameters."""
        return self.model

    @property
    def train_flops(self) -> float:
        """Floating-point operations of forward and backward for one image."""
        return training_flops(self.model)

    def init(self, key: jax.Array) -> tuple[Params, Buffers]:
        """Return fresh parameters, and no buffers."""
        return self.functions.init(key), {}

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Normalise images, erase boxes of them, make soft targets and mix, over the whole batch."""
        options, raw = self.options, batch["image"]
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

    def loss(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        """Return the weighted mean loss; metrics are the loss and the accuracy on the (mixed) images."""
        logits = self.functions.apply(params, batch["image"], key)
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

    def after_update(self, params: Params, buffers: Buffers, step: jax.Array) -> Buffers:
        """Return the buffers unchanged."""
        return buffers

    def evaluate(self, params: Params, buffers: Buffers, batch: Batch) -> Sums:
        """Return sums of loss, top-1 and top-5 hits over the rows that count."""
        logits = self.predict(params, batch)
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

    def predict(self, params: Params, batch: Batch) -> jax.Array:
        """Return logits `(b, classes)` of raw images."""
        return self.functions.apply(params, normalise(batch["image"], self.model.preprocessing))

    def activations(self, params: Params, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
        """Return what the model computes for a prepared batch, by name and in order; `blocks` are `(l, b, n, d)`."""
        names = ("embedded", "blocks", "encoded", "pooled", "pre_logits")
        logits, captured = self.functions.apply(params, batch["image"], key, capture=names)
        return {name: captured[name] for name in names} | {"logits": logits}

    def illustrate(self, params: Params, buffers: Buffers, batch: Batch, rows: int) -> Illustration:
        """Return images with their predictions and where the last block looks; wrong predictions come first."""

        @jax.jit
        def look(params: Params, images: jax.Array) -> jax.Array:
            inputs = normalise(images, self.model.preprocessing)
            return self.functions.apply(params, inputs, capture=("attention/-1",))[1]["attention/-1"]

        chances = on_host(jax.jit(lambda *given: jax.nn.softmax(self.predict(*given)))(params, batch))
        images, labels, mask = on_host((batch["image"], batch["label"], batch["mask"]))
        best = chances.argmax(axis=1)
        order = np.argsort(best == labels, kind="stable")
        # Attention of these few alone: of a whole batch it would fill the memory.
        shown = order[mask[order]][:rows]
        pictures = []
        for index, weights in zip(shown, on_host(look(params, images[shown]))):
            right = best[index] == labels[index]
            verdict = "right" if right else f"WRONG, it is {self._name(int(labels[index]))}"
            caption = f"{self._name(int(best[index]))}  {chances[index, best[index]]:.1%}  {verdict}"
            pictures.append((caption, [images[index], attention_overlay(images[index], weights, self.model)]))
        return Illustration("Predictions on test images", ("image", "attention, last block"), pictures)

    def _name(self, label: int) -> str:
        return self.data.class_names[label] if label < len(self.data.class_names) else str(label)

    def _losses(self, logits: jax.Array, targets: jax.Array) -> jax.Array:
        if self.options.loss == "softmax":
            return softmax_cross_entropy(logits, targets)
        if self.options.loss == "sigmoid":
            return sigmoid_cross_entropy(logits, targets)
        return thresholded_bce(logits, targets, self.options.bce_threshold)


def build(model: ViTConfig, options: ClassificationOptions, data: DataInfo) -> Classification:
    """Return the objective; see `objectives.registry`."""
    return Classification(model, options, data)


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
            "objective.class_weights is 'balanced', but the examples of each class are not known (or some class "
            "has none); give one weight per class."
        )
    return counts.sum() / (classes * counts)
