"""A model's configuration as JSON, and back. Needs no jax."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vit_jax.errors import ConfigError
from vit_jax.models.dino_head_config import DinoHeadConfig
from vit_jax.models.encoder_config import replace
from vit_jax.models.text_config import ImageTextConfig, TextConfig
from vit_jax.models.upernet_config import UperNetConfig
from vit_jax.models.vit_config import MaeConfig, ViTConfig


def config_to_json(config: Any) -> dict[str, Any]:
    """Return every field of a configuration but the compute dtype, which is the choice of the devices at hand."""
    fields = dataclasses.asdict(config)
    for part in (fields, *(value for value in fields.values() if isinstance(value, dict))):
        part.pop("dtype", None)
    return fields


def config_from_json(fields: Mapping[str, Any]) -> Any:
    """Return the configuration that `config_to_json` was given.

    Raises:
      ConfigError: a field is unknown or its value is not allowed.
    """
    if "encoder" in fields and "decoder" in fields:
        return MaeConfig(_one(ViTConfig, fields["encoder"]), _one(ViTConfig, fields["decoder"]))
    if "image" in fields and "text" in fields:
        bias = bool(fields.get("logit_bias", False))
        return ImageTextConfig(_one(ViTConfig, fields["image"]), _one(TextConfig, fields["text"]), bias)
    if "encoder" in fields and "taps" in fields:
        others = {name: _tuples(value) for name, value in fields.items() if name != "encoder"}
        encoder = _one(ViTConfig, fields["encoder"])
        return replace(UperNetConfig(encoder, taps=others["taps"]), **others)
    if "bottleneck_dim" in fields:
        return _one(DinoHeadConfig, fields)
    return _one(TextConfig if "vocab_size" in fields else ViTConfig, fields)


def _one(kind: Any, fields: Any) -> Any:
    if not isinstance(fields, Mapping):
        raise ConfigError(f"a model's configuration is {fields!r}; it must be its fields by name.")
    return replace(kind(), **{name: _tuples(value) for name, value in fields.items()})


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value
