"""What a segmentation model with UPerNet's decoder is made of. Needs no jax."""

from dataclasses import dataclass

from vit_jax.errors import ConfigError
from vit_jax.models.encoder_config import check_at_least, check_parts, check_types
from vit_jax.models.vit_config import ViTConfig


@dataclass(frozen=True)
class UperNetConfig:
    """A Vision Transformer whose blocks give four maps to a decoder (Xiao et al. 2018, arXiv 1807.10221).

    Attributes:
      encoder: with pool and pool_norm `none`.
      num_classes: of a pixel.
      taps: how many blocks stand before each of the four maps; 0 takes the embedded patches.
      pool_scales: rows and columns of the grids that the last map is pooled to.
      auxiliary_channels: of a second, plain head on the third map, used in training; 0 for none.
      auxiliary_convs: convolutions of that head before its classes.
      auxiliary_concat: whether a further one sees the map itself too.
    """

    encoder: ViTConfig
    num_classes: int = 150
    taps: tuple[int, ...] = (2, 4, 6, 10)
    pool_scales: tuple[int, ...] = (1, 2, 3, 6)
    auxiliary_channels: int = 256
    auxiliary_convs: int = 1
    auxiliary_concat: bool = False

    def __post_init__(self) -> None:
        check_parts(self, encoder=ViTConfig)
        check_types(self)
        for field in ("taps", "pool_scales"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        check_at_least(self, 1, "num_classes", "pool_scales", "auxiliary_convs")
        check_at_least(self, 0, "taps", "auxiliary_channels")
        depth = self.encoder.depth
        if len(self.taps) != 4 or max(self.taps) > depth:
            raise ConfigError(f"taps is {self.taps}; it must be four numbers of blocks, 0 to {depth}.")
        for field in ("pool", "pool_norm"):
            if getattr(self.encoder, field) != "none":
                raise ConfigError(
                    f"the encoder of a segmentation model has {field} {getattr(self.encoder, field)!r}; it must be "
                    "'none'."
                )
        if min(self.encoder.grid) < 2:
            raise ConfigError(
                f"the encoder has a grid of {self.encoder.grid} patches; the decoder halves it and needs at least 2x2."
            )
