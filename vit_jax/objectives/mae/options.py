"""What a configuration may say about masked autoencoding; needs no jax, so mistakes are found at once."""

from dataclasses import dataclass

from vit_jax.errors import ConfigError
from vit_jax.objectives.option_checks import check_ranges


@dataclass(frozen=True)
class MaeOptions:
    """Masked autoencoding (He et al. 2021, arXiv 2111.06377).

    Attributes:
      mask_ratio: share of patches hidden from the encoder.
      normalise_pixels: predict patches with their own mean and deviation removed.
      decoder_width, decoder_depth, decoder_heads, decoder_mlp_dim: size of the decoder; `decoder_mlp_dim` 0
        means four times the width.
    """

    mask_ratio: float = 0.75
    normalise_pixels: bool = True
    decoder_width: int = 512
    decoder_depth: int = 8
    decoder_heads: int = 16
    decoder_mlp_dim: int = 0

    def __post_init__(self) -> None:
        check_ranges(self, ("mask_ratio",), 0, 0.999)
        check_ranges(self, ("decoder_width", "decoder_depth", "decoder_heads"), 1, 2**20)
        check_ranges(self, ("decoder_mlp_dim",), 0, 2**20)
        if self.decoder_width % 4:
            raise ConfigError(
                f"objective.decoder_width is {self.decoder_width}; it must be a multiple of 4, for its position "
                "embeddings."
            )
        if self.decoder_width % self.decoder_heads:
            raise ConfigError(
                f"objective.decoder_heads is {self.decoder_heads}, which does not divide decoder_width "
                f"{self.decoder_width}; choose another."
            )
