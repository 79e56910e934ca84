"""mmsegmentation's SETR: its Vision Transformer, and the decoders; files say nothing but their arrays."""

import math
import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.heads.setr.config import SetrConfig
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from vit_jax.models.registry import ModelConfig
from vit_jax.models.vit.config import ViTConfig
from vit_jax.weights.formats.tensors import RawCheckpoint, Tensor
from vit_jax.weights.layouts.blocks import FROM_HEADS, TO_HEADS, conv_and_norm, norms
from vit_jax.weights.layouts.layout import Layout, Reading, check_model
from vit_jax.weights.layouts.timm.shapes import heads_of
from vit_jax.weights.rules import CONV, FLAT, POINT, ROW, Form, Rule, affine, norm, rule

COMPUTED = ("*.num_batches_tracked",)
PREPROCESSING = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bilinear", 1.0, "squash")
# Positions of patches, after that of a class token which no attention sees.
_PATCHES = Form(
    lambda array, shape: array[0, 1:].reshape(shape),
    lambda array: np.concatenate([np.zeros_like(array[:1]), array])[None],
)
_CLASSES, _POSITIONS, _SUM = "decode_head.conv_seg.weight", "pos_embed", "neck.norm.0.weight"
_FIRST = "layers.0.attn.attn.in_proj_weight"


def rules(config: SetrConfig) -> list[Rule]:
    """Return the rules of a segmentation model."""
    found = [item.prefixed("encoder/") for item in _encoder(config.encoder)]
    further = range(len(config.auxiliary))
    if config.decoder == "up":
        found += _up("decoder", "decode_head", config.convs)
        for index in further:
            found += _up(f"auxiliary/{index}", f"auxiliary_head.{index}", 1)
        return found
    for index in range(len(config.levels)):
        found += norm(f"aggregation/norms/{index}", f"neck.norm.{index}")
        found += conv_and_norm(f"aggregation/projections/{index}", f"neck.mla.channel_proj.{index}")
        found += conv_and_norm(f"aggregation/outputs/{index}", f"neck.mla.feat_extract.{index}")
        for layer in range(2):
            found += conv_and_norm(
                f"decoder/branches/{index}/{layer}", f"decode_head.up_convs.{index}.{layer}"
            )
    found += affine("decoder/head", "decode_head.conv_seg", POINT)
    for index in further:
        found += affine(f"auxiliary/{index}", f"auxiliary_head.{index}.conv_seg", POINT)
    return found


def _encoder(config: ViTConfig) -> list[Rule]:
    layer = "layers.{l}"
    found = [rule("class_token", "cls_token", form=ROW)] if config.class_token else []
    return found + [
        rule("pos_embed", "pos_embed", form=ROW if config.class_token else _PATCHES),
        *affine("patch_embed", "patch_embed.projection", CONV, config.patch_bias),
        *norms("blocks", {"norm1": f"{layer}.ln1", "norm2": f"{layer}.ln2"}),
        rule("blocks/attn/qkv/kernel", f"{layer}.attn.attn.in_proj_weight", form=TO_HEADS),
        rule("blocks/attn/qkv/bias", f"{layer}.attn.attn.in_proj_bias", form=FLAT),
        *affine("blocks/attn/out", f"{layer}.attn.attn.out_proj", FROM_HEADS),
        *affine("blocks/mlp/fc1", f"{layer}.ffn.layers.0.0"),
        *affine("blocks/mlp/fc2", f"{layer}.ffn.layers.1"),
    ]


def _up(ours: str, theirs: str, convs: int) -> list[Rule]:
    found = norm(f"{ours}/norm", f"{theirs}.norm")
    for index in range(convs):
        found += conv_and_norm(f"{ours}/convs/{index}", f"{theirs}.up_convs.{index}.0")
    return found + affine(f"{ours}/head", f"{theirs}.conv_seg", POINT)


def describe(raw: RawCheckpoint) -> SetrConfig:
    """Return the model of a file, from the shapes of its arrays, with maps and enlarging as published.

    Images are square, and of as many pixels as positions say; heads are as wide as published, 64.

    Raises:
      CheckpointError: arrays are missing, or are of no SETR of a published kind.
    """
    tensors = raw.tensors
    try:
        width, channels, p, q = tensors["patch_embed.projection.weight"].shape
        side = math.isqrt(tensors[_POSITIONS].shape[1] - 1)
        depth = _count(tensors, r"layers\.(\d+)\.")
        adds = _SUM in tensors
        convs = _count(tensors, r"decode_head\.up_convs\.(\d+)\.")
        further = _count(tensors, r"auxiliary_head\.(\d+)\.")
        first = tensors["decode_head.up_convs.0.0.conv.weight"].shape
        encoder = ViTConfig(
            image_size=(side * p, side * q),
            patch_size=(p, q),
            in_channels=channels,
            num_classes=0,
            width=width,
            depth=depth,
            heads=heads_of(width),
            mlp_dim=tensors["layers.0.ffn.layers.0.0.weight"].shape[0],
            class_token=not adds,
            patch_bias="patch_embed.projection.bias" in tensors,
            pool="patches",
            pool_norm="none",
            resample="bilinear",
            resample_antialias=False,
            dynamic_image_size=True,
            preprocessing=PREPROCESSING,
        )
        parts = (6, 12, 18, 24) if adds else (10, 15, 20, 24)
        common: dict[str, Any] = dict(
            num_classes=tensors[_CLASSES].shape[0],
            taps=parts,
            auxiliary=tuple(range(further)),
        )
        if adds:
            return SetrConfig(encoder, decoder="mla", channels=first[1], branch_channels=first[0], **common)
        kernel = first[2]
        published = adds or (convs, kernel) in ((1, 1), (4, 3))
        if (
            depth != 24 or not published
        ):  # no array says which maps are taken, and how much larger they are made
            raise ConfigError(f"it has {depth} blocks and {convs} convolutions of {kernel}x{kernel}.")
        scale = 2 if convs == 4 else 4
        return SetrConfig(encoder, channels=first[0], convs=convs, kernel=kernel, scale=scale, **common)
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        raise CheckpointError(f"{raw.origin} lacks arrays of mmsegmentation's SETR; it is damaged.") from None
    except ConfigError as error:
        raise CheckpointError(
            f"{raw.origin} holds no SETR of a published kind: {error} Give its configuration, load(..., model=)."
        ) from None


def _count(tensors: Mapping[str, Tensor], pattern: str) -> int:
    return len({match[1] for name in tensors if (match := re.match(pattern, name))})


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    check_model(raw, model, "a SETR", "setr")
    config: Any = describe(raw) if model is None else model
    others = () if config.encoder.class_token else ("cls_token",)
    return raw, Layout(config, rules(config), (*COMPUTED, *others))


READING = Reading("mmsegmentation's SETR", lambda raw: raw.tensors.keys() >= {_FIRST, _CLASSES}, _read)
