"""Vector-quantised tokenizers as a family. Needs no jax."""

from vit_jax.models.arithmetic import blocks_macs, blocks_parameters, dense_parameters
from vit_jax.models.family import Family
from vit_jax.models.tokenizers.vq_config import VqTokenizerConfig
from vit_jax.models.vit import arithmetic as vit
from vit_jax.models.vit.family import FAMILY as VIT


def _macs(config: VqTokenizerConfig, visible: float | None = 1.0) -> int:
    decoder, n = config.decoder, config.encoder.num_patches
    dense = config.code_width + vit.patch_values(decoder)
    return config.code_macs(n) + blocks_macs(decoder, n) + n * dense * decoder.width


def _parameters(config: VqTokenizerConfig) -> int:
    encoder, decoder = config.encoder, config.decoder
    dense = dense_parameters(encoder.width, config.code_width) + dense_parameters(
        config.code_width, decoder.width
    )
    dense += dense_parameters(decoder.width, vit.patch_values(decoder))
    return vit.parameters(encoder) + blocks_parameters(decoder) + dense


def _layer_of(config: VqTokenizerConfig, path: str, rule: str) -> int | range:
    part, _, rest = path.partition("/")
    return VIT.layer_of(config.encoder, rest, rule) if part == "encoder" else config.encoder.depth + 1


FAMILY = Family(
    name="vq_tokenizer",
    config=VqTokenizerConfig,
    module="vit_jax.models.tokenizers.vq:VqTokenizer",
    macs=_macs,
    parameters=_parameters,
    parts={"image": "encoder"},
    depth=lambda config: config.encoder.depth,
    layer_of=_layer_of,
    widest=lambda config: config.encoder.mlp_dim,
    per_image=lambda config: False,
    rules=((r"(^|/)to_codes/(kernel|bias)$", "fsdp"), (r"(^|/)codebook/(vectors|uses)$", "replicate")),
)
