"""A model's configuration as JSON, and back. Needs no jax."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from vit_jax.errors import ConfigError
from vit_jax.models.families import family_named, family_of, is_config
from vit_jax.models.layers.encoder_config import check_options

TAG = "family"


def config_to_json(config: Any) -> dict[str, Any]:
    """Return the family of a configuration and every field but the compute dtype, the choice of the devices at hand."""
    fields: dict[str, Any] = {TAG: family_of(config).name}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if field.name != "dtype":
            fields[field.name] = config_to_json(value) if is_config(value) else _plain(value)
    return fields


def config_from_json(fields: Mapping[str, Any]) -> Any:
    """Return the configuration that `config_to_json` was given, also before it said the family.

    Raises:
      ConfigError: the family or a field is unknown, or its value is not allowed.
    """
    values = {name: _value(value) for name, value in fields.items() if name != TAG}
    if TAG in fields:
        family = family_named(str(fields[TAG]))
    else:
        family, parts = _untagged(fields)
        values |= {name: _old_part(part, fields[name]) for name, part in parts.items()}
    check_options(family.config, values)
    try:
        return family.config(**values)
    except TypeError as error:  # a part that has no default
        raise ConfigError(
            f"the configuration of a model of family {family.name!r} is incomplete: {error}."
        ) from None


# Of files that do not say the family: fields that only one has, and its parts. A list of what there was; it is closed.
_UNTAGGED = (
    (("encoder", "decoder"), "mae", {"encoder": "vit", "decoder": "vit"}),
    (("image", "text"), "image_text", {"image": "vit", "text": "text"}),
    (("encoder", "taps"), "upernet", {"encoder": "vit"}),
    (("bottleneck_dim",), "dino_head", {}),
    (("vocab_size",), "text", {}),
    ((), "vit", {}),
)


def _untagged(fields: Mapping[str, Any]) -> tuple[Any, dict[str, str]]:
    name, parts = next((name, parts) for own, name, parts in _UNTAGGED if fields.keys() >= set(own))
    return family_named(name), parts


def _old_part(family: str, fields: Any) -> Any:
    if not isinstance(fields, Mapping):
        raise ConfigError(f"a model's configuration is {fields!r}; it must be an object of its fields.")
    return config_from_json({TAG: family, **fields})


def _value(value: Any) -> Any:
    if isinstance(value, Mapping):
        return config_from_json(value) if TAG in value else dict(value)
    return tuple(map(_value, value)) if isinstance(value, list) else value


def _plain(value: Any) -> Any:
    return (
        dataclasses.asdict(value)
        if dataclasses.is_dataclass(value) and not isinstance(value, type)
        else value
    )
