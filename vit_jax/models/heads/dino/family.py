"""DINO's projection head as a family: it stands in checkpoints of its own. Needs no jax."""

from itertools import pairwise

from vit_jax.models.arithmetic import dense_parameters
from vit_jax.models.family import Family
from vit_jax.models.heads.dino.config import DinoHeadConfig


def _sizes(config: DinoHeadConfig) -> tuple[int, ...]:
    return config.input_dim, config.hidden_dim, config.hidden_dim, config.bottleneck_dim


def _macs(config: DinoHeadConfig, visible: float | None = 1.0) -> int:
    return sum(i * o for i, o in pairwise(_sizes(config))) + config.bottleneck_dim * config.output_dim


def _parameters(config: DinoHeadConfig) -> int:
    dense = sum(dense_parameters(i, o) for i, o in pairwise(_sizes(config)))
    return dense + (config.bottleneck_dim + (not config.norm_last_layer)) * config.output_dim


FAMILY = Family(
    name="dino_head",
    config=DinoHeadConfig,
    module="vit_jax.models.heads.dino.model:DinoHead",
    macs=_macs,
    parameters=_parameters,
    widest=lambda config: config.output_dim,
    per_image=lambda config: False,
)
