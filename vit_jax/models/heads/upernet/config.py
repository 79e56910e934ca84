"""What a segmentation model with UPerNet's decoder is made of. Needs no jax."""

from dataclasses import dataclass
from typing import Any

from vit_jax.errors import ConfigError, choose
from vit_jax.models.families import family_of
from vit_jax.models.family import Level
from vit_jax.models.heads.levels import tapped_levels
from vit_jax.models.heads.linear.config import NORMS
from vit_jax.models.layers.encoder_config import check_at_least, check_rates, check_types


@dataclass(frozen=True)
class UperNetConfig:
    """A backbone whose maps a pyramid decoder joins (Xiao et al. 2018, arXiv 1807.10221).

    Of a backbone with maps of one size, such as ViT, four maps become a pyramid first, as in BEiT (Bao et al. 2021,
    arXiv 2106.08254).

    Attributes:
      encoder: of images.
      num_classes: of a pixel.
      taps: the maps that are taken, see `models.heads.levels`; four where all are of one size.
      pool_scales: rows and columns of the grids that the last map is pooled to.
      channels: of the decoder; 0 for those of the last map.
      norm: after the decoder's convolutions, `batch` or `layer`.
      dropout_rate: of channels, before the classes.
      auxiliary_channels: of a second, plain head on the last map but one, used in training; 0 for none.
      auxiliary_convs: convolutions of that head before its classes.
      auxiliary_concat: whether a further one sees the map itself too.
    """

    encoder: Any
    num_classes: int = 150
    taps: tuple[int, ...] = (2, 4, 6, 10)
    pool_scales: tuple[int, ...] = (1, 2, 3, 6)
    channels: int = 0
    norm: str = "batch"
    dropout_rate: float = 0.0
    auxiliary_channels: int = 256
    auxiliary_convs: int = 1
    auxiliary_concat: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        for field in ("taps", "pool_scales"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        check_at_least(self, 1, "num_classes", "pool_scales", "auxiliary_convs")
        check_at_least(self, 0, "taps", "auxiliary_channels", "channels")
        check_rates(self, "dropout_rate")
        choose(self.norm, NORMS, "norm")
        levels = self.levels
        if not self.has_neck and len({level.stride for level in levels}) < len(levels):
            raise ConfigError(
                f"taps is {self.taps}; the maps must all differ in size, or all four have the same size."
            )
        if self.has_neck and len(levels) != 4:
            depth = family_of(self.encoder).depth(self.encoder)
            raise ConfigError(f"taps is {self.taps}; it must be four numbers of blocks, 0 to {depth}.")
        if self.has_neck and min(levels[0].grid) < 2:
            raise ConfigError(
                f"the encoder has a grid of {levels[0].grid} patches; the decoder halves it and needs at least 2x2."
            )

    @property
    def levels(self) -> tuple[Level, ...]:
        """The maps that are taken."""
        return tapped_levels(self.encoder, self.taps)

    @property
    def has_neck(self) -> bool:
        """Whether the maps are of one size and must become a pyramid."""
        return len({level.stride for level in self.levels}) == 1

    @property
    def width(self) -> int:
        """Channels of the decoder."""
        return self.channels or self.levels[-1].channels
