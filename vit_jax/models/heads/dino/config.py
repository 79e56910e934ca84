"""What a projection head of DINO is made of. Needs no jax."""

from dataclasses import dataclass

from vit_jax.models.layers.encoder_config import check_at_least, check_types


@dataclass(frozen=True)
class DinoHeadConfig:
    """The projection head that self-distillation trains on a backbone (Caron et al. 2021, arXiv 2104.14294).

    Attributes:
      input_dim: width of the backbone's features.
      hidden_dim: of the two hidden layers.
      bottleneck_dim: of the normalised vector that is compared with the prototypes.
      output_dim: number of prototypes; DINO's classes without names.
      norm_last_layer: prototypes are directions without a length that is learned, so that scores are cosines.
    """

    input_dim: int = 384
    hidden_dim: int = 2048
    bottleneck_dim: int = 256
    output_dim: int = 65536
    norm_last_layer: bool = False

    def __post_init__(self) -> None:
        check_types(self)
        check_at_least(self, 1, "input_dim", "hidden_dim", "bottleneck_dim", "output_dim")
