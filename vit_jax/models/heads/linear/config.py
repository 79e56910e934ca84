"""What a segmentation model with a linear head is made of. Needs no jax."""

from dataclasses import dataclass
from typing import Any

from vit_jax.errors import ConfigError, choose
from vit_jax.models.families import family_of
from vit_jax.models.family import Level
from vit_jax.models.heads.levels import tapped_levels
from vit_jax.models.layers.encoder_config import check_at_least, check_rates, check_types

NORMS = ("batch", "layer")


@dataclass(frozen=True)
class LinearSegConfig:
    """A backbone, a norm and one dense layer for each place of its map, as DINOv2 and DINOv3 are judged by.

    Attributes:
      encoder: of images.
      num_classes: of a pixel.
      taps: the maps that are taken, side by side, see `models.heads.levels`; empty for the encoder's output.
      norm: `batch` or `layer`.
      dropout_rate: of channels, before the dense layer.
      cells: each place of the map gives the logits of so many rows and columns; 1 in the papers. Fine shapes need more.
      detail: whether logits of single pixels are added, from the convolutions before a backbone's patches.
    """

    encoder: Any
    num_classes: int = 150
    taps: tuple[int, ...] = ()
    norm: str = "batch"
    dropout_rate: float = 0.1
    cells: int = 1
    detail: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        object.__setattr__(self, "taps", tuple(self.taps))
        check_at_least(self, 1, "num_classes", "cells")
        check_rates(self, "dropout_rate")
        choose(self.norm, NORMS, "norm")
        tapped_levels(self.encoder, self.taps)
        if self.detail and self.detail_level is None:
            raise ConfigError(
                "detail is True, but the backbone has no convolutions of single pixels before its patches; set detail "
                "to False, or choose a backbone with a stem whose first stride is 1, such as model.stem=(16,)."
            )

    @property
    def levels(self) -> tuple[Level, ...]:
        """The maps that are taken; the largest gives the size."""
        return tapped_levels(self.encoder, self.taps) if self.taps else tapped_levels(self.encoder, ())[-1:]

    @property
    def detail_level(self) -> Level | None:
        """The map of single pixels; None where there is none."""
        return family_of(self.encoder).detail(self.encoder)
