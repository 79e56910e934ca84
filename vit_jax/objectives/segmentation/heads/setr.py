"""SETR's three decoders. Needs no jax."""

from dataclasses import dataclass
from typing import Any, ClassVar

from vit_jax.models.families import family_of
from vit_jax.models.heads.setr.config import SetrConfig
from vit_jax.objectives.option_checks import check_ranges
from vit_jax.objectives.segmentation.heads.head import Head


@dataclass(frozen=True)
class SetrHead(Head):
    """A decoder of SETR (Zheng et al. 2020, arXiv 2012.15840); more options are `Head`'s.

    Attributes:
      channels: of its convolutions.
      auxiliary: whether further heads on earlier maps are used in training.
      auxiliary_weight: of the loss of each.
    """

    parts: ClassVar[tuple[int, ...]] = (10, 15, 20, 24)  # of 24 blocks, after how many maps are taken
    further: ClassVar[tuple[int, ...]] = (0, 1, 2)  # numbers of the maps that have a head of their own

    dropout: float = 0.0
    channels: int = 256
    auxiliary: bool = True
    auxiliary_weight: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, ("channels",), 1, 2**16)
        check_ranges(self, ("auxiliary_weight",), 0, 1000)

    @property
    def weights(self) -> tuple[float, ...]:
        """Of the further heads, all the same."""
        return (self.auxiliary_weight,) * len(self.further) * self.auxiliary

    def decoder(self) -> dict[str, Any]:
        """Return what this decoder is made of: fields of `SetrConfig` that are not its defaults."""
        return {}

    def network(self, encoder: Any, num_classes: int) -> SetrConfig:
        """Return the configuration of a backbone with this head.

        Raises:
          ConfigError: there are not as many maps as it takes.
        """
        family = family_of(encoder)
        depth = family.depth(encoder)
        spread = tuple(max(1, round(depth * part / 24)) for part in self.parts)
        count = len(family.levels(encoder))
        taps = self.taps or (spread if count == 1 else tuple(range(count)))
        return SetrConfig(
            encoder,
            num_classes,
            taps,
            channels=self.channels,
            norm=self.norm,
            dropout_rate=self.dropout,
            auxiliary=self.further if self.auxiliary else (),
            **self.decoder(),
        )


@dataclass(frozen=True)
class SetrNaive(SetrHead):
    """One convolution of single places on the last map."""


@dataclass(frozen=True)
class SetrPup(SetrHead):
    """Four convolutions on the last map, each of which doubles its size."""

    further: ClassVar[tuple[int, ...]] = (0, 1, 2, 3)

    def decoder(self) -> dict[str, Any]:
        """Return what this decoder is made of."""
        return dict(convs=4, kernel=3, scale=2)


@dataclass(frozen=True)
class SetrMla(SetrHead):
    """Maps of one size, added up from the last to the first.

    Attributes:
      branch_channels: of each map's own branch.
    """

    parts: ClassVar[tuple[int, ...]] = (6, 12, 18, 24)
    further: ClassVar[tuple[int, ...]] = (0, 1, 2, 3)
    branch_channels: int = 128

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, ("branch_channels",), 1, 2**16)

    def decoder(self) -> dict[str, Any]:
        """Return what this decoder is made of."""
        return dict(decoder="mla", branch_channels=self.branch_channels)
