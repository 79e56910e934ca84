"""Files of the authors of Hiera, `hiera_base_224.pth` and `facebook/hiera_base_224.mae_in1k_ft_in1k` on the hub."""

import dataclasses
import re
from collections.abc import Sequence
from typing import Any

from vit_jax.models.hiera.config import HieraConfig
from vit_jax.models.hiera.names import AUTHORS
from vit_jax.models.registry import ModelConfig
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.layout import Layout, Reading, check_model
from vit_jax.weights.layouts.timm import hiera as timm
from vit_jax.weights.layouts.timm.hiera_arguments import with_arguments

# Their names -> timm's.
_RENAMED = (
    (r"^(encoder_)?norm\.", "head.norm."),
    (r"^head\.projection\.", "head.fc."),
    (r"^pos_embed_abs$", "pos_embed"),
)
# Of a masked autoencoder, what stands on the encoder.
DECODER: Sequence[str] = ("decoder_*", "mask_token", "multi_scale_fusion_heads.*")


def renamed(raw: RawCheckpoint) -> RawCheckpoint:
    """Return a checkpoint with timm's names for the authors'."""
    tensors = {}
    for name, tensor in raw.tensors.items():
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        tensors[name] = tensor
    return dataclasses.replace(raw, tensors=tensors)


def _config(raw: RawCheckpoint) -> HieraConfig:
    arguments: dict[str, Any] = dict(raw.documents.get("config.json", {}))
    config = timm.from_shapes(raw.tensors, raw.origin, AUTHORS)
    if "stages" in arguments:
        # Of a masked autoencoder it has no classes, whatever it says; the arrays do not say how often it pools.
        arguments |= {"num_classes": config.num_classes}
        decoder = {name for name in arguments if name.startswith("decoder_")}
        arguments = {name: value for name, value in arguments.items() if name not in decoder}
        return with_arguments(config, arguments, raw.origin)
    fused = {m[1] for name in raw.tensors if (m := re.match(r"multi_scale_fusion_heads\.(\d+)\.", name))}
    return dataclasses.replace(config, pooled_stages=len(fused)) if fused else config


def _claims(raw: RawCheckpoint) -> bool:
    authors = {"norm.weight", "encoder_norm.weight", "head.projection.weight"}
    return timm.is_hiera(raw.tensors) and bool(authors & raw.tensors.keys())


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    check_model(raw, model, "a Hiera", "hiera")
    raw = renamed(raw)
    config = _config(raw) if model is None else model
    return raw, Layout(config, timm.rules(config), others=DECODER)


READING = Reading("the authors of Hiera", _claims, _read)
