"""Names of timm's SwinTransformer and SwinTransformerV2, and of the authors' code, whose names timm's once were.

timm merges patches at the start of a stage, the authors at the end of the one before.
"""

import math
import re
from collections.abc import Mapping
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.preprocessing import IMAGENET, Preprocessing
from vit_jax.models.swin.config import VERSION_2, SwinConfig
from vit_jax.weights.formats.tensors import RawCheckpoint, Tensor
from vit_jax.weights.layouts.blocks import FROM_HEADS, TO_HEADS, norms
from vit_jax.weights.rules import CONV, FLAT, ROW, SAME, Form, Rule, affine, norm, rule

COMPUTED = ("*relative_position_index", "*relative_coords_table", "*attn_mask", "*.k_bias")
# A number for each head, stored as (h, 1, 1).
PER_HEAD = Form(SAME.read, lambda array: array[:, None, None])
_BLOCK = re.compile(r"layers\.(\d+)\.blocks\.(\d+)\.norm1\.weight")


def claims(raw: RawCheckpoint) -> bool:
    """Return whether a file is of timm's Swin Transformer, or of the authors'."""
    names = {"patch_embed.proj.weight", "patch_embed.norm.weight", "layers.0.blocks.0.attn.qkv.weight"}
    return names <= raw.tensors.keys() and "model_type" not in raw.documents.get("config.json", {})


def is_authors(tensors: Mapping[str, Any]) -> bool:
    """Return whether names are those of the authors' code."""
    return "layers.0.downsample.reduction.weight" in tensors or "head.weight" in tensors


def rules(config: SwinConfig, authors: bool = False) -> list[Rule]:
    """Return the rules of a model, with timm's names or with the authors'."""
    found = affine("patch_embed", "patch_embed.proj", CONV) + norm("patch_embed/norm", "patch_embed.norm")
    for stage in range(len(config.depths)):
        ours, theirs = f"stages/{stage}", f"layers.{stage}"
        if stage:
            merge = f"layers.{stage - 1}.downsample" if authors else f"{theirs}.downsample"
            found += affine(f"{ours}/merge/reduction", f"{merge}.reduction", bias=False)
            found += norm(f"{ours}/merge/norm", f"{merge}.norm")
        found += _blocks(config, f"{ours}/blocks", f"{theirs}.blocks.{{l}}")
    if config.mask_token:
        found.append(rule("mask_token", "mask_token", form=ROW))
    found += norm("norm", "norm")
    return found + (affine("head", "head" if authors else "head.fc") if config.num_classes else [])


def _blocks(config: SwinConfig, ours: str, theirs: str) -> list[Rule]:
    attention = f"{theirs}.attn"
    found = [
        *norms(ours, {"norm1": f"{theirs}.norm1", "norm2": f"{theirs}.norm2"}),
        rule(f"{ours}/attn/qkv/kernel", f"{attention}.qkv.weight", form=TO_HEADS),
        *affine(f"{ours}/attn/out", f"{attention}.proj", FROM_HEADS),
        *affine(f"{ours}/mlp/fc1", f"{theirs}.mlp.fc1"),
        *affine(f"{ours}/mlp/fc2", f"{theirs}.mlp.fc2"),
        *positions(config, f"{ours}/attn", attention, "cpb_mlp"),
    ]
    if config.qkv_bias:
        biases = ("qkv.bias",) if config.k_bias else ("q_bias", "v_bias")
        found.append(rule(f"{ours}/attn/qkv/bias", *(f"{attention}.{name}" for name in biases), form=FLAT))
    return found


def positions(config: SwinConfig, ours: str, theirs: str, mlp: str) -> list[Rule]:
    """Return the rules of what attention knows of positions, and of its temperature; `mlp` is a library's word."""
    found = [rule(f"{ours}/logit_scale", f"{theirs}.logit_scale", form=PER_HEAD)] * config.cosine
    if config.position_bias == "table":
        return [*found, rule(f"{ours}/position_bias", f"{theirs}.relative_position_bias_table")]
    return [
        *found,
        *affine(f"{ours}/bias_mlp/fc1", f"{theirs}.{mlp}.0"),
        *affine(f"{ours}/bias_mlp/fc2", f"{theirs}.{mlp}.2", bias=False),
    ]


def from_shapes(raw: RawCheckpoint) -> SwinConfig:
    """Return the model that a file without a description holds, from its arrays and the tables beside them.

    Raises:
      CheckpointError: the arrays do not say enough.
    """
    tensors = raw.tensors
    unclear = CheckpointError(
        f"{raw.origin} does not tell what model it is; give its name, for example "
        "load(..., model='swin_tiny_patch4_window7_224')."
    )
    blocks = [(int(found[1]), int(found[2])) for name in tensors if (found := _BLOCK.fullmatch(name))]
    depths = tuple(
        sum(stage == number for stage, _ in blocks) for number in range(1 + max(stage for stage, _ in blocks))
    )
    second = "layers.0.blocks.0.attn.logit_scale" in tensors
    attention = [f"layers.{stage}.blocks.0.attn" for stage in range(len(depths))]
    try:
        width, channels, p, q = tensors["patch_embed.proj.weight"].shape
        heads = tuple(_heads(tensors, name, second) for name in attention)
        hidden = tensors["layers.0.blocks.0.mlp.fc1.weight"].shape[0]
        windows = [_window(tensors, name) for name in attention]
        side, grid = windows[-1], windows[-1] * 2 ** (len(depths) - 1)
        if "layers.0.blocks.1.attn_mask" in tensors:
            grid = math.isqrt(tensors["layers.0.blocks.1.attn_mask"].shape[0]) * windows[0]
        for stage in range(1, len(windows)):
            # A window that was larger than the map has become the map.
            if windows[stage] == grid // 2**stage:
                windows[stage] = max(windows[stage - 1], side)
        head = next((tensors[name] for name in ("head.fc.weight", "head.weight") if name in tensors), None)
        classes = head.shape[0] if head is not None else 0
        return SwinConfig(
            image_size=(grid * p, grid * q),
            patch_size=(p, q),
            in_channels=channels,
            num_classes=classes,
            width=width,
            depths=depths,
            heads=heads,
            mlp_ratio=hidden / width,
            window_size=tuple(windows),
            pretrained_windows=tuple(pretrained_window(tensors, name) for name in attention)
            if second
            else (),
            qkv_bias=any(f"{attention[0]}.{name}" in tensors for name in ("qkv.bias", "q_bias")),
            mask_token="mask_token" in tensors,
            bias_resample="bicubic",
            preprocessing=_preprocessing(grid * p),
            **(VERSION_2 if second else {}),
        )
    except (KeyError, ValueError, IndexError, ConfigError):
        raise unclear from None


def _preprocessing(size: int) -> Preprocessing:
    """Return the authors': the centre of 256 for 224, and of 384 the whole, squeezed."""
    whole = size >= 384
    return Preprocessing(
        IMAGENET.mean, IMAGENET.std, "bicubic", 1.0 if whole else 224 / 256, "squash" if whole else "center"
    )


def _heads(tensors: Mapping[str, Tensor], attention: str, second: bool) -> int:
    if second:
        return tensors[f"{attention}.logit_scale"].shape[0]
    return tensors[f"{attention}.relative_position_bias_table"].shape[1]


def _window(tensors: Mapping[str, Tensor], attention: str) -> int:
    """Return the side of a stage's windows, which are square."""
    for name in ("relative_position_bias_table", "relative_coords_table"):
        if f"{attention}.{name}" in tensors:
            shape = tensors[f"{attention}.{name}"].shape
            rows = shape[0] if name.endswith("bias_table") else shape[1] * shape[2]
            side = (math.isqrt(rows) + 1) // 2
            if (2 * side - 1) ** 2 != rows:
                raise ValueError(rows)
            return side
    return math.isqrt(tensors[f"{attention}.relative_position_index"].shape[0])


def pretrained_window(tensors: Mapping[str, Tensor], attention: str) -> int:
    """Return the windows that the log scale was made for, 0 for the present ones: what is said by its largest value."""
    table = tensors.get(f"{attention}.relative_coords_table")
    if table is None or table.shape[1] < 3:
        return 0
    side, largest = (table.shape[1] + 1) // 2, float(table.read().max())
    pretrained = round(8 * (side - 1) / (2 ** (3 * largest) - 1)) + 1
    return 0 if pretrained == side else pretrained
