"""What a configuration may say about SimMIM; needs no jax, so mistakes are found at once."""

from dataclasses import dataclass

from vit_jax.errors import ConfigError
from vit_jax.objectives.option_checks import check_ranges


@dataclass(frozen=True)
class SimmimOptions:
    """SimMIM (Xie et al. 2021, arXiv 2111.09886).

    Attributes:
      mask_size: side in pixels of the squares that are hidden or not.
      mask_ratio: share of these squares that is hidden, rounded up.
    """

    mask_size: int = 32
    mask_ratio: float = 0.6

    def __post_init__(self) -> None:
        check_ranges(self, ("mask_size",), 1, 2**16)
        check_ranges(self, ("mask_ratio",), 0, 1)
        if not 0 < self.mask_ratio < 1:
            raise ConfigError(
                f"objective.mask_ratio is {self.mask_ratio}; it must be above 0 and below 1, so that something is "
                "hidden and something is seen."
            )
