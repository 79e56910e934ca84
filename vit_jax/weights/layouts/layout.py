"""What a library's checkpoint turns out to be, who knows it by its names, and who writes one."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from vit_jax.errors import ConfigError
from vit_jax.models.families import family_of
from vit_jax.models.registry import ModelConfig
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.rules import Rule


@dataclass(frozen=True)
class Layout:
    """A model and the names of its parameters in a file.

    Attributes:
      config: the model the file holds.
      rules: where each of its parameters is.
      computed: patterns of arrays in the file that are computed and not learned.
      input_size: of the images that the library feeds the model, if it is not that of the positions.
      class_names: in order of logits, if the file says them.
      others: patterns of arrays in the file that belong to something else than the model.
      named: whether somebody gave these names; None where the file does not say it, see `data.classes.are_counted`.
    """

    config: ModelConfig
    rules: Sequence[Rule]
    computed: Sequence[str] = ()
    input_size: tuple[int, int] | None = None
    class_names: tuple[str, ...] = ()
    others: Sequence[str] = ()
    named: bool | None = None


@dataclass(frozen=True)
class Reading:
    """How the files of a library are read.

    Attributes:
      library: its name in words.
      claims: whether a file is one of these, from the names and shapes of its arrays and what lies beside it; of
        everything that a file of another library may be, it says no.
      read: `read(raw, model) -> (raw, layout)`: the arrays under the names that the layout knows, and the layout.
        `model` is what a user says that the file holds, or None.
    """

    library: str
    claims: Callable[[RawCheckpoint], bool]
    read: Callable[[RawCheckpoint, ModelConfig | None], tuple[RawCheckpoint, Layout]]


@dataclass(frozen=True)
class Written:
    """A model in the words of a library.

    Attributes:
      config: the model that is written: the same one, where the library wants its arrays in another shape.
      params: its parameters by path.
      rules: where each goes.
      documents: what lies beside the arrays, by file name.
      constants: arrays that the library has and does not predict with, by name.
      unsaid: fields of which its files say nothing where it has no description, and which no array depends on.
      inside: of PyTorch's files, the key that holds the arrays; empty where they are the whole file.
    """

    config: ModelConfig
    params: Mapping[str, Any]
    rules: Sequence[Rule]
    documents: Mapping[str, Any] = field(default_factory=dict)
    constants: Mapping[str, np.ndarray] = field(default_factory=dict)
    unsaid: Sequence[str] = ()
    inside: str = "model"


# `write(config, params by path, class names) -> Written`; ConfigError for what the library cannot say.
Writing = Callable[[ModelConfig, Mapping[str, Any], Sequence[str]], Written]


def check_model(raw: RawCheckpoint, model: ModelConfig | None, holds: str, *families: str) -> None:
    """Raise ConfigError if a user says that a file holds a model that it cannot hold.

    Args:
      raw: the file.
      model: what it is said to hold; None for nothing.
      holds: what it does, in words.
      *families: of which models it may be; none of a file that says itself what it holds.
    """
    if model is None:
        return
    if not families:
        raise ConfigError(f"{raw.origin} itself tells what model it holds; leave model out.")
    if family_of(model).name not in families:
        raise ConfigError(
            f"model is a {type(model).__name__}, but {raw.origin} holds {holds}; leave model out to have it detected."
        )
