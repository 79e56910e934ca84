"""What a segmentation model with one of SETR's decoders is made of. Needs no jax."""

from dataclasses import dataclass
from typing import Any

from vit_jax.errors import ConfigError, choose
from vit_jax.models.family import Level
from vit_jax.models.heads.levels import tapped_levels
from vit_jax.models.heads.linear.config import NORMS
from vit_jax.models.layers.encoder_config import check_at_least, check_rates, check_types

DECODERS = ("up", "mla")


@dataclass(frozen=True)
class SetrConfig:
    """A backbone whose maps are convolved and enlarged (Zheng et al. 2020, arXiv 2012.15840), as mmsegmentation has it.

    Attributes:
      encoder: of images.
      num_classes: of a pixel.
      taps: the maps that are taken, see `models.heads.levels`.
      decoder: `up`, one chain of convolutions, each followed by enlarging, on the last map (naive, PUP); or `mla`, in
        which all maps are added up from the last to the first.
      channels: of convolutions.
      convs, kernel, scale: of `up`, how many convolutions, their size, and how much larger the map is after each.
      branch_channels: of `mla`, in each map's own branch.
      norm: after convolutions, `batch` or `layer`.
      dropout_rate: of channels, before the classes.
      auxiliary: numbers of the maps on which further heads stand, used in training alone: of `up`, one convolution and
        four times the size; of `mla`, a dense layer on the sums.
    """

    encoder: Any
    num_classes: int = 150
    taps: tuple[int, ...] = ()
    decoder: str = "up"
    channels: int = 256
    convs: int = 1
    kernel: int = 1
    scale: int = 4
    branch_channels: int = 128
    norm: str = "batch"
    dropout_rate: float = 0.0
    auxiliary: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        check_types(self)
        for field in ("taps", "auxiliary"):
            object.__setattr__(self, field, tuple(getattr(self, field)))
        choose(self.decoder, DECODERS, "decoder")
        choose(self.norm, NORMS, "norm")
        names = ("num_classes", "channels", "convs", "kernel", "scale", "branch_channels")
        check_at_least(self, 1, *names)
        check_rates(self, "dropout_rate")
        if self.kernel % 2 == 0:
            raise ConfigError(f"kernel is {self.kernel}; it must be odd, so that maps keep their size.")
        count = len(self.levels)
        for number in self.auxiliary:
            if not 0 <= number < count:
                raise ConfigError(
                    f"auxiliary is {self.auxiliary}; it must be numbers of the {count} maps, from 0."
                )
        if self.decoder == "mla" and len({level.grid for level in self.levels}) > 1:
            raise ConfigError(
                "decoder 'mla' adds maps up, which must be of one size; choose another backbone, taps of one size, or "
                "decoder 'up'."
            )

    @property
    def levels(self) -> tuple[Level, ...]:
        """The maps that are taken."""
        return tapped_levels(self.encoder, self.taps) if self.taps else tapped_levels(self.encoder, ())[-1:]
