"""What a configuration may say about training a tokenizer; needs no jax, so mistakes are found at once."""

from dataclasses import dataclass

from vit_jax.errors import ConfigError
from vit_jax.objectives.option_checks import check_ranges


@dataclass(frozen=True)
class VqTokenizerOptions:
    """A vector-quantised autoencoder (van den Oord et al. 2017, arXiv 1711.00937), codes compared by cosine.

    Attributes:
      vocabulary: number of codes.
      code_width: width of a code.
      decoder_width, decoder_depth, decoder_heads: size of the decoder.
      commitment: weight of the distance between what is quantised and its code.
      decay: share of a code that stays when it follows what it was used for, in a step.
      revive_below: a code that is used less often, in shares of even use, becomes what some patch was; 0 revives none.
    """

    vocabulary: int = 8192
    code_width: int = 32
    decoder_width: int = 768
    decoder_depth: int = 3
    decoder_heads: int = 12
    commitment: float = 1.0
    decay: float = 0.99
    revive_below: float = 0.05

    def __post_init__(self) -> None:
        check_ranges(self, ("vocabulary",), 2, 2**24)
        check_ranges(self, ("code_width", "decoder_width", "decoder_depth", "decoder_heads"), 1, 2**20)
        check_ranges(self, ("decay", "revive_below"), 0, 1)
        check_ranges(self, ("commitment",), 0, 1e6)
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
