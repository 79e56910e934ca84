"""What a trained or published model says of images."""

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from types import MappingProxyType
from typing import Any

import jax
import numpy as np

from vit_jax.compiler_options import jit, prediction_options
from vit_jax.data.sources.pictures import Pictures
from vit_jax.data.transforms.defaults import default_transforms
from vit_jax.errors import ConfigError
from vit_jax.evaluation.preprocess import Preprocessor
from vit_jax.inference.features import FeatureExtractor
from vit_jax.inference.frozen import at_end, frozen_of
from vit_jax.inference.predictions import ImagePredictor
from vit_jax.inference.published import is_run, objective_of, state_of
from vit_jax.inference.workdir import find
from vit_jax.models.families import family_of
from vit_jax.models.maps import Chosen, named_levels
from vit_jax.models.registry import model_functions
from vit_jax.models.storage import stored
from vit_jax.objectives.base import Field, Objective
from vit_jax.objectives.encoder import encoder_state
from vit_jax.objectives.options import parse_options
from vit_jax.objectives.outputs.base import Output
from vit_jax.objectives.protocol import DataInfo
from vit_jax.objectives.registry import build_objective
from vit_jax.processes import say
from vit_jax.training.config.defaults import Config, default_config
from vit_jax.training.config.model import resolve_model
from vit_jax.trees import subset


@dataclass(frozen=True, repr=False)
class Predictor(ImagePredictor):
    """A trained model of any task: images of any size to predictions.

    Attributes:
      objective: what it was trained for, which says what it predicts.
      params: its parameters.
      config: what it was trained with; of a published checkpoint, only its name.
      eval_transforms: what happened to images when it was evaluated, and happens to them here.
      batch_size: most images computed at once, see `stream.fitting`.
      buffers: what it has beside parameters, such as batch statistics.
      frozen: parameters of the frozen networks that predictions need, by name.
      steps: how many updates were made.
    """

    objective: Objective
    params: Any
    config: Config
    eval_transforms: str
    batch_size: int = 32
    buffers: Any = field(default_factory=dict)
    frozen: Mapping[str, Any] = field(default_factory=dict)
    steps: int = 0

    @classmethod
    def load(
        cls,
        source: str | Path,
        step: int | None = None,
        *,
        best: bool = False,
        weights: str | None = None,
        objective: Callable[..., Objective] | None = None,
    ) -> "Predictor":
        """Return the predictor of a training run, or of a published checkpoint: its classes, labels or values.

        Of a published checkpoint whose outputs are a probability for each class, these are the labels that reach 50 %.

        Args:
          source: the folder given to training, or one of its checkpoints; or whatever `vit_jax.load` takes.
          step: which checkpoint of a run; None takes the newest.
          best: take the best one instead.
          weights: which set of a published file that holds several, see `vit_jax.load`.
          objective: what the run was trained for, if `train` was given one.

        Raises:
          CheckpointError: there is no checkpoint, or it cannot be read.
          ConfigError: the model predicts nothing of images.
        """
        if not is_run(source):
            return cls._published(str(source), step, best, weights)
        if weights is not None:
            raise ConfigError(
                f"{str(source)!r} is a training run; leave out weights, which select among those of published files."
            )
        saved = find(source, step, best=best)
        learned = saved.objective(objective)
        if learned.output is None:
            raise ConfigError(
                f"workdir {str(source)!r} holds a model trained for {saved.config.objective.name!r}, which makes "
                "no predictions for images; use its encoder, for example with vit-jax features."
            )
        params, buffers = saved.state(learned)
        frozen = frozen_of(learned, saved.step, learned.model.input_shape, saved.config.seed)
        more = dict(buffers=buffers, frozen=frozen, steps=saved.step)
        return cls(learned, params, saved.config, saved.eval_transforms, **more)

    @classmethod
    def _published(cls, name: str, step: int | None, best: bool, weights: str | None) -> "Predictor":
        if step is not None or best:
            raise ConfigError(f"{name!r} is not a training run, so it has no steps; leave out step and best.")
        config = default_config()
        config.model.checkpoint = name
        config.model.weights = weights or ""
        model, pretrained = resolve_model(config.model, config.compute_dtype)
        assert pretrained is not None
        names = pretrained.class_names or tuple(map(str, range(model.num_classes)))
        options = parse_options(objective_of(model.problem))
        objective = build_objective(options, model, DataInfo(model.num_classes, names))
        transforms = default_transforms(
            model.preprocessing, model.image_size, model.in_channels, budget=family_of(model).budget(model)
        )[1]
        params, buffers = state_of(objective, pretrained.params())
        if model.problem == "multi_label":  # a threshold that no file says
            say(
                f"{name} gives each class a probability of its own, so an image may have several labels: those that "
                f"reach {options.thresholds:.0%}; top=K, or --top K, gives the K most probable instead."
            )
        return cls(objective, params, config, transforms, buffers=buffers)

    def stored(self, storage: str) -> "Predictor":
        """Return the same predictor with its kernels stored in fewer bytes, see `models.storage`.

        Args:
          storage: `float32`, `bfloat16` or `int8`.

        Raises:
          ConfigError: there is no such storage.
        """
        return dataclasses.replace(self, params=stored(self.params, storage))

    @property
    def output(self) -> Output:  # pyright: ignore[reportIncompatibleVariableOverride]
        """What is predicted, and how it is written and drawn."""
        output = self.objective.output
        assert output is not None  # else refused by load
        return output

    @property
    def model(self) -> Any:
        """The model's configuration."""
        return self.objective.model

    @property
    def network(self) -> Any:
        """The model as `vit_jax.load` returns one: call it, or give it to `vit_jax.save`."""
        params = self.objective.plain(self.params, self.buffers)
        functions = model_functions(self.objective.network)
        return functions.bind(params, subset(self.buffers, functions.abstract_buffers))

    def features(
        self,
        images: Pictures,
        levels: Chosen | None = None,
        *,
        resample: bool = False,
        bad: str = "error",
        progress: bool = False,
        max_megapixels: float | None = None,
    ) -> Any:
        """Return embeddings of images, float32 `(n, d)`, or a tuple of maps `(n, h, w, c)`, one for each level.

        Args:
          images, bad, progress, max_megapixels: see `stream`; maps of all images are in memory together.
          levels: strides in pixels, names such as `stages/1` or `blocks/-1`, or both; None for embeddings, see
            `models.maps.named_levels`.
          resample: take of a stride that no map has the map of the nearest, bilinear.

        Raises:
          ConfigError: there is no such level, or `bad` or `max_megapixels` is wrong.
          DataError: an image cannot be read; it is named.
        """
        names = None if levels is None else named_levels(self.model, levels, resample)
        if names not in self._extractors:
            state = encoder_state(self.objective, self.params, self.buffers)
            one = FeatureExtractor.of(self.model, *state, self.eval_transforms)
            one = dataclasses.replace(one, batch_size=self.batch_size)
            self._extractors[names] = one if levels is None else one.at(levels, resample)
        return self._extractors[names].features(
            images, bad=bad, progress=progress, max_megapixels=max_megapixels
        )

    @cached_property
    def _extractors(self) -> dict[Any, FeatureExtractor]:
        return {}

    def compute(
        self, params: Any, buffers: Any, images: Any, frozen: Mapping[str, Any] = MappingProxyType({})
    ) -> Mapping[str, jax.Array]:
        """Return what the model says of images `(b, h, w, c)` uint8, or `Patches`; a pure function, to be jitted."""
        return at_end(self.objective, self.steps, frozen).predict(params, buffers, {"image": images})

    def _compute(self, images: np.ndarray) -> Mapping[str, Any]:
        return self._compiled(self.params, self.buffers, images, dict(self.frozen))

    @cached_property
    def _compiled(self) -> Any:
        options = prediction_options(jax.default_backend(), self.model.dtype)
        return jit(self.compute, options)

    @cached_property
    def _preprocessor(self) -> Preprocessor:
        said = self.objective.eval_fields.get("image", Field()).shape or ()
        sides = said[:2] if len(said) == 3 else ()
        return Preprocessor(
            self.model, self.eval_transforms, size=tuple(side for side in sides if side is not None)
        )
