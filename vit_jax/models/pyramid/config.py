"""What an image encoder that gives maps of features is made of. Needs no jax."""

from dataclasses import dataclass
from typing import Any

from vit_jax.models.family import Level
from vit_jax.models.maps import Chosen, named_levels


@dataclass(frozen=True)
class PyramidConfig:
    """An encoder of images, and which of its maps are the output.

    Attributes:
      encoder: of images.
      levels: names of the maps, see `named_levels`.
    """

    encoder: Any
    levels: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "levels", tuple(level.name for level in self.maps))

    @classmethod
    def of(cls, encoder: Any, levels: Chosen, resample: bool = False) -> "PyramidConfig":
        """Return the configuration for levels as they are asked for, see `named_levels`.

        Raises:
          ConfigError: there are no such levels.
        """
        return cls(encoder, tuple(level.name for level in named_levels(encoder, levels, resample)))

    @property
    def maps(self) -> tuple[Level, ...]:
        """What is known of the maps before they are computed."""
        return named_levels(self.encoder, self.levels)
