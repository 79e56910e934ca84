"""A pyramid that is put together and fused. Needs no jax."""

from dataclasses import dataclass
from typing import Any

from vit_jax.models.families import family_of
from vit_jax.models.heads.dpt.config import DptConfig
from vit_jax.objectives.option_checks import check_ranges, integers
from vit_jax.objectives.segmentation.heads.head import Head


@dataclass(frozen=True)
class DptHead(Head):
    """DPT's decoder (Ranftl et al. 2021, arXiv 2103.13413); more options are `Head`'s.

    Attributes:
      widths: channels of the four maps of the pyramid, the finest first.
      channels: of the fusion.
      readout: what becomes of the class token, `ignore`, `add` or `project`.
      auxiliary: whether a second head is used in training.
      auxiliary_weight: of its loss.
    """

    widths: tuple[int, ...] = (96, 192, 384, 768)
    channels: int = 256
    readout: str = "ignore"
    auxiliary: bool = True
    auxiliary_weight: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "widths", integers(self, "widths"))
        check_ranges(self, ("channels",), 2, 2**16)
        check_ranges(self, ("auxiliary_weight",), 0, 1000)

    @property
    def weights(self) -> tuple[float, ...]:
        """Of the second head, if there is one."""
        return (self.auxiliary_weight,) * self.auxiliary

    def network(self, encoder: Any, num_classes: int) -> DptConfig:
        """Return the configuration of a backbone with this head; of maps of one size, those after each quarter."""
        family = family_of(encoder)
        depth = family.depth(encoder)
        quarters = tuple(max(1, depth * quarter // 4) for quarter in (1, 2, 3, 4))
        return DptConfig(
            encoder,
            num_classes,
            taps=self.taps or (quarters if len(family.levels(encoder)) == 1 else ()),
            readout=self.readout,
            widths=self.widths,
            channels=self.channels,
            norm=self.norm,
            dropout_rate=self.dropout,
            auxiliary=self.auxiliary,
        )
