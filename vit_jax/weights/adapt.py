"""One model's parameters in another's: what may change, each family says itself, see `models.adaptation`."""

import dataclasses
import importlib
from collections.abc import Mapping
from typing import Any

from vit_jax.errors import ConfigError, argument
from vit_jax.models.adaptation import Adaptation, Change
from vit_jax.models.families import family_of, is_config
from vit_jax.models.layers.encoder_config import replace

# What may change in a model of which nothing else may: how it runs.
_RUNNING = ("dtype", "attention", "remat", "unroll")


def adaptation_of(config: Any) -> Adaptation | None:
    """Return what may change of a model, or None if nothing may but how it runs."""
    module, _, name = family_of(config).adaptation.partition(":")
    return getattr(importlib.import_module(module), name) if module else None


def adapted(config: Any, *, new_head: bool = False, **options: Any) -> Any:
    """Return the configuration of a checkpoint's model with other fields; None leaves one as it is.

    Args:
      config: the model in the file.
      new_head: whether the head is new though it has the file's size.
      **options: any field of the configuration.

    Raises:
      ConfigError: a value is not allowed, or cannot change in such a model.
    """
    asked = {name: value for name, value in options.items() if value is not None}
    adaptation = adaptation_of(config)
    return _running(config, asked) if adaptation is None else adaptation.adapted(config, asked, new_head)


def changes(config: Any, target: Any, patch_resample: str = "flexi") -> dict[str, Change]:
    """Return what must happen to parameters of one model in another, by path, and in words; see `Adaptation`."""
    adaptation = adaptation_of(config)
    return {} if adaptation is None else adaptation.changes(config, target, patch_resample)


def part_of(config: Any, part: str | None, classifier: bool) -> tuple[str, Any]:
    """Return the path and configuration of the part of a model that is wanted.

    Args:
      config: the model in the file.
      part: `image`, `text`, `encoder`, or None for the whole model.
      classifier: whether a head of classes, or none, is asked for; only the image tower or encoder has one.

    Raises:
      ConfigError: the model has no such part.
    """
    paths = family_of(config).parts
    towers: Mapping[str, Any] = {path: getattr(config, path) for path in paths.values() if path}
    if part is None and classifier:
        part = paths.get("image") or None
    if part is None:
        return "", config
    if part not in towers:
        allowed = ", ".join(towers) or "none"
        raise ConfigError(f"{argument('part')} is {part!r}; the checkpoint's model has the parts: {allowed}.")
    return f"{part}/", towers[part]


def _running(config: Any, asked: Mapping[str, Any]) -> Any:
    """Return a model, and what it is made of, with options that concern how it runs."""
    for name in asked:
        if name not in _RUNNING:
            raise ConfigError(
                f"{name} cannot change in a model of several parts; load one part, "
                f"{argument('part', 'image')}, 'text' or 'encoder'."
            )
    fields = [field.name for field in dataclasses.fields(config)]
    parts = {name: getattr(config, name) for name in fields}
    towers = {name: _running(part, asked) for name, part in parts.items() if is_config(part)}
    return replace(config, **towers, **({} if towers else asked))
