"""DALL-E's tokenizer as a family. Needs no jax."""

from vit_jax.models.family import Family
from vit_jax.models.tokenizers.dalle_config import DalleEncoderConfig


def _parameters(config: DalleEncoderConfig) -> int:
    return sum(side * side * inputs * outputs + outputs for side, inputs, outputs in config.kernels)


def _macs(config: DalleEncoderConfig, visible: float | None = 1.0) -> int:
    """Return the multiply-adds of an image of 112 pixels, which ViTs of 14x14 patches need."""
    return config.code_macs(14 * 14)


FAMILY = Family(
    name="dalle_encoder",
    config=DalleEncoderConfig,
    module="vit_jax.models.tokenizers.dalle:DalleEncoder",
    macs=_macs,
    parameters=_parameters,
    widest=lambda config: config.vocabulary,
    per_image=lambda config: False,
    rules=((r"(^|/)(input|output|skip|conv[1-4])/(kernel|bias)$", "fsdp"),),
)
