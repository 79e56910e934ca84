"""What a configuration may say about BEiT; needs no jax, so mistakes are found at once."""

from dataclasses import dataclass

from vit_jax.errors import ConfigError


@dataclass(frozen=True)
class BeitOptions:
    """BEiT (Bao et al. 2021, arXiv 2106.08254).

    Attributes:
      tokenizer: the frozen tokenizer: the workdir of a run of `vq_tokenizer`, or the encoder of DALL-E.
    """

    tokenizer: str = ""

    def __post_init__(self) -> None:
        if not isinstance(self.tokenizer, str) or not self.tokenizer:
            raise ConfigError(
                f"objective.tokenizer is {self.tokenizer!r}; BEiT predicts the codes of a frozen tokenizer: name the "
                "workdir of a run with configs/vq_tokenizer_digits.py or your own, or the file encoder.pkl of DALL-E."
            )
