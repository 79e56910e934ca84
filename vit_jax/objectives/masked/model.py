"""Models that take masks: a learned token stands in for patches, and each place of the last map has outputs."""

import math
from typing import Any

from vit_jax.errors import ConfigError
from vit_jax.models.families import families, family_of
from vit_jax.models.family import Level

# What leaves a model with other patches than those that were masked.
_WHOLE = {"patch_drop_rate": 0, "merge_tokens": (), "patch_sizes": ()}


def masked_model(model: Any, whose: str, outputs: int = 0) -> Any:
    """Return the configuration of a model that takes masks and has so many outputs at each place of its last map.

    Args:
      model: the configuration of an image encoder.
      whose: what trains it, for messages.
      outputs: how many; 0 for the pixels that the place covers, in all channels.

    Raises:
      ConfigError: its family has no mask token, or patches would be left out or merged.
    """
    family = family_of(model)
    if family.masked is None:
        able = ", ".join(other.name for other in families() if other.masked)
        raise ConfigError(
            f"a model of family {family.name!r} has no mask token, which {whose} needs; choose one of {able}, or "
            "another objective."
        )
    for field, value in _WHOLE.items():
        if (found := getattr(model, field, value)) != value:
            raise ConfigError(f"model.{field} is {found}, but {whose} needs every patch; leave it out.")
    return family.masked(model, outputs or math.prod(last_level(model).stride) * model.in_channels)


def last_level(model: Any) -> Level:
    """Return the map whose places have the outputs of `masked_model`."""
    return family_of(model).levels(model)[-1]


def patchwise_model(model: Any, whose: str) -> Any:
    """Return the configuration of a model's encoder that takes any patches and has no other token.

    Args:
      model: the configuration of an image encoder.
      whose: what trains it, for messages.

    Raises:
      ConfigError: there is none.
    """
    family = family_of(model)
    if family.patchwise is None:
        able = ", ".join(other.name for other in families() if other.patchwise)
        raise ConfigError(
            f"a model of family {family.name!r} does not take single patches, which the encoder of {whose} must; "
            f"choose one of {able}, or another objective."
        )
    return family.patchwise(model)
