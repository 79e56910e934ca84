"""The table of families: who adds one adds a folder and a line here. Needs no jax; families are imported when asked."""

import dataclasses
import importlib
from collections.abc import Iterator
from typing import Any

from vit_jax.errors import ConfigError
from vit_jax.models.family import KERNELS, Config, Family, Kernel

FAMILIES: dict[str, str | Family] = {
    "vit": "vit_jax.models.vit.family:FAMILY",
    "hiera": "vit_jax.models.hiera.family:FAMILY",
    "hiera_mae": "vit_jax.models.hiera.mae_family:FAMILY",
    "mae": "vit_jax.models.mae.family:FAMILY",
    "swin": "vit_jax.models.swin.family:FAMILY",
    "text": "vit_jax.models.text.family:TEXT",
    "image_text": "vit_jax.models.text.family:PAIR",
    "cvt": "vit_jax.models.cvt.family:FAMILY",
    "resnet": "vit_jax.models.resnet.family:FAMILY",
    "mvit": "vit_jax.models.mvit.family:FAMILY",
    "pyramid": "vit_jax.models.pyramid.family:FAMILY",
    "dino_head": "vit_jax.models.heads.dino.family:FAMILY",
    "vq_tokenizer": "vit_jax.models.tokenizers.vq_family:FAMILY",
    "dalle_encoder": "vit_jax.models.tokenizers.dalle_family:FAMILY",
    "dpt": "vit_jax.models.heads.dpt.family:FAMILY",
    "setr": "vit_jax.models.heads.setr.family:FAMILY",
    "upernet": "vit_jax.models.heads.upernet.family:FAMILY",
    "linear_segmenter": "vit_jax.models.heads.linear.family:FAMILY",
}


def register(family: Family) -> None:
    """Add a family that is defined outside of the library.

    Raises:
      ConfigError: its name or its configuration is another family's.
    """
    for other in families():
        if other != family and (other.name == family.name or other.config is family.config):
            raise ConfigError(
                f"family {family.name!r} of {family.config.__name__} is {other.name!r} of {other.config.__name__} "
                "already; choose another name and another configuration."
            )
    FAMILIES[family.name] = family


def families() -> Iterator[Family]:
    """Yield every family."""
    for name in FAMILIES:
        yield family_named(name)


def family_named(name: str) -> Family:
    """Return the family of a tag.

    Raises:
      ConfigError: there is none.
    """
    entry = FAMILIES.get(name)
    if isinstance(entry, Family):
        return entry
    if entry is None:
        raise ConfigError(
            f"family {name!r} is not known; known are {', '.join(FAMILIES)}. Register your own with "
            "vit_jax.models.families.register first."
        )
    module, _, attribute = entry.partition(":")
    return getattr(importlib.import_module(module), attribute)


def family_of(config: Config) -> Family:
    """Return the family of a configuration.

    Raises:
      ConfigError: it is of none.
    """
    found = next((family for family in families() if family.config is type(config)), None)
    if found is None:
        raise ConfigError(
            f"{type(config).__name__} is not the configuration of a known family; known are {', '.join(FAMILIES)}."
        )
    return found


def is_config(value: Any) -> bool:
    """Return whether something is the configuration of a model."""
    return dataclasses.is_dataclass(value) and any(family.config is type(value) for family in families())


def part_config(config: Config, part: str) -> Config | None:
    """Return the configuration of the encoder of `image` or `text` in a model; None where it has none."""
    path = family_of(config).parts.get(part)
    return None if path is None else getattr(config, path) if path else config


def image_config(config: Config) -> Config:
    """Return the configuration of the part of a model that sees images.

    Raises:
      ConfigError: no part does.
    """
    found = part_config(config, "image")
    if found is None:
        raise ConfigError(f"a model of family {family_of(config).name!r} does not take images.")
    return found


def is_image_encoder(config: Config) -> bool:
    """Return whether a model is one image encoder and nothing beside."""
    return family_of(config).parts == {"image": ""}


def image_encoders() -> list[Family]:
    """Return the families whose models are one image encoder."""
    return [family for family in families() if family.parts == {"image": ""}]


def option_defaults() -> dict[str, Any]:
    """Return the options of image encoders by name, and the default of each; where several have one, the first's."""
    found: dict[str, Any] = {}
    for family in reversed(image_encoders()):
        found |= {field.name: field.default for field in dataclasses.fields(family.config)}
    return found


def sharding_rules(config: Config | None) -> tuple[tuple[str, str], ...]:
    """Return the families' own rules of how the parameters of a model, and of models in it, lie on a mesh.

    Args:
      config: the model; None or anything else that is of no family has none.
    """
    if config is None or not is_config(config):
        return ()
    values = (getattr(config, field.name) for field in dataclasses.fields(config))
    inner = (rule for value in values if is_config(value) for rule in sharding_rules(value))
    return tuple(dict.fromkeys((*family_of(config).rules, *inner)))


def kernels() -> dict[str, Kernel]:
    """Return the kernels of stacked blocks, by path within a block: those that all share, and those of families."""
    return {**KERNELS, **{path: kernel for family in families() for path, kernel in family.kernels.items()}}
