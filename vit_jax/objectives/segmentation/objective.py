"""Semantic segmentation: a class for each pixel, by a head on any backbone."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.data.images.overlays import overlaid
from vit_jax.errors import ConfigError
from vit_jax.evaluation.metrics.segmentation import counts, summary
from vit_jax.models.families import family_of
from vit_jax.models.flops import training_flops
from vit_jax.models.functional import ModelFunctions
from vit_jax.models.heads.parts import resized
from vit_jax.models.registry import model_functions
from vit_jax.objectives.base import Objective
from vit_jax.objectives.images import normalise, on_host, pictures_of
from vit_jax.objectives.outputs.segmentation import Segmentation
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
from vit_jax.objectives.segmentation.confusion import confusion
from vit_jax.objectives.segmentation.losses import pixel_cross_entropy, pixel_losses
from vit_jax.objectives.segmentation.options import SegmentationOptions
from vit_jax.objectives.segmentation.sliding import sliding_logits


@dataclass(frozen=True)
class SemanticSegmentation(Objective):
    """Cross-entropy of the pixels whose class is known; parameters are `encoder` and those of the head.

    Attributes:
      model: the configuration of the backbone.
      options: the head, the loss, and how images are evaluated.
      data: the classes.
    """

    model: Any
    options: SegmentationOptions
    data: DataInfo
    functions: ModelFunctions = field(init=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        given, classes = len(self.options.class_weights), self.data.num_classes
        if given and given != classes:
            raise ConfigError(
                f"objective.class_weights are {given} numbers for {classes} classes; give one per class."
            )
        unknown = [number for number in self.options.pasted if not 0 <= number < classes]
        if unknown:
            raise ConfigError(
                f"objective.pasted has {unknown[0]}, but the classes are 0 to {classes - 1} "
                f"({', '.join(self.data.class_names[:3])}{', ...' if classes > 3 else ''})."
            )
        for name, sides, allowed in (
            ("eval_size", self.eval_size, lambda side, crop: side >= crop),
            ("stride", self.stride, lambda side, crop: side <= crop),
        ):
            if self.slides and not all(map(allowed, sides, self.model.image_size)):
                bound = "at least" if name == "eval_size" else "at most"
                raise ConfigError(
                    f"objective.{name} is {sides}; for windows of the model's size it must be {bound} "
                    f"{tuple(self.model.image_size)}."
                )
        object.__setattr__(self, "functions", model_functions(self.network))

    def __reduce__(self) -> tuple[object, ...]:
        # Made anew elsewhere: the functions of a model cannot be pickled.
        return type(self), (self.model, self.options, self.data)

    # ---- what it needs, and what it is made of

    @property
    def fields(self) -> Mapping[str, Field]:
        """An image of the model's size, and the class of each pixel."""
        return _fields(self.model.image_size, self.model.in_channels)

    @property
    def eval_fields(self) -> Mapping[str, Field]:
        """The same of the size of evaluation."""
        return _fields(self.eval_size, self.model.in_channels)

    @property
    def network(self) -> Any:
        """The configuration of all parameters: the backbone and its head."""
        return self.options.head_options.network(self.model, self.data.num_classes)

    @property
    def encoder(self) -> str:
        """Where the backbone's parameters are."""
        return "encoder"

    @property
    def class_names(self) -> tuple[str, ...]:
        """None: what is predicted are maps of classes."""
        return ()

    @property
    def slides(self) -> bool:
        """Whether windows slide over images in evaluation."""
        return self.options.evaluation == "slide"

    @property
    def eval_size(self) -> tuple[int, ...]:
        """Height and width of images in evaluation."""
        return self.options.eval_size or tuple(self.model.image_size)

    @property
    def stride(self) -> tuple[int, ...]:
        """From one window to the next."""
        return self.options.stride or tuple(max(1, 2 * side // 3) for side in self.model.image_size)

    @property
    def train_flops(self) -> float:
        """Floating-point operations of forward and backward for one image."""
        return training_flops(self.network)

    def refuses(self, config: Any) -> None:
        """Raise `ConfigError` for accumulation with batch norm, whose statistics are those of the whole batch."""
        if config.accumulation > 1 and self.options.head_options.norm == "batch":
            raise ConfigError(
                f"accumulation is {config.accumulation}, but batch norm needs the whole batch at once; set "
                "objective.norm='layer' or accumulation=1."
            )
        if self.options.copy_paste and config.data.batch_size < 2:
            raise ConfigError(
                f"objective.copy_paste is {self.options.copy_paste}, but data.batch_size is "
                f"{config.data.batch_size}, and there is no other image to take pixels of; set it to 2 or more."
            )

    # ---- training

    def init(self, key: jax.Array) -> tuple[Params, Buffers]:
        """Return fresh parameters, and the statistics of batch norms."""
        return self.functions.init_state(key)

    def prepare(self, batch: Batch, key: jax.Array) -> Batch:
        """Return normalised images and classes, with pixels of others where `copy_paste` says so."""
        images, labels = normalise(batch["image"], self.model.preprocessing), batch["segmentation"]
        if self.options.copy_paste:
            chosen = jax.random.bernoulli(key, self.options.copy_paste, (len(labels), 1, 1))
            others = jnp.roll(labels, 1, axis=0)
            classes = np.asarray(self.options.pasted, others.dtype)
            pasted = chosen & (others[..., None] == classes).any(axis=-1)
            images = jnp.where(pasted[..., None], jnp.roll(images, 1, axis=0), images)
            labels = jnp.where(pasted, others, labels)
        return {"image": images, "segmentation": labels}

    def loss(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> tuple[jax.Array, LossOutput]:
        """Return the mean loss over known pixels, with those of further heads where there are any."""
        labels = batch["segmentation"]
        chosen = labels, self.options.class_weights, self.options.calibrated
        (logits, auxiliary), buffers = self.functions.apply_state(
            params, buffers, batch["image"], key, method="with_auxiliary"
        )
        loss, weight = pixel_cross_entropy(resized(logits, labels.shape[1:]), *chosen)
        metrics = {"loss": loss}
        for factor, more in zip(self.options.head_options.weights, auxiliary, strict=True):
            second, _ = pixel_cross_entropy(resized(more, labels.shape[1:]), *chosen)
            metrics["auxiliary_loss"] = metrics.get("auxiliary_loss", 0.0) + factor * second
            loss = loss + factor * second
        return loss, LossOutput(metrics, buffers, weight)

    # ---- evaluation

    @property
    def monitor(self) -> str:
        """The metric that decides which checkpoint is best."""
        return "miou"

    @property
    def metric_modes(self) -> Mapping[str, str]:
        """What is better of each metric."""
        return {"miou": "max", "pixel_accuracy": "max", "mean_accuracy": "max", "loss": "min"}

    def evaluate(self, params: Params, buffers: Buffers, batch: Batch) -> Sums:
        """Return the confusion of all pixels, the sum of their losses, and the number of images."""
        return self.evaluate_rows(params, buffers, batch)[0]

    def summarise(self, sums: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return mIoU and the like of the pixels of the whole set."""
        matrix = counts(sums["confusion"])
        return {**summary(matrix), "loss": float(sums["loss"]) / max(int(matrix.sum()), 1)}

    def evaluate_rows(self, params: Params, buffers: Buffers, batch: Batch) -> tuple[Sums, Rows]:
        """Return what `evaluate` does, and how many pixels of each image and class are labelled, predicted, both."""
        classes = self.data.num_classes
        labels = jnp.where(batch["mask"][:, None, None], batch["segmentation"], -1)
        logits = resized(self._logits(params, buffers, batch["image"]), labels.shape[1:])
        predicted = logits.argmax(axis=-1).astype(jnp.int32)
        known = labels >= 0
        sums = {
            "confusion": confusion(labels, predicted, classes),
            "loss": jnp.sum(jnp.where(known, pixel_losses(logits, labels), 0)),
            "count": batch["mask"].sum(),
        }
        count = jax.vmap(partial(_counted, classes=classes))
        rows = {
            "labelled": count(labels, known),
            "predicted": count(predicted, known),
            "hits": count(labels, known & (labels == predicted)),
        }
        return sums, rows

    # ---- predictions

    @property
    def output(self) -> Segmentation:
        """Label maps in an image's own size."""
        names = self.data.class_names or tuple(map(str, range(self.data.num_classes)))
        height, width = self.eval_size
        return Segmentation(names, (height, width))

    def predict(self, params: Params, buffers: Buffers, batch: Batch) -> dict[str, jax.Array]:
        """Return `logits` float32 `(b, rows, columns, c)` over what the model sees of raw images."""
        return {"logits": self._logits(params, buffers, batch["image"])}

    def illustrate(
        self, params: Params, buffers: Buffers, batch: HostBatch, records: Sequence[str]
    ) -> Illustration:
        """Return images, their classes, and those that are predicted."""
        logits = on_host(jax.jit(self._logits)(params, buffers, batch["image"]))
        examples = []
        for image, labels, values, record in zip(
            pictures_of(batch, self.model), batch["segmentation"], logits, records
        ):
            predicted = self.output.label_map({"logits": values}, image.shape[:2], None)
            known = labels >= 0
            right = (predicted == labels)[known].mean() if known.any() else 0.0
            pictures = [image, overlaid(image, labels), overlaid(image, predicted)]
            examples.append(Example(f"{right:.1%} of the pixels", pictures, record))
        return Illustration("Segmentation", ("image", "truth", "prediction"), examples)

    def activations(
        self, params: Params, buffers: Buffers, batch: Batch, key: jax.Array
    ) -> dict[str, jax.Array]:
        """Return the logits: where they are not finite, the model made them so."""
        return {"logits": self.functions.apply_state(params, buffers, batch["image"], key)[0]}

    def _logits(self, params: Params, buffers: Buffers, images: jax.Array) -> jax.Array:
        """Return logits of raw images: of whole ones as the head gives them, of windows for each pixel."""
        images = normalise(images, self.model.preprocessing)
        run: Callable[[jax.Array], jax.Array] = lambda x: self.functions.apply_state(params, buffers, x)[0]  # noqa: E731
        if not self.slides:
            return run(images)
        crop, stride = tuple(self.model.image_size), self.stride
        return sliding_logits(
            lambda x: resized(run(x), crop), images, (crop[0], crop[1]), (stride[0], stride[1])
        )


def _fields(size: Sequence[int], channels: int) -> dict[str, Field]:
    return {"image": Field((*size, channels)), "segmentation": Field(tuple(size))}


def _counted(classes_of: jax.Array, chosen: jax.Array, classes: int) -> jax.Array:
    """Return how many of the chosen pixels have each class, int32 `(c,)`."""
    zeros = jnp.zeros(classes, jnp.int32)
    return zeros.at[jnp.maximum(classes_of, 0).reshape(-1)].add(chosen.reshape(-1).astype(jnp.int32))


def build(model: Any, options: SegmentationOptions, data: DataInfo) -> SemanticSegmentation:
    """Return the objective; see `objectives.registry`."""
    return SemanticSegmentation(family_of(model).headless(model), options, data)
