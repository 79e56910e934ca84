"""The configuration that the arguments of a classifier mean, and back."""

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vit_jax.errors import ConfigError, nearest
from vit_jax.inference.published import is_checkpoint
from vit_jax.models.families import option_defaults
from vit_jax.training.config.defaults import Config, flatten
from vit_jax.training.config.load import default_config
from vit_jax.training.config.rules import CHECKPOINT_KEYS

# Arguments that are a key as they are.
KEYS = {
    "batch_size": "data.batch_size",
    "weight_decay": "optimizer.weight_decay",
    "lora": "lora.rank",
    "mixup": "objective.mixup",
    "label_smoothing": "objective.label_smoothing",
    "train_transforms": "data.train_transforms",
    "eval_transforms": "data.eval_transforms",
    "seed": "seed",
    "progress": "log.progress",
}
CHOSEN = {"learning_rate": (1e-3, 1e-4), "layer_decay": (1.0, 0.75)}  # from scratch, and from a checkpoint
_EPOCHS = re.compile(r"\s*(\d+(?:\.\d+)?) epochs?\s*")


def configuration(arguments: Mapping[str, Any], model_options: Mapping[str, Any]) -> Config:
    """Return the configuration of a classifier.

    Args:
      arguments: see `inference.classifier.classifier.Classifier`.
      model_options: fields of the model.
    """
    arguments, model_options = _plain(arguments), _plain(model_options)
    config, model = default_config(), arguments["model"]
    pretrained = is_checkpoint(model)
    config.model = ConfigDict({"checkpoint" if pretrained else "name": model, **model_options})
    config.duration, config.schedule.warmup = f"{arguments['epochs']} epochs", "10%"
    for name, key in KEYS.items():
        _set(config, key, arguments[name])
    for name, values in CHOSEN.items():
        given = arguments[name]
        config.optimizer[name] = values[pretrained] if given is None else given
    return config


def check_names(given: Iterable[str], arguments: Iterable[str]) -> None:
    """Raise `ConfigError` if one is neither an argument of a classifier nor a field of a model."""
    known = [*arguments, *option_defaults(), *CHECKPOINT_KEYS]
    for name in given:
        if name not in known:
            raise ConfigError(
                f"{name!r} is neither an argument of Classifier nor a model option.{nearest(name, known)}"
            )


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return values with NumPy's numbers, which searches over parameters draw, as Python's."""
    return {name: value.item() if isinstance(value, np.generic) else value for name, value in values.items()}


def arguments_of(config: Config) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the arguments that come closest to a configuration, and the options of its model."""
    flat = flatten(config)
    arguments = {name: flat[key] for name, key in KEYS.items() if key in flat}
    arguments |= {name: config.optimizer[name] for name in CHOSEN}
    arguments["model"] = config.model.get("checkpoint") or config.model.get("name", "")
    if epochs := _EPOCHS.fullmatch(str(config.duration)):
        arguments["epochs"] = float(epochs[1]) if "." in epochs[1] else int(epochs[1])
    options = config.model.to_dict()
    return arguments, {name: options[name] for name in options if name not in ("name", *CHECKPOINT_KEYS)}


def update(config: Config, before: Config, after: Config) -> None:
    """Change in a configuration what differs between two others; all else stays as somebody has set it."""
    old, new = flatten(before), flatten(after)
    for key in old.keys() - new.keys():
        *parents, last = key.split(".")
        section = config
        for parent in parents:
            section = section.get(parent, {})
        if last in section:
            del section[last]
    for key, value in new.items():
        if key not in old or old[key] != value:
            _set(config, key, value)


def _set(config: Config, key: str, value: Any) -> None:
    *parents, last = key.split(".")
    section = config
    for parent in parents:
        if parent not in section:
            section[parent] = ConfigDict(type_safe=False)
        section = section[parent]
    section[last] = value
