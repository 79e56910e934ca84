"""Classify images with a trained model."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vit_jax.compiler_options import jit, prediction_options
from vit_jax.data.transforms.defaults import default_transforms
from vit_jax.errors import ConfigError
from vit_jax.evaluation.preprocess import Picture, Preprocessor
from vit_jax.inference.predictions import Prediction, fitting, in_batches, most_probable
from vit_jax.inference.published import is_run
from vit_jax.inference.workdir import find
from vit_jax.models.lora import Lora
from vit_jax.models.storage import stored
from vit_jax.models.vit_config import ViTConfig, replace
from vit_jax.objectives.adapted import Adapted
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.classification import Classification
from vit_jax.objectives.options import ClassificationOptions, parse_options
from vit_jax.training.defaults import Config, default_config
from vit_jax.training.model import resolve_model


@dataclass(frozen=True)
class Predictor:
    """A classifier: images of any size to class probabilities.

    Attributes:
      objective: the classifier.
      params: its parameters.
      config: what it was trained with; of a published checkpoint, only its name.
      eval_transforms: what happened to images when it was evaluated, and happens to them here.
      batch_size: most images computed at once, see `predictions.fitting`.
    """

    objective: Classification
    params: Any
    config: Config
    eval_transforms: str
    batch_size: int = 32

    @classmethod
    def load(cls, source: str | Path, step: int | None = None, *, best: bool = False) -> "Predictor":
        """Return the predictor of a training run or of a published checkpoint.

        Args:
          source: the folder given to training, or one of its checkpoints; or whatever `vit_jax.load` takes.
          step: which checkpoint of a run; None takes the newest.
          best: take the best one instead.

        Raises:
          CheckpointError: there is no checkpoint, or it cannot be read.
          ConfigError: the run was not a classification, or the model has no classes.
        """
        if not is_run(source):
            return cls._published(str(source), step, best)
        saved = find(source, step, best=best)
        config = saved.config
        if config.objective.name != "classification":
            raise ConfigError(
                f"workdir {str(source)!r} holds a model trained for {config.objective.name!r}, which has no classes; "
                "predict needs one trained for 'classification'."
            )
        model = replace(resolve_model(config, None, saved.model)[0], num_classes=len(saved.class_names))
        options = parse_options({"name": "classification", "loss": config.objective.get("loss", "softmax")})
        objective = Classification(model, options, DataInfo(len(saved.class_names), saved.class_names))
        if not saved.adapted:
            params = saved.params(jax.eval_shape(objective.init, jax.random.key(0))[0])
            return cls(objective, params, config, saved.eval_transforms)
        adapted = Adapted(objective, Lora(**config.lora.to_dict()))
        params = saved.params(jax.eval_shape(adapted.init, jax.random.key(0))[0])
        return cls(objective, jax.jit(adapted.lora.merge)(params), config, saved.eval_transforms)

    @classmethod
    def _published(cls, name: str, step: int | None, best: bool) -> "Predictor":
        if step is not None or best:
            raise ConfigError(f"{name!r} is not a training run, so it has no steps; leave out step and best.")
        config = default_config()
        config.model.checkpoint = name
        model, pretrained = resolve_model(config)
        assert pretrained is not None
        names = pretrained.class_names or tuple(map(str, range(model.num_classes)))
        objective = Classification(model, ClassificationOptions(), DataInfo(model.num_classes, names))
        transforms = default_transforms(model.preprocessing, model.image_size, model.in_channels)[1]
        return cls(objective, pretrained.params(), config, transforms)

    def stored(self, storage: str) -> "Predictor":
        """Return the same predictor with its kernels stored in fewer bytes, see `models.storage`.

        Args:
          storage: `float32`, `bfloat16` or `int8`.

        Raises:
          ConfigError: there is no such storage.
        """
        return dataclasses.replace(self, params=stored(self.params, storage))

    @property
    def model(self) -> ViTConfig:
        """The classifier's configuration."""
        return self.objective.model

    @property
    def network(self) -> Any:
        """The model as `vit_jax.load` returns one: call it, or give it to `vit_jax.save`."""
        return self.objective.functions.bind(self.params)

    def probabilities(self, images: Picture | Sequence[Picture]) -> np.ndarray:
        """Return class probabilities `(b, classes)` float32.

        Softmax for a softmax loss; for sigmoid and bce losses each class has its own, and rows do not sum to 1.

        Args:
          images: paths, bytes of image files, or arrays `(h, w, c)` uint8; one or several.
        """
        rows = self._preprocessor.pixels(images)
        if not len(rows):
            return np.zeros((0, self.model.num_classes), np.float32)
        return in_batches(
            lambda batch: self._compiled(self.params, batch), rows, fitting(self.batch_size, len(rows))
        )

    def predict(self, images: Picture | Sequence[Picture], top: int = 5) -> list[Prediction]:
        """Return the `top` most probable classes of each image, see `probabilities`."""
        return most_probable(images, self.probabilities(images), self.objective.data.class_names, top)

    def compute(self, params: Any, images: jax.Array) -> jax.Array:
        """Return probabilities `(b, classes)` of images `(b, h, w, c)` uint8; a pure function, to be jitted."""
        activation = jax.nn.softmax if self.objective.options.loss == "softmax" else jax.nn.sigmoid
        return activation(self.objective.predict(params, {"image": images}))

    @cached_property
    def _compiled(self) -> Any:
        options = prediction_options(jax.default_backend(), self.model.dtype)
        return jit(self.compute, options)

    @cached_property
    def _preprocessor(self) -> Preprocessor:
        return Preprocessor(self.model, self.eval_transforms)
