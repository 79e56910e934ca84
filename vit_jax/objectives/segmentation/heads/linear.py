"""A norm and one dense layer. Needs no jax."""

from dataclasses import dataclass
from typing import Any

from vit_jax.models.heads.linear.config import LinearSegConfig
from vit_jax.objectives.option_checks import check_ranges
from vit_jax.objectives.segmentation.heads.head import Head


@dataclass(frozen=True)
class LinearHead(Head):
    """The head that DINOv2 (Oquab et al. 2023, arXiv 2304.07193) is judged with; more options are `Head`'s.

    Attributes:
      cells: rows and columns of logits for each place of the map.
      detail: whether logits of single pixels are added, from the convolutions before the patches.
    """

    cells: int = 1
    detail: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        check_ranges(self, ("cells",), 1, 64)

    def network(self, encoder: Any, num_classes: int) -> LinearSegConfig:
        """Return the configuration of a backbone with this head."""
        own: dict[str, Any] = dict(
            norm=self.norm, dropout_rate=self.dropout, cells=self.cells, detail=self.detail
        )
        return LinearSegConfig(encoder, num_classes, self.taps, **own)
