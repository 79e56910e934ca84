"""Masked autoencoders as a family. Needs no jax."""

from vit_jax.models.family import Family, Names
from vit_jax.models.mae import arithmetic, names
from vit_jax.models.mae.config import MaeConfig
from vit_jax.models.vit.family import FAMILY as VIT


def _layer_of(config: MaeConfig, path: str, rule: str) -> int | range:
    part, _, rest = path.partition("/")
    return VIT.layer_of(config.encoder, rest, rule) if part == "encoder" else config.encoder.depth + 1


FAMILY = Family(
    name="mae",
    config=MaeConfig,
    module="vit_jax.models.mae.model:MaskedAutoencoder",
    macs=arithmetic.macs,
    parameters=arithmetic.parameters,
    parts={"image": "encoder"},
    names=Names(names.resolve, others=lambda: names.PUBLISHED),
    depth=lambda config: config.encoder.depth,
    layer_of=_layer_of,
    widest=lambda config: config.encoder.mlp_dim,
    per_image=lambda config: False,
)
