"""transformers' segmentation models: BEiT with UPerNet's decoder (`BeitForSemanticSegmentation`)."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.heads.upernet.config import UperNetConfig
from vit_jax.models.vit.config import ViTConfig, replace
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.blocks import conv_and_norm
from vit_jax.weights.layouts.transformers import vit as transformers
from vit_jax.weights.rules import POINT, TRANSPOSED, Rule, affine, batch_norm

COMPUTED = (*transformers.COMPUTED, "*.num_batches_tracked")
# Norms behind the last block, which no map passes.
UNUSED = ("beit.layernorm.*", "beit.pooler.*", "data2vec_vision.layernorm.*", "data2vec_vision.pooler.*")
HEAD = "decode_head.classifier.weight"
# What transformers assumes when a `config.json` does not say.
_DEFAULTS = dict(
    out_indices=[3, 5, 7, 11], pool_scales=[1, 2, 3, 6], use_auxiliary_head=True, auxiliary_channels=256,
    auxiliary_num_convs=1, auxiliary_concat_input=False,
)  # fmt: skip


def describe(raw: RawCheckpoint, backbone: ViTConfig) -> UperNetConfig:
    """Return the model of a file.

    transformers counts the embedded patches as hidden state 0 and takes the states before those it names, so that its
    `out_indices` are one more than the blocks that stand before a map.

    Args:
      raw: the checkpoint.
      backbone: what `config.json` says of the blocks.

    Raises:
      CheckpointError: `config.json` describes no such model.
    """
    about: Mapping[str, Any] = {**_DEFAULTS, **raw.documents["config.json"]}
    try:
        return UperNetConfig(
            encoder=replace(backbone, pool="none", pool_norm="none", num_classes=0, representation_size=0),
            num_classes=raw.tensors[HEAD].shape[0],
            taps=tuple(index - 1 for index in about.get("segmentation_indices") or about["out_indices"]),
            pool_scales=tuple(about["pool_scales"]),
            auxiliary_channels=about["auxiliary_channels"] if about["use_auxiliary_head"] else 0,
            auxiliary_convs=about["auxiliary_num_convs"],
            auxiliary_concat=about["auxiliary_concat_input"],
        )
    except (TypeError, IndexError, ConfigError) as error:
        raise CheckpointError(f"{raw.origin}: config.json describes no model: {error}") from None


def rules(config: UperNetConfig) -> list[Rule]:
    """Return the rules of a segmentation model."""
    encoder = transformers.rules(config.encoder, "beit", transformers.PREFIXES["beit"])
    decoder = {
        "bottleneck": "bottleneck",
        "fusion": "fpn_bottleneck",
        **{f"pyramid/{i}": f"psp_modules.{i}.1" for i in range(len(config.pool_scales))},
        **{f"laterals/{i}": f"lateral_convs.{i}" for i in range(3)},
        **{f"outputs/{i}": f"fpn_convs.{i}" for i in range(3)},
    }
    found = [item.prefixed("encoder/") for item in encoder]
    for ours, theirs in {"first": "fpn1.0", "second": "fpn1.3", "twice": "fpn2.0"}.items():
        found += affine(f"neck/{ours}", theirs, TRANSPOSED)
    found += batch_norm("neck/norm", "fpn1.1") + affine("decoder/head", "decode_head.classifier", POINT)
    found += [
        r
        for ours, theirs in decoder.items()
        for r in conv_and_norm(f"decoder/{ours}", f"decode_head.{theirs}")
    ]
    if config.auxiliary_channels:
        convs = {f"convs/{i}": f"convs.{i}" for i in range(config.auxiliary_convs)}
        convs |= {"join": "conv_cat"} if config.auxiliary_concat else {}
        found += [
            r
            for ours, theirs in convs.items()
            for r in conv_and_norm(f"auxiliary/{ours}", f"auxiliary_head.{theirs}")
        ]
        found += affine("auxiliary/head", "auxiliary_head.classifier", POINT)
    return found


def in_memory(rules: Sequence[Rule]) -> list[Rule]:
    """Return rules with the names of transformers' modules, which it does not change back where it saves data2vec."""

    def named(name: str) -> str:
        name = re.sub(r"psp_modules\.(\d+)\.1\.", r"psp_modules.blocks.\1.conv.", name)
        name = name.replace("decode_head.bottleneck.", "decode_head.psp_bottleneck.")
        return name.replace(".conv.weight", ".convolution.weight").replace(".bn.", ".normalization.")

    return [dataclasses.replace(rule, theirs=tuple(map(named, rule.theirs))) for rule in rules]


def document(config: UperNetConfig) -> dict[str, Any]:
    """Return what `config.json` says beside the description of the blocks."""
    return {
        "architectures": ["BeitForSemanticSegmentation"],
        "out_indices": [tap + 1 for tap in config.taps],
        "pool_scales": list(config.pool_scales),
        "use_auxiliary_head": bool(config.auxiliary_channels),
        "auxiliary_channels": config.auxiliary_channels,
        "auxiliary_num_convs": config.auxiliary_convs,
        "auxiliary_concat_input": config.auxiliary_concat,
    }
