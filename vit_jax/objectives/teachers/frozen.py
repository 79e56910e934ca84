"""A frozen network that a student learns from: any checkpoint, seeing the very pixels that the student sees."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import jax
import numpy as np

from vit_jax.data.classes import are_counted
from vit_jax.errors import ConfigError
from vit_jax.models.families import family_of, is_image_encoder
from vit_jax.models.functional import ModelFunctions
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.registry import model_functions
from vit_jax.objectives.images import channel_values
from vit_jax.objectives.protocol import Constant, DataInfo
from vit_jax.weights.head import Classes
from vit_jax.weights.load import open_pretrained


@dataclass(frozen=True)
class FrozenTeacher:
    """A teacher whose parameters come from a checkpoint.

    Attributes:
      option: what it is called in the configuration, for messages.
      source: the checkpoint.
      config: its model, computing in the student's dtype.
      options: what `open_pretrained` is told beside.
    """

    option: str
    source: str
    config: Any
    options: Mapping[str, Any] = field(default_factory=dict)
    functions: ModelFunctions = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "functions", model_functions(self.config))

    @property
    def constant(self) -> Constant:
        """What the objective says of it in `constants`."""
        return Constant(self.config, self.source, self.options)

    def sees(self, images: jax.Array, preprocessing: Preprocessing) -> jax.Array:
        """Return what the teacher takes for images as a student takes them: in its own numbers, and of its own size.

        Args:
          images: normalised images `(b, h, w, c)`, mixed or erased as they may be.
          preprocessing: by whose mean and deviation.
        """
        images = renormalised(images, preprocessing, self.config.preprocessing)
        b, *size, c = images.shape
        own = self.config.image_size
        if tuple(size) == tuple(own):
            return images
        return jax.image.resize(images, (b, *own, c), "bicubic", antialias=True)

    def __call__(self, params: Any, images: jax.Array) -> jax.Array:
        """Return what the teacher says of images, see `sees`; no gradient flows back.

        Args:
          params: its parameters and batch statistics, as the step is given them.
          images: as it takes them.
        """
        return jax.lax.stop_gradient(self.functions.apply(params, images))


def renormalised(images: jax.Array, was: Preprocessing, becomes: Preprocessing) -> jax.Array:
    """Return normalised images `(b, h, w, c)` by another mean and deviation."""
    channels = images.shape[-1]
    (mean, std), (other_mean, other_std) = (channel_values(one, channels) for one in (was, becomes))
    if np.array_equal(mean, other_mean) and np.array_equal(std, other_std):
        return images
    return images * (std / other_std) + (mean - other_mean) / other_std


def open_classifier(
    option: str, source: str, student: Any, data: DataInfo, labels: str, size: int
) -> FrozenTeacher:
    """Return a teacher whose logits are of the data's classes, in the order of their labels.

    Args:
      option: what it is called in the configuration.
      source: its checkpoint.
      student: the model that learns from it.
      data: the classes.
      labels: `by-name` or `by-position`, see `weights.head`.
      size: of its images in pixels; 0 for what it was made for.

    Raises:
      VitError: there is no such checkpoint, or it does not tell these classes apart or takes other images.
    """
    names = data.class_names or tuple(map(str, range(data.num_classes)))
    named = bool(data.class_names) and not are_counted(names)
    options = {"num_classes": data.num_classes, "data_classes": Classes(names, named, labels)}
    opened = open_pretrained(source, **options, **_size(size), classifier=True)
    config = opened.config
    new = {path.partition("/")[0] for path in opened.report.new} & {*family_of(config).head}
    if new or not config.num_classes or not family_of(config).per_image(config):
        shown = ", ".join(map(str, names[:3])) + (", ..." if len(names) > 3 else "")
        raise ConfigError(
            f"{option} {source!r} does not tell the data's {data.num_classes} classes ({shown}) apart; give a "
            "classifier of these, or teacher_labels='by-position' if it has as many classes under other names."
        )
    return _teacher(option, source, config, student, options)


def open_encoder(option: str, source: str, student: Any, size: int) -> FrozenTeacher:
    """Return a teacher whose features count; whatever head its checkpoint has is left out.

    Raises:
      VitError: there is no such checkpoint, or it is no image encoder, or takes other images.
    """
    options = {"num_classes": 0}
    opened = open_pretrained(source, **options, **_size(size), classifier=True)
    if not is_image_encoder(opened.config):
        kind = type(opened.config).__name__.removesuffix("Config")
        raise ConfigError(f"{option} {source!r} holds a {kind}; give a checkpoint of an image encoder.")
    return _teacher(option, source, opened.config, student, options)


def _size(size: int) -> dict[str, Any]:
    return {"image_size": size} if size else {}


def _teacher(
    option: str, source: str, config: Any, student: Any, options: Mapping[str, Any]
) -> FrozenTeacher:
    if config.in_channels != student.in_channels:
        raise ConfigError(
            f"{option} {source!r} takes images of {config.in_channels} channels, but the student of "
            f"{student.in_channels}; they must see the same pixels: give another teacher, or set "
            f"model.in_channels={config.in_channels} with data of as many."
        )
    drawn = family_of(config).drawn
    still = {drawn: ()} if drawn else {}  # what a step draws for the student is not drawn for its teacher
    return FrozenTeacher(option, source, replace(config, dtype=student.dtype, **still), options)
