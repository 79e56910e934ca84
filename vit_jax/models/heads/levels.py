"""Which maps of a backbone a dense head stands on. Needs no jax."""

from typing import Any

from vit_jax.errors import ConfigError
from vit_jax.models.families import family_of
from vit_jax.models.family import Level
from vit_jax.models.maps import named_levels


def tapped_levels(encoder: Any, taps: tuple[int, ...]) -> tuple[Level, ...]:
    """Return the levels of an image encoder that a head takes.

    Args:
      encoder: configuration of a model.
      taps: of an encoder with maps of several sizes their numbers, the largest is 0; of one whose maps are all alike,
        how many blocks stand before each, 0 for the embedded patches. Empty for all sizes, the output of the encoder.

    Raises:
      ConfigError: the encoder has no such level.
    """
    levels, depth = named_levels(encoder), family_of(encoder).depth(encoder)
    if not taps:
        return levels
    last, what = (depth, "numbers of blocks") if len(levels) == 1 else (len(levels) - 1, "numbers of maps")
    for tap in taps:
        if not 0 <= tap <= last:
            raise ConfigError(f"taps is {taps}; it must be {what}, 0 to {last}.")
    if len(levels) > 1:
        return tuple(levels[tap] for tap in taps)
    names = (f"blocks/{tap - 1}" if tap else "embedded" for tap in taps)
    return tuple(level for name in names for level in named_levels(encoder, name))  # one may be taken twice
