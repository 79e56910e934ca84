"""A pyramid decoder, and a plain one beside. Needs no jax."""

from dataclasses import dataclass
from typing import Any

from vit_jax.models.families import family_of
from vit_jax.models.heads.upernet.config import UperNetConfig
from vit_jax.objectives.option_checks import check_ranges
from vit_jax.objectives.segmentation.heads.head import Head


@dataclass(frozen=True)
class UperNetHead(Head):
    """UPerNet (Xiao et al. 2018, arXiv 1807.10221); more options are `Head`'s.

    Attributes:
      channels: of the decoder; 0 for those of the last map.
      auxiliary_channels: of a second head, used in training alone; 0 for none.
      auxiliary_weight: of its loss.
    """

    channels: int = 512
    auxiliary_channels: int = 256
    auxiliary_weight: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, ("channels", "auxiliary_channels"), 0, 2**16)
        check_ranges(self, ("auxiliary_weight",), 0, 1000)

    @property
    def weights(self) -> tuple[float, ...]:
        """Of the second head, if there is one."""
        return (self.auxiliary_weight,) if self.auxiliary_channels else ()

    def network(self, encoder: Any, num_classes: int) -> UperNetConfig:
        """Return the configuration of a backbone with this head; of maps of one size, those after each quarter."""
        family = family_of(encoder)
        depth = family.depth(encoder)
        quarters = tuple(depth * quarter // 4 for quarter in (1, 2, 3, 4))
        return UperNetConfig(
            encoder,
            num_classes,
            self.taps or (quarters if len(family.levels(encoder)) == 1 else ()),
            channels=self.channels,
            norm=self.norm,
            dropout_rate=self.dropout,
            auxiliary_channels=self.auxiliary_channels,
        )
