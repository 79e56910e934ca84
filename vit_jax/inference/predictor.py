"""Classify images with a trained model."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vit_jax.errors import ConfigError
from vit_jax.evaluation.preprocess import Picture, Preprocessor, name_of, several
from vit_jax.inference.workdir import find
from vit_jax.models.vit_config import ViTConfig, replace
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.classification import Classification
from vit_jax.objectives.options import parse_options
from vit_jax.training.defaults import Config
from vit_jax.training.experiment import build_model_config


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image.

    Attributes:
      image: path of the image, or `image` and its number.
      classes: names, most probable first.
      probabilities: of these classes.
    """

    image: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


@dataclass(frozen=True)
class Predictor:
    """A trained classifier: images of any size to class probabilities.

    Attributes:
      objective: the classifier.
      params: its parameters.
      config: what it was trained with.
      eval_transforms: what happened to images when it was evaluated, and happens to them here.
      batch_size: images computed at once; the last batch is padded, so that one program serves all.
    """

    objective: Classification
    params: Any
    config: Config
    eval_transforms: str
    batch_size: int = 32

    @classmethod
    def load(cls, workdir: str | Path, step: int | None = None, *, best: bool = False) -> "Predictor":
        """Return the predictor of a training run.

        Args:
          workdir: the folder given to training, or one of its checkpoints.
          step: which checkpoint; None takes the newest.
          best: take the best one instead.

        Raises:
          CheckpointError: there is no checkpoint, or it cannot be read.
          ConfigError: the run was not a classification.
        """
        saved = find(workdir, step, best=best)
        config = saved.config
        if config.objective.name != "classification":
            raise ConfigError(
                f"workdir {str(workdir)!r} holds a model trained for {config.objective.name!r}, which has no classes; "
                "predict needs one trained for 'classification'."
            )
        model = replace(build_model_config(config), num_classes=len(saved.class_names))
        options = parse_options({"name": "classification", "loss": config.objective.get("loss", "softmax")})
        objective = Classification(model, options, DataInfo(len(saved.class_names), saved.class_names))
        abstract = jax.eval_shape(objective.init, jax.random.key(0))[0]
        return cls(objective, saved.params(abstract), config, saved.eval_transforms)

    @property
    def model(self) -> ViTConfig:
        """The classifier's configuration."""
        return self.objective.model

    def probabilities(self, images: Picture | Sequence[Picture]) -> np.ndarray:
        """Return class probabilities `(b, classes)` float32.

        Softmax for a softmax loss; for sigmoid and bce losses each class has its own, and rows do not sum to 1.

        Args:
          images: paths, bytes of image files, or arrays `(h, w, c)` uint8; one or several.
        """
        rows = self._preprocessor.pixels(images)
        outputs = []
        for start in range(0, len(rows), self.batch_size):
            chunk = rows[start : start + self.batch_size]
            padding = [(0, self.batch_size - len(chunk)), (0, 0), (0, 0), (0, 0)]
            padded = np.pad(chunk, padding)
            outputs.append(np.asarray(self._compute(self.params, padded))[: len(chunk)])
        return np.concatenate(outputs) if outputs else np.zeros((0, self.model.num_classes), np.float32)

    def predict(self, images: Picture | Sequence[Picture], top: int = 5) -> list[Prediction]:
        """Return the `top` most probable classes of each image, see `probabilities`."""
        names = self.objective.data.class_names
        predictions = []
        for index, (image, row) in enumerate(zip(several(images), self.probabilities(images))):
            best = np.argsort(-row, kind="stable")[: max(1, top)]
            predictions.append(
                Prediction(
                    name_of(image, index),
                    tuple(names[i] for i in best),
                    tuple(float(row[i]) for i in best),
                )
            )
        return predictions

    @cached_property
    def _compute(self) -> Any:
        activation = jax.nn.softmax if self.objective.options.loss == "softmax" else jax.nn.sigmoid
        return jax.jit(lambda params, image: activation(self.objective.predict(params, {"image": image})))

    @cached_property
    def _preprocessor(self) -> Preprocessor:
        return Preprocessor(self.model, self.eval_transforms)
