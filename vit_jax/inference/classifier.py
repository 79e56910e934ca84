"""An image classifier as one object, for people who only want that."""

import json
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.data.arrays import ArraySource
from vit_jax.data.base import Selection, Source
from vit_jax.errors import ConfigError, DataError
from vit_jax.evaluation.preprocess import Picture
from vit_jax.inference.predictor import Predictor
from vit_jax.inference.published import is_checkpoint
from vit_jax.inference.workdir import find
from vit_jax.models.config_json import config_to_json
from vit_jax.paths import check_output
from vit_jax.training.config import default_config, to_json, validate
from vit_jax.training.loop import train


class Classifier:
    """A Vision Transformer with `fit`, `predict`, `save` and `load`.

    Args:
      model: a model's name, see `vit_jax.list_models`, or a checkpoint to start from, whatever `vit_jax.load` takes
        (`timm/vit_small_patch16_224.augreg_in21k`).
      epochs: passes over the training images.
      batch_size: images in a step.
      learning_rate: at its peak; None chooses 1e-3, and for a checkpoint 1e-4, less in lower layers.
      weight_decay: of AdamW.
      mixup: alpha of mixup; 0 is off.
      label_smoothing: share of the target spread over all classes.
      seed: of everything random.
      progress: whether to show a progress bar.
      **model_options: any field of `ViTConfig`, e.g. `image_size` or `patch_size`.

    Raises:
      ConfigError: an argument is wrong.
    """

    def __init__(
        self,
        model: str = "vit_tiny_patch16_224",
        *,
        epochs: int = 30,
        batch_size: int = 64,
        learning_rate: float | None = None,
        weight_decay: float = 0.05,
        mixup: float = 0.0,
        label_smoothing: float = 0.0,
        seed: int = 0,
        progress: bool = True,
        **model_options: Any,
    ):
        config = default_config()
        config.seed, config.duration = seed, f"{epochs} epochs"
        pretrained = is_checkpoint(model)
        config.model = ConfigDict({"checkpoint" if pretrained else "name": model, **model_options})
        config.objective.mixup, config.objective.label_smoothing = mixup, label_smoothing
        config.data.batch_size = batch_size
        config.optimizer.learning_rate = learning_rate or (1e-4 if pretrained else 1e-3)
        config.optimizer.weight_decay = weight_decay
        config.optimizer.layer_decay = 0.75 if pretrained else 1.0
        config.schedule.warmup = "10%"
        config.log.progress = progress
        validate(config)
        self.config = config
        self._predictor: Predictor | None = None
        self.metrics: dict[str, float] = {}

    def fit(
        self,
        images: np.ndarray | Sequence[np.ndarray] | str | Path,
        labels: np.ndarray | Sequence[int] | None = None,
        *,
        validation: tuple[np.ndarray, np.ndarray] | None = None,
        class_names: Sequence[str] | None = None,
        workdir: str | Path | None = None,
    ) -> "Classifier":
        """Train on arrays or on a folder of class folders, and return the classifier.

        Args:
          images: uint8 `(n, h, w, c)` or `(n, h, w)`, or the path of a folder.
          labels: integers `(n,)`; not for a folder.
          validation: images and labels to evaluate on; by default every tenth of the training images is held
            out (a folder has its own split).
          class_names: of arrays, in order of label.
          workdir: where the run is kept and can be resumed; by default a temporary folder.

        Raises:
          VitError: the data are wrong.
        """
        config = self.config.copy_and_resolve_references()
        sources: tuple[Source, Source] | None = None
        if not isinstance(images, str | Path):
            if labels is None:
                raise ConfigError("fit got images without labels; pass labels, or the path of a folder.")
            config.data.source = "arrays"
            sources = _sources(images, labels, validation, class_names)
        else:
            if labels is not None or validation is not None:
                raise ConfigError("fit got a folder and also labels or validation; a folder has its own.")
            if class_names is not None:
                raise ConfigError("fit got a folder and also class_names; they are the names of its folders.")
            config.data.source, config.data.path = "folder", str(images)
        validate(config)
        temporary = workdir is None
        place = (
            Path(tempfile.mkdtemp(prefix="vit_jax_")) if workdir is None else check_output(workdir, "workdir")
        )
        try:
            train(config, place, sources=sources)
            self._use(place)
        finally:
            if temporary:
                shutil.rmtree(place)
        return self

    def predict_proba(self, images: Sequence[Picture] | np.ndarray) -> np.ndarray:
        """Return class probabilities `(n, classes)` of paths or uint8 images."""
        return self._fitted().probabilities(_with_channels(images))

    def predict(self, images: Sequence[Picture] | np.ndarray) -> np.ndarray:
        """Return the most probable label of each image, `(n,)` integers; names are in `class_names`."""
        return self.predict_proba(images).argmax(axis=1)

    def score(self, images: Sequence[Picture] | np.ndarray, labels: np.ndarray | Sequence[int]) -> float:
        """Return the accuracy on labelled images."""
        return float(np.mean(self.predict(images) == np.asarray(labels)))

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in order of label."""
        return self._fitted().objective.data.class_names

    def save(self, path: str | Path) -> None:
        """Write the classifier to a folder, from which `load`, `vit-jax predict` and `Predictor.load` read it.

        Raises:
          ConfigError: it has not been fitted, or the folder holds another one.
        """
        predictor, folder = self._fitted(), check_output(path, "path") / "checkpoints"
        if os.path.isdir(folder) and any(folder.iterdir()):
            raise ConfigError(f"{str(path)!r} already holds a model; save to another folder.")
        metadata = {
            "config": json.loads(to_json(predictor.config)),
            "model": config_to_json(predictor.model),
            "class_names": list(self.class_names),
            "eval_transforms": predictor.eval_transforms,
            "monitor": predictor.objective.monitor,
            "monitor_mode": predictor.objective.monitor_mode,
        }
        with Checkpoints(folder) as checkpoints:
            checkpoints.save(0, {"params": predictor.params}, metadata, self.metrics)

    @classmethod
    def load(cls, path: str | Path) -> "Classifier":
        """Return the classifier of a folder written by `save` or by training.

        Raises:
          CheckpointError: there is none, or it cannot be read.
        """
        classifier = cls()
        classifier._use(path)
        classifier.config = classifier._fitted().config
        return classifier

    def _use(self, path: str | Path) -> None:
        self._predictor = Predictor.load(path)
        self.metrics = find(path).metrics

    def _fitted(self) -> Predictor:
        if self._predictor is None:
            raise ConfigError("this classifier has not been trained; call fit, or Classifier.load.")
        return self._predictor


def _with_channels(images: Any) -> Any:
    grey = isinstance(images, np.ndarray) and images.ndim == 3 and images.shape[-1] not in (1, 3)
    return images[..., None] if grey else images


def _sources(
    images: Any, labels: Any, validation: tuple[Any, Any] | None, class_names: Sequence[str] | None
) -> tuple[Source, Source]:
    given = ArraySource(np.asarray(images), np.asarray(labels), class_names, name="the training images")
    if validation is not None:
        pixels, known = map(np.asarray, validation)
        return given, ArraySource(pixels, known, given.class_names, name="the validation images")
    held_out = np.arange(len(given)) % 10 == 9
    if not held_out.any():
        raise DataError(
            f"fit got {len(given)} images, too few to hold some out; give at least 10, or validation=(images, labels)."
        )
    return Selection(given, np.flatnonzero(~held_out)), Selection(given, np.flatnonzero(held_out))
