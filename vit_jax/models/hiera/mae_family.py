"""Masked autoencoders with a Hiera as a family. Needs no jax."""

import re

from vit_jax.models.arithmetic import blocks_macs, blocks_parameters, dense_parameters
from vit_jax.models.family import Family, Names
from vit_jax.models.hiera.config import SIZES, HieraConfig
from vit_jax.models.hiera.family import FAMILY as HIERA
from vit_jax.models.hiera.mae_config import HieraMaeConfig
from vit_jax.models.hiera.names import TRANSFORMERS


def macs(config: HieraMaeConfig, visible: float | None = 1.0) -> int:
    """Return the multiply-adds of one image; see `models.flops.forward_macs`."""
    encoder, decoder, visible = config.encoder, config.decoder, 1.0 if visible is None else visible
    tokens, (p, q) = config.grid[0] * config.grid[1], config.patch_size
    seen = max(1, int(config.units * visible)) * tokens // config.units
    fusion = sum(side**2 * width for side, width in config.fused) * encoder.feature_width
    count = HIERA.macs(encoder, visible) + seen * (fusion + encoder.feature_width * decoder.width)
    return count + blocks_macs(decoder, tokens) + tokens * decoder.width * p * q * encoder.in_channels


def parameters(config: HieraMaeConfig) -> int:
    """Return the number of parameters."""
    encoder, d, (p, q) = config.encoder, config.decoder.width, config.patch_size
    count = sum(dense_parameters(side**2 * width, encoder.feature_width) for side, width in config.fused)
    count += dense_parameters(encoder.feature_width, d) + d * (1 + config.grid[0] * config.grid[1])
    count += blocks_parameters(config.decoder) + dense_parameters(d, p * q * encoder.in_channels)
    return HIERA.parameters(encoder) + count


def _layer_of(config: HieraMaeConfig, path: str, rule: str) -> int | range:
    part, _, rest = path.partition("/")
    return (
        HIERA.layer_of(config.encoder, rest, rule) if part == "encoder" else HIERA.depth(config.encoder) + 1
    )


def others() -> list[str]:
    """Return the names of published weights on the hub."""
    return [f"facebook/hiera-{size.replace('_', '-')}-224-mae-hf" for size in SIZES]


def _resolve(name: str) -> tuple[str, HieraMaeConfig] | None:
    match = re.fullmatch(r"facebook/hiera-([a-z-]+)-224-mae-hf", name)
    size = match[1].replace("-", "_") if match else ""
    if size not in SIZES:
        return None
    encoder = HieraConfig(**SIZES[size], num_classes=0, pooled_stages=2, preprocessing=TRANSFORMERS)
    return name, HieraMaeConfig(encoder)


FAMILY = Family(
    name="hiera_mae",
    config=HieraMaeConfig,
    module="vit_jax.models.hiera.mae:HieraMae",
    macs=macs,
    parameters=parameters,
    parts={"image": "encoder"},
    names=Names(_resolve, others=others),
    depth=lambda config: HIERA.depth(config.encoder),
    layer_of=_layer_of,
    widest=lambda config: max(HIERA.widest(config.encoder), config.decoder_mlp_dim),
    per_image=lambda config: False,
    rules=((r"(^|/)fusion/\d+/kernel$", "fsdp"),),
)
