"""What a vector-quantised tokenizer is made of. Needs no jax."""

from dataclasses import dataclass

from vit_jax.errors import ConfigError
from vit_jax.models.layers.encoder_config import check_at_least, check_parts
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.vit import arithmetic as vit
from vit_jax.models.vit.config import ViTConfig


@dataclass(frozen=True)
class VqTokenizerConfig:
    """A vector-quantised autoencoder of plain ViTs (Yu et al. 2021, arXiv 2110.04627), codes compared by cosine.

    Attributes:
      encoder: takes images and has no token but the patches.
      decoder: makes pixels of the patches' codes, on the same grid.
      vocabulary: number of codes.
      code_width: width of a code.
    """

    encoder: ViTConfig
    decoder: ViTConfig
    vocabulary: int = 8192
    code_width: int = 32

    def __post_init__(self) -> None:
        check_parts(self, encoder=ViTConfig, decoder=ViTConfig)
        check_at_least(self, 2, "vocabulary")
        check_at_least(self, 1, "code_width")
        if self.encoder.prefix_tokens or self.encoder.grid != self.decoder.grid:
            raise ConfigError(
                "the encoder of a tokenizer must have no token but the patches, and its decoder the same patches."
            )

    @property
    def image_size(self) -> tuple[int, int]:
        """Height and width of the images that it takes."""
        return self.encoder.image_size

    @property
    def in_channels(self) -> int:
        """Channels of these."""
        return self.encoder.in_channels

    @property
    def stride(self) -> tuple[int, int]:
        """Height and width of the pixels that have a code."""
        return self.encoder.token_stride

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become inputs."""
        return self.encoder.preprocessing

    @property
    def dtype(self) -> str:
        """What it computes in."""
        return self.encoder.dtype

    def code_macs(self, codes: int) -> int:
        """Return the multiply-adds of an image that has so many codes."""
        return vit.macs(self.encoder) + codes * self.code_width * (self.encoder.width + self.vocabulary)
