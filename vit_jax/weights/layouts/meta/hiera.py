"""Files of the authors of Hiera, `hiera_base_224.pth` and `facebook/hiera_base_224.mae_in1k_ft_in1k` on the hub."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.hiera.config import HieraConfig
from vit_jax.models.hiera.mae_config import HieraMaeConfig
from vit_jax.models.hiera.names import AUTHORS
from vit_jax.models.registry import ModelConfig
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.layout import Layout, Reading, Written, check_model
from vit_jax.weights.layouts.timm import hiera as timm
from vit_jax.weights.layouts.timm.hiera_arguments import with_arguments
from vit_jax.weights.rules import ROW, Rule, affine, norm, rule

# Their names -> timm's.
_RENAMED = (
    (r"^(encoder_)?norm\.", "head.norm."),
    (r"^head\.projection\.", "head.fc."),
    (r"^pos_embed_abs$", "pos_embed"),
)


def renamed(raw: RawCheckpoint) -> RawCheckpoint:
    """Return a checkpoint with timm's names for the authors'."""
    tensors = {}
    for name, tensor in raw.tensors.items():
        for pattern, replacement in _RENAMED:
            name = re.sub(pattern, replacement, name)
        tensors[name] = tensor
    return dataclasses.replace(raw, tensors=tensors)


def write(
    config: HieraConfig | HieraMaeConfig, params: Mapping[str, Any], class_names: Sequence[str]
) -> Written:
    """Return a model as the authors' file has it.

    Raises:
      ConfigError: the authors' code has no such model.
    """
    mae = isinstance(config, HieraMaeConfig)
    image = config.encoder if mae else config
    plain = image.position == "learned" and image.shortcut == "project" and image.layer_scale is None
    if not plain or not image.pool_norm:
        raise ConfigError(
            "the authors' Hiera has a position for each token, a dense layer in its shortcuts, a norm after the mean "
            "and no layer scale; choose 'timm' or 'hf'."
        )
    if image.image_size[0] != image.image_size[1]:
        raise ConfigError(
            f"image_size is {image.image_size}, and the authors' file says nothing of images that are not square; "
            "choose 'timm' or 'hf'."
        )
    words = {"head.norm.": "encoder_norm." if mae else "norm.", "head.fc.": "head.projection."}
    rules = mae_rules(config) if mae else timm.rules(config)
    found = [dataclasses.replace(item, theirs=tuple(_named(n, words) for n in item.theirs)) for item in rules]
    return Written(config, params, found, inside="model_state")


def _named(name: str, words: Mapping[str, str]) -> str:
    """Return the authors' name for timm's, what `renamed` undoes; words begin names."""
    for word, theirs in words.items():
        if name.startswith(word):
            return theirs + name.removeprefix(word)
    return name


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


def mae_rules(config: HieraMaeConfig) -> list[Rule]:
    """Return the rules of a masked autoencoder."""
    return [
        *(item.prefixed("encoder/") for item in timm.rules(config.encoder)),
        *timm.fusion_rules(config, "multi_scale_fusion_heads"),
        *affine("decoder/embed", "decoder_embed"),
        rule("decoder/mask_token", "mask_token", form=ROW),
        rule("decoder/pos_embed", "decoder_pos_embed", form=ROW),
        *timm.one_block("decoder/blocks", "decoder_blocks.{l}", ("norm1", "norm2")),
        *norm("decoder/norm", "decoder_norm"),
        *timm.pixel_rules(config, "decoder_pred"),
    ]


def _with_decoder(raw: RawCheckpoint, encoder: HieraConfig) -> HieraMaeConfig:
    """Return the masked autoencoder of arrays; its heads, which no array shows, are 32 wide as those published."""
    try:
        width = raw.tensors["decoder_embed.weight"].shape[0]
        depth = len({m[1] for name in raw.tensors if (m := re.match(r"decoder_blocks\.(\d+)\.", name))})
        hidden = raw.tensors["decoder_blocks.0.mlp.fc1.weight"].shape[0]
        return HieraMaeConfig(encoder, width, depth, max(1, width // 32), hidden)
    except (KeyError, IndexError, ConfigError) as error:
        raise CheckpointError(
            f"{raw.origin} lacks arrays of a decoder, or they do not fit: {error}"
        ) from None


def _claims(raw: RawCheckpoint) -> bool:
    authors = {"norm.weight", "encoder_norm.weight", "head.projection.weight"}
    return timm.is_hiera(raw.tensors) and bool(authors & raw.tensors.keys())


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    check_model(raw, model, "a Hiera", "hiera", "hiera_mae")
    raw = renamed(raw)
    config = _config(raw) if model is None else model
    if model is None and "decoder_pred.weight" in raw.tensors:
        config = _with_decoder(raw, config)
    mae = isinstance(config, HieraMaeConfig)
    return raw, Layout(config, mae_rules(config) if mae else timm.rules(config))


READING = Reading("the authors of Hiera", _claims, _read)
