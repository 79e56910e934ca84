"""Names of torchvision's SwinTransformer, both versions."""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.layers.positions.windows import log_offsets, offset_rows
from vit_jax.models.registry import ModelConfig
from vit_jax.models.swin.config import VERSION_2, SwinConfig
from vit_jax.models.swin.names import torchvision
from vit_jax.weights.formats.tensors import RawCheckpoint, Tensor
from vit_jax.weights.layouts.blocks import FROM_HEADS, TO_HEADS, norms
from vit_jax.weights.layouts.layout import Layout, Reading, Written, check_model
from vit_jax.weights.layouts.timm.swin import COMPUTED, positions, pretrained_window
from vit_jax.weights.rules import CONV, FLAT, Form, Rule, Shape, affine, norm, rule

_BLOCK = re.compile(r"features\.(\d+)\.(\d+)\.norm1\.weight")
_PATCHES, _TABLE = "features.0.0.weight", "features.1.0.attn.relative_position_index"
_WIDTHS = {(96, 12): "t", (96, 24): "s", (128, 24): "b"}


def _without_keys(array: np.ndarray, shape: Shape) -> np.ndarray:
    """Version 2 keeps a bias of the keys and passes over it."""
    return array.reshape(3, *shape[1:])[::2]


def _with_keys(array: np.ndarray) -> np.ndarray:
    return np.stack([array[0], np.zeros_like(array[0]), array[1]]).reshape(-1)


NO_KEYS = Form(_without_keys, _with_keys)


def rules(config: SwinConfig) -> list[Rule]:
    """Return the rules of a model."""
    found = affine("patch_embed", "features.0.0", CONV) + norm("patch_embed/norm", "features.0.2")
    for stage in range(len(config.depths)):
        ours, theirs = f"stages/{stage}/blocks", f"features.{2 * stage + 1}.{{l}}"
        if stage:
            merge = f"features.{2 * stage}"
            found += affine(f"stages/{stage}/merge/reduction", f"{merge}.reduction", bias=False)
            found += norm(f"stages/{stage}/merge/norm", f"{merge}.norm")
        bias = FLAT if config.k_bias else NO_KEYS
        found += [
            *norms(ours, {"norm1": f"{theirs}.norm1", "norm2": f"{theirs}.norm2"}),
            rule(f"{ours}/attn/qkv/kernel", f"{theirs}.attn.qkv.weight", form=TO_HEADS),
            rule(f"{ours}/attn/qkv/bias", f"{theirs}.attn.qkv.bias", form=bias),
            *affine(f"{ours}/attn/out", f"{theirs}.attn.proj", FROM_HEADS),
            *positions(config, f"{ours}/attn", f"{theirs}.attn", "cpb_mlp"),
            *affine(f"{ours}/mlp/fc1", f"{theirs}.mlp.0"),
            *affine(f"{ours}/mlp/fc2", f"{theirs}.mlp.3"),
        ]
    return found + norm("norm", "norm") + (affine("head", "head") if config.num_classes else [])


def describe(raw: RawCheckpoint) -> SwinConfig:
    """Return the model of a file, from the shapes of its arrays; images are as large as torchvision's.

    Raises:
      CheckpointError: arrays are missing.
    """
    tensors = raw.tensors
    found = [match for name in tensors if (match := _BLOCK.fullmatch(name))]
    depths = tuple(
        sum(int(match[1]) == 2 * stage + 1 for match in found) for stage in range(len({m[1] for m in found}))
    )
    second = "features.1.0.attn.logit_scale" in tensors
    try:
        width, channels, p, q = tensors[_PATCHES].shape
        side = math.isqrt(math.isqrt(tensors[_TABLE].shape[0]))
        head = tensors.get("head.weight")
        letter = _WIDTHS.get((width, sum(depths)), "")
        known = torchvision(f"swin_{'v2_' if second else ''}{letter}")
        size = side * p * 2 ** (len(depths) - 1)
        return SwinConfig(
            image_size=(size, size),
            patch_size=(p, q),
            in_channels=channels,
            num_classes=0 if head is None else head.shape[0],
            width=width,
            depths=depths,
            heads=tuple(_heads(tensors, stage, second) for stage in range(len(depths))),
            mlp_ratio=tensors["features.1.0.mlp.0.weight"].shape[0] / width,
            window_size=(side,),
            pretrained_windows=tuple(
                pretrained_window(tensors, f"features.{2 * stage + 1}.0.attn") for stage in range(len(depths))
            ),
            window_fit="pad",
            bias_resample="bicubic",
            **({} if known is None else {"preprocessing": known.preprocessing}),
            **(VERSION_2 if second else {}),
        )
    except (KeyError, ValueError, IndexError, ConfigError):
        raise CheckpointError(
            f"{raw.origin} lacks arrays of torchvision's SwinTransformer; it is damaged."
        ) from None


def write(config: SwinConfig, params: Mapping[str, Any], class_names: Sequence[str]) -> Written:
    """Return a model as the state of torchvision's module, with the tables that it computes and keeps.

    Raises:
      ConfigError: torchvision has no such model.
    """
    if len(config.window_size) > 1 or config.pool != "mean" or not config.qkv_bias or config.mask_token:
        raise ConfigError(
            "torchvision's Swin Transformer has one window for all stages, one output for an image, biases and no mask "
            "token; choose 'timm' or 'hf'."
        )
    side = max(config.window_size)
    tables: dict[str, np.ndarray] = {
        "relative_position_index": offset_rows((side, side), (side, side)).reshape(-1).astype(np.int64)
    }
    pretrained = config.pretrained_windows or (0,) * len(config.depths)
    constants = {}
    for stage, depth in enumerate(config.depths):
        if config.position_bias == "log":
            offsets = log_offsets((side, side), (pretrained[stage] or side,) * 2)
            tables["relative_coords_table"] = offsets.reshape(1, 2 * side - 1, 2 * side - 1, 2)
        for block in range(depth):
            theirs = f"features.{2 * stage + 1}.{block}.attn"
            constants |= {f"{theirs}.{name}": table for name, table in tables.items()}
    return Written(config, params, rules(config), constants=constants)


def _heads(tensors: Mapping[str, Tensor], stage: int, second: bool) -> int:
    attention = f"features.{2 * stage + 1}.0.attn"
    if second:
        return tensors[f"{attention}.logit_scale"].shape[0]
    return tensors[f"{attention}.relative_position_bias_table"].shape[1]


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    check_model(raw, model, "a Swin Transformer", "swin")
    config = describe(raw) if model is None else model
    return raw, Layout(config, rules(config), COMPUTED)


def _claims(raw: RawCheckpoint) -> bool:
    return {_PATCHES, "features.1.0.attn.qkv.weight"} <= raw.tensors.keys()


READING = Reading("torchvision's Swin", _claims, _read)
