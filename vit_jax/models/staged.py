"""What image encoders that work in stages have in common: fields, and the blocks of one stage. Needs no jax."""

from dataclasses import dataclass, fields
from typing import Any

from vit_jax.errors import ConfigError, choose
from vit_jax.models.layers.encoder_config import (
    CHOICES,
    EncoderConfig,
    check_at_least,
    check_rates,
    check_types,
)
from vit_jax.models.layers.pixels.sizes import pair
from vit_jax.models.preprocessing import IMAGENET, Preprocessing, as_preprocessing
from vit_jax.models.problem import PROBLEMS

# Fields that the blocks of every stage share.
_SHARED = (
    "qkv_bias", "activation", "norm_epsilon", "dropout_rate", "attention_dropout_rate", "dtype", "attention", "remat",
    "unroll",
)  # fmt: skip


@dataclass(frozen=True)
class StagedConfig:
    """An image encoder whose stages have ever fewer places and more channels.

    Attributes:
      image_size: height and width in pixels.
      in_channels: channels of the input images.
      num_classes: size of the head; 0 for none.
      problem: what the outputs mean, see `ViTConfig`.
      depths: blocks of each stage.
      head_dim: width `k` of an attention head, the same in all stages; a stage has as many as its width takes.
      mlp_ratio: hidden units of an MLP for each of its inputs.
      qkv_bias, activation, norm_epsilon, dropout_rate, attention_dropout_rate, dtype, attention, remat, unroll: of all
        blocks, see `EncoderConfig`.
      drop_path_rate: stochastic depth of the last block (Huang et al. 2016, arXiv 1603.09382).
      preprocessing: how images become inputs; travels with the weights.
    """

    image_size: tuple[int, int] = (224, 224)
    in_channels: int = 3
    num_classes: int = 1000
    problem: str = "single_label"
    depths: tuple[int, ...] = (1, 2, 10)
    head_dim: int = 64
    mlp_ratio: float = 4.0
    qkv_bias: bool = True
    activation: str = "gelu"
    norm_epsilon: float = 1e-6
    dropout_rate: float = 0.0
    attention_dropout_rate: float = 0.0
    drop_path_rate: float = 0.0
    dtype: str = "float32"
    attention: str = "auto"
    remat: str = "none"
    unroll: int = 0
    preprocessing: Preprocessing = IMAGENET

    def __post_init__(self) -> None:
        object.__setattr__(self, "image_size", pair(self.image_size, "image_size"))
        object.__setattr__(self, "preprocessing", as_preprocessing(self.preprocessing))
        check_types(self)
        for field in fields(self):
            if isinstance(getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(getattr(self, field.name)))
            if field.name in CHOICES:
                choose(getattr(self, field.name), CHOICES[field.name], field.name)
        choose(self.problem, PROBLEMS, "problem")
        if self.num_classes == 1 and self.problem == "single_label":
            object.__setattr__(self, "problem", "multi_label")
        if not self.depths:
            raise ConfigError(
                "depths is (); it must be a number of blocks for each stage, such as (1, 2, 10)."
            )
        check_at_least(self, 1, "in_channels", "depths", "head_dim")
        check_at_least(self, 0, "num_classes", "unroll")
        check_rates(self, "dropout_rate", "attention_dropout_rate", "drop_path_rate")
        for field in ("norm_epsilon", "mlp_ratio"):
            if not getattr(self, field) > 0:
                raise ConfigError(f"{field} is {getattr(self, field)}; it must be above 0.")

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of an image: height, width, channels."""
        return *self.image_size, self.in_channels

    def blocks(self, width: int, depth: int, **changes: Any) -> EncoderConfig:
        """Return what blocks of a width are made of."""
        shared = {name: getattr(self, name) for name in _SHARED}
        changes = {"mlp_dim": int(width * self.mlp_ratio), "init": "trunc_normal", **changes}
        return EncoderConfig(width=width, depth=depth, heads=width // self.head_dim, **shared, **changes)


def stage_names(config: Any) -> tuple[str, ...]:
    """Return the names of all stages' maps, in order."""
    return tuple(f"stages/{index}" for index in range(len(config.depths)))


def check_stages(config: StagedConfig, count: int, *names: str) -> None:
    """Raise ConfigError unless each field has a number for each stage."""
    for name in names:
        if len(getattr(config, name)) != count:
            raise ConfigError(f"{name} is {getattr(config, name)}; it must be {count} numbers, one a stage.")


def check_heads(config: StagedConfig, *widths: int) -> None:
    """Raise ConfigError unless whole heads fill each width."""
    for width in widths:
        if width % config.head_dim:
            raise ConfigError(
                f"head_dim is {config.head_dim}, which does not divide width {width}; choose another."
            )
