"""What a text encoder, and a pair of an image and a text encoder, is made of. Needs no jax."""

from dataclasses import dataclass

from vit_jax.errors import ConfigError, choose
from vit_jax.models.layers.encoder_config import EncoderConfig, check_at_least, check_parts, check_types
from vit_jax.models.vit.config import ViTConfig


@dataclass(frozen=True)
class TextConfig(EncoderConfig):
    """A transformer over text tokens, as in CLIP (Radford et al. 2021, arXiv 2103.00020) and SigLIP.

    Attributes:
      vocab_size: number of tokens there are.
      context_length: the most tokens a text has; positions are learned.
      causal: whether a token sees only those before it.
      pool: which token stands for the text: `eos` the first end token, `argmax` the highest token (OpenAI's code,
        where the end token is the highest), `first` or `last` the first or last position.
      eos_token: the end token, for pool `eos`.
      num_classes: width of the projection; 0 for none.
      head_bias: whether the projection has a bias.
    """

    width: int = 512
    heads: int = 8
    mlp_dim: int = 2048
    vocab_size: int = 49408
    context_length: int = 77
    causal: bool = True
    pool: str = "argmax"
    eos_token: int = 49407
    num_classes: int = 512
    head_bias: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        choose(self.pool, ("eos", "argmax", "last", "first"), "pool")
        check_at_least(self, 1, "vocab_size", "context_length")
        check_at_least(self, 0, "num_classes", "eos_token")
        if self.pool == "eos" and self.eos_token >= self.vocab_size:
            raise ConfigError(
                f"eos_token is {self.eos_token}, but the tokens are 0 to {self.vocab_size - 1}; choose one of them."
            )


@dataclass(frozen=True)
class ImageTextConfig:
    """Two towers that map images and texts to one space.

    Attributes:
      image: the image encoder; its output is the embedding.
      text: the text encoder; its output is the embedding.
      logit_bias: whether a learned bias is added to the scaled similarities (SigLIP).
    """

    image: ViTConfig
    text: TextConfig
    logit_bias: bool = False

    def __post_init__(self) -> None:
        check_parts(self, image=ViTConfig, text=TextConfig)
        check_types(self)
        if self.image.pool in ("patches", "none"):
            raise ConfigError(
                f"the image tower has pool {self.image.pool!r}; choose one with one vector per image, 'cls' or 'map'."
            )
        sizes = [self.image.output_width, self.text.num_classes or self.text.width]
        if sizes[0] != sizes[1]:
            raise ConfigError(
                f"the image tower gives {sizes[0]} features and the text tower {sizes[1]}; they must be equal."
            )
