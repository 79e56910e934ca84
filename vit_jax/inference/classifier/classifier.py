"""An image classifier as one object, for people who only want that."""

import copy
import inspect
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.files import locate
from vit_jax.data.sources.pictures import Pictures
from vit_jax.errors import ConfigError, DataError
from vit_jax.evaluation.report import Report
from vit_jax.inference.classifier.config import arguments_of, check_names, configuration, update
from vit_jax.inference.classifier.records import numbers_of, of_folder, of_images
from vit_jax.inference.predictor import Predictor
from vit_jax.inference.workdir import find
from vit_jax.models.config_json import config_to_json
from vit_jax.paths import check_output, expanded
from vit_jax.training.config.defaults import Config
from vit_jax.training.config.load import to_json, validate
from vit_jax.training.loop import train


class Classifier:
    """A Vision Transformer with `fit`, `predict`, `score`, `save` and `load`.

    It follows scikit-learn's conventions: `cross_val_score`, `GridSearchCV` and `clone` take it.

    Args:
      model: a model's name, see `vit_jax.list_models`, or a checkpoint to start from, whatever `vit_jax.load` takes
        (`timm/vit_small_patch16_224.augreg_in21k`).
      epochs: passes over the training images.
      batch_size: images in a step.
      learning_rate: at its peak; None chooses 1e-3, and for a checkpoint 1e-4, less in lower layers.
      weight_decay: of AdamW.
      layer_decay: factor from each layer's learning rate to that below; None chooses 1, and for a checkpoint 0.75.
      lora: rank of low-rank adaptation, which trains factors and the head alone; 0 trains everything.
      mixup: alpha of mixup; 0 is off.
      label_smoothing: share of the target spread over all classes.
      train_transforms, eval_transforms: what happens to images, as configurations write it; empty for what they need.
      seed: of everything random.
      progress: whether to show a progress bar.
      **model_options: any field of the model's configuration, e.g. `image_size` or `patch_size`.

    Attributes:
      config: the configuration that these arguments mean, free to be changed in more than they say.
      classes_: labels in order of the columns of `predict_proba`, of the kind given to `fit`.
      metrics: of the last evaluation.
      history_: what `metrics.jsonl` says of the run, line by line: `step`, `train/loss`, `eval/accuracy` ...

    Raises:
      ConfigError: an argument is wrong.
    """

    def __init__(
        self,
        model: str = "vit_tiny_patch16_224",
        *,
        epochs: float = 30,
        batch_size: int = 64,
        learning_rate: float | None = None,
        weight_decay: float = 0.05,
        layer_decay: float | None = None,
        lora: int = 0,
        mixup: float = 0.0,
        label_smoothing: float = 0.0,
        train_transforms: str = "",
        eval_transforms: str = "",
        seed: int = 0,
        progress: bool = True,
        **model_options: Any,
    ):
        self.model, self.epochs, self.batch_size, self.learning_rate = (
            model,
            epochs,
            batch_size,
            learning_rate,
        )
        self.weight_decay, self.layer_decay, self.lora = weight_decay, layer_decay, lora
        self.mixup, self.label_smoothing = mixup, label_smoothing
        self.train_transforms, self.eval_transforms = train_transforms, eval_transforms
        self.seed, self.progress, self.model_options = seed, progress, model_options
        check_names(model_options, _ARGUMENTS)
        self._predictor: Predictor | None = None
        self._named = False
        self.metrics: dict[str, float] = {}
        self.history_: list[dict[str, Any]] = []
        self.config = self._configuration()
        validate(self.config)

    def get_params(self, deep: bool = True) -> dict[str, Any]:
        """Return the arguments by name, those of the model among them."""
        return {name: getattr(self, name) for name in _ARGUMENTS} | self.model_options

    def set_params(self, **params: Any) -> "Classifier":
        """Change arguments by name, for the next `fit`.

        Raises:
          ConfigError: an argument is wrong; nothing was changed.
        """
        before, saved = self._configuration(), (vars(self).copy(), self.config.copy_and_resolve_references())
        check_names(params, _ARGUMENTS)
        options = {name: value for name, value in params.items() if name not in _ARGUMENTS}
        for name in _ARGUMENTS & params.keys():
            setattr(self, name, params[name])
        self.model_options = self.model_options | options
        try:
            update(self.config, before, self._configuration())
            validate(self.config)
        except ConfigError:
            vars(self).update(saved[0], config=saved[1])
            raise
        return self

    def fit(
        self,
        images: Any,
        labels: Any = None,
        *,
        validation: tuple[Any, Any] | None = None,
        split: str | None = None,
        class_names: Sequence[str] | None = None,
        workdir: str | Path | None = None,
        allow_change: Iterable[str] = (),
        callbacks: Iterable[Any] = (),
    ) -> "Classifier":
        """Train on images or on a folder of class folders, and return the classifier.

        Args:
          images: uint8 `(n, h, w, c)` or `(n, h, w)`; a sequence (list, column of pandas) of arrays of any sizes, of
            paths, of bytes of image files or of images of Pillow's; or the path of a folder.
          labels: whole numbers or names of classes `(n,)`; not for a folder.
          validation: images and labels to evaluate on; by default a tenth of each class is held out at random.
          split: of a folder, to evaluate on; by default `val` or `test`, under any of their names, and where there is
            none a tenth of the images.
          class_names: of images whose labels are numbers from 0, in order of label; or the order of named ones.
          workdir: where the run is kept and can be resumed; by default a temporary folder.
          allow_change, callbacks: see `train`.

        Raises:
          VitError: the data are wrong.
        """
        config = self.config.copy_and_resolve_references()
        if isinstance(images, str | os.PathLike):
            if labels is not None or validation is not None:
                raise ConfigError(
                    "fit got a folder and also labels or validation; leave them out: a folder has its own."
                )
            if class_names is not None:
                raise ConfigError(
                    "fit got a folder and also class_names; leave them out: classes are named by its folders."
                )
            records = of_folder(Path(images), split, config.seed)
        elif split is not None:
            raise ConfigError(
                "fit got images and also a split, which only folders have; pass validation instead."
            )
        else:
            records = of_images(images, labels, validation, class_names, config.seed)
        config.data.update(records.section)
        validate(config)
        temporary = workdir is None
        place = (
            Path(tempfile.mkdtemp(prefix="vit_jax_")) if workdir is None else check_output(workdir, "workdir")
        )
        try:
            train(config, place, sources=records.sources, allow_change=allow_change, callbacks=callbacks)
            self._use(place, records.classes)
        finally:
            if temporary:
                shutil.rmtree(place)
        return self

    def predict_proba(self, images: Pictures) -> np.ndarray:
        """Return class probabilities `(n, classes)` of images, whatever `fit` takes; columns are `classes_`."""
        return self._fitted().probabilities(_with_channels(images, self._fitted().model.in_channels))

    def predict(self, images: Pictures) -> np.ndarray:
        """Return the most probable label of each image, `(n,)`, of the kind given to `fit`; of a folder, numbers."""
        best = self.predict_proba(images).argmax(axis=1)
        return self.classes_[best]

    def score(self, images: Pictures, labels: Any, sample_weight: Any = None) -> float:
        """Return the accuracy on labelled images; names as labels are those of `class_names`.

        Raises:
          DataError: there is not a label for each image, or one is no class that was trained on.
        """
        known, chances = self._labelled(images, labels, "score")
        if sample_weight is not None and np.shape(sample_weight) != known.shape:
            raise DataError(
                f"score got {len(known)} images and sample_weight of shape {np.shape(sample_weight)}; give one "
                "per image."
            )
        return float(np.average(chances.argmax(axis=1) == known, weights=sample_weight))

    def report(self, images: Pictures, labels: Any) -> Report:
        """Return precision, recall and F1 of each class on labelled images, what is confused, and calibration.

        `print` it, read its attributes, or give it to `evaluation.report_figure.draw_report`.

        Raises:
          DataError: see `score`.
        """
        known, chances = self._labelled(images, labels, "report")
        return Report.of_probabilities(known, chances, self.class_names)

    def _labelled(self, images: Pictures, labels: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
        """Return which output each label means, `(n,)`, and the probabilities `(n, classes)` of its image."""
        self._fitted()
        known = numbers_of(labels, self.classes_, self.class_names, "the images")
        chances = self.predict_proba(images)
        if len(known) != len(chances):
            raise DataError(f"{what} got {len(chances)} images and {len(known)} labels; give one per image.")
        if not len(known):
            raise DataError(f"{what} got no images; give at least one with its label.")
        return known, chances

    @property
    def classes_(self) -> np.ndarray:
        """Labels in order of the model's outputs; scikit-learn takes its absence as not fitted."""
        if self._predictor is None:
            raise AttributeError("classes_ is known only after fit")
        return self._classes

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in order of the model's outputs."""
        return self._fitted().class_names

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
            "classes_named": self._named,
            "labels": self.classes_.tolist(),
            "eval_transforms": predictor.eval_transforms,
            "monitor": predictor.objective.monitor,
            "monitor_mode": predictor.objective.metric_modes[predictor.objective.monitor],
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
        arguments, classifier.model_options = arguments_of(classifier.config)
        vars(classifier).update(arguments)
        return classifier

    def _configuration(self) -> Config:
        return configuration(
            {name: getattr(self, name) for name in _ARGUMENTS}, copy.deepcopy(self.model_options)
        )

    def _use(self, path: str | Path, classes: np.ndarray | None = None) -> None:
        self._predictor, saved = Predictor.load(path), find(path)
        self.metrics, self._named = saved.metrics, saved.named
        if classes is None:
            count = len(self.class_names)
            labels = saved.checkpoints.metadata(saved.step).get("labels")
            classes = (
                np.array(labels) if isinstance(labels, list) and len(labels) == count else np.arange(count)
            )
        self._classes = classes
        self.history_ = _history(Path(expanded(path)))

    def _fitted(self) -> Predictor:
        if self._predictor is None:
            raise ConfigError("this classifier has not been trained; call fit, or Classifier.load.")
        return self._predictor

    def __sklearn_is_fitted__(self) -> bool:
        return self._predictor is not None

    def __sklearn_tags__(self) -> Any:
        # Here, for scikit-learn takes a second to import, and only itself asks for this.
        from sklearn.utils import ClassifierTags, InputTags, Tags, TargetTags

        images = InputTags(one_d_array=False, two_d_array=False, three_d_array=True, string=True)
        return Tags(
            estimator_type="classifier",
            target_tags=TargetTags(required=False),
            classifier_tags=ClassifierTags(multi_label=False),
            input_tags=images,
            no_validation=True,
        )

    def __repr__(self) -> str:
        defaults = {name: parameter.default for name, parameter in _PARAMETERS.items()}
        given = [
            f"{name}={value!r}" for name, value in self.get_params().items() if value != defaults.get(name)
        ]
        return f"Classifier({', '.join(given)})"


_PARAMETERS = inspect.signature(Classifier).parameters
_ARGUMENTS = {name: None for name in _PARAMETERS if name != "model_options"}.keys()


def _history(workdir: Path) -> list[dict[str, Any]]:
    """Return the lines of a run's metrics; none of a classifier that was saved by itself."""
    try:
        text = (locate(workdir)[0].parent / "metrics.jsonl").read_text()
    except OSError:
        return []
    return [json.loads(line) for line in text.splitlines() if line.endswith("}")]


def _with_channels(images: Any, channels: int) -> Any:
    """Return `(n, h, w)` as grey images; here, as in `fit`, the first of three axes is that of the images.

    Three grey ones for a model that takes three channels may as well be one image with these first: that is refused.
    """
    several = isinstance(images, np.ndarray) and images.ndim == 3 and images.shape[-1] > 4
    several = several and not images.shape[0] == channels == 3
    return images[..., None] if several and channels in (1, 3) else images
