"""DALL-E's tokenizer as a family. Needs no jax."""

from vit_jax.models.family import Family
from vit_jax.models.tokenizers.dalle_config import DalleEncoderConfig


def _kernels(config: DalleEncoderConfig) -> list[tuple[int, int, int]]:
    """Return side, inputs and outputs of every convolution; those that change the number of channels are last."""
    sizes = [(7, config.in_channels, config.hidden), (1, config.widths[-1][1], config.vocabulary)]
    for inputs, outputs in config.widths:
        inner = outputs // 4
        sizes += [(3, inputs, inner), (3, inner, inner), (3, inner, inner), (1, inner, outputs)]
    return sizes + [(1, inputs, outputs) for inputs, outputs in config.widths if inputs != outputs]


def _parameters(config: DalleEncoderConfig) -> int:
    return sum(side * side * inputs * outputs + outputs for side, inputs, outputs in _kernels(config))


def _macs(config: DalleEncoderConfig, visible: float | None = 1.0) -> int:
    """Return the multiply-adds of an image of 112 pixels, which ViTs of 14x14 patches need."""
    first, last, *_ = _kernels(config)
    count = 112**2 * first[0] ** 2 * first[1] * first[2] + 14**2 * last[1] * last[2]
    for block, (inputs, outputs) in enumerate(config.widths):
        inner, side = outputs // 4, 112 // 2 ** (block // config.blocks)
        each = 9 * inputs * inner + 18 * inner**2 + inner * outputs + inputs * outputs * (inputs != outputs)
        count += side**2 * each
    return count


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
