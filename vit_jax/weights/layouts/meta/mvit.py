"""The authors' MViTv2, github.com/facebookresearch/mvit: as timm's, but blocks are counted over all stages."""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.errors import CheckpointError
from vit_jax.models.mvit.config import STAGES, MvitConfig
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from vit_jax.models.registry import ModelConfig
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.layout import Layout, Reading, Written
from vit_jax.weights.layouts.timm import mvit as timm
from vit_jax.weights.rules import Rule

PREPROCESSING = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bicubic", 0.875)
_BLOCK = re.compile(r"blocks\.(\d+)\.(.*)")
_STAGED = re.compile(r"stages\.(\d+)\.blocks\.\{l\}\.(.*)")
_FIRST = "blocks.0.attn.pool_q.weight"


def renamed(raw: RawCheckpoint) -> RawCheckpoint:
    """Return a checkpoint with timm's names for the authors'.

    A layer beside a block's branches stands in the first block of a stage where the width grows in attention, and in
    the last one of the stage before where it grows in the MLP.

    Raises:
      CheckpointError: there are not as many stages as there should be.
    """
    found = {name: _BLOCK.fullmatch(name) for name in raw.tensors}
    widening = sorted(int(m[1]) for m in found.values() if m and m[2] == "proj.weight")
    if len(widening) != STAGES - 1:
        raise CheckpointError(
            f"{raw.origin} holds {len(widening)} layers that widen, but an MViTv2 has {STAGES - 1}; it is damaged, or "
            "of another model."
        )
    outputs, inputs = raw.tensors[f"blocks.{widening[0]}.attn.qkv.weight"].shape[:2]
    within = outputs > 3 * inputs
    starts = [0, *(block if within else block + 1 for block in widening)]
    tensors = {}
    for name, tensor in raw.tensors.items():
        if match := found[name]:
            stage = sum(int(match[1]) >= start for start in starts) - 1
            inner = re.sub(r"^proj\.", "shortcut_proj_attn." if within else "shortcut_proj_mlp.", match[2])
            name = f"stages.{stage}.blocks.{int(match[1]) - starts[stage]}.{inner}"
        tensors[name.replace("head.projection.", "head.fc.")] = tensor
    return dataclasses.replace(raw, tensors=tensors)


def write(config: MvitConfig, params: Mapping[str, Any], class_names: Sequence[str]) -> Written:
    """Return a model as the authors' file has it."""
    rules = [_counted(item, config.depths) for item in timm.rules(config)]
    return Written(config, params, rules, inside="model_state")


def _counted(item: Rule, depths: Sequence[int]) -> Rule:
    """Return a rule under the authors' names, its blocks counted over all stages: what `renamed` undoes."""
    if match := _STAGED.fullmatch(item.theirs[0]):
        name = re.sub(r"^shortcut_proj_(attn|mlp)\.", "proj.", match[2])
        first = item.first + sum(depths[: int(match[1])])
        return dataclasses.replace(item, theirs=(f"blocks.{{l}}.{name}",), first=first)
    (name,) = item.theirs
    return dataclasses.replace(item, theirs=(name.replace("head.fc.", "head.projection."),))


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    raw, layout = timm.read(renamed(raw), model)
    if model is None:
        config = dataclasses.replace(layout.config, preprocessing=PREPROCESSING)
        layout = dataclasses.replace(layout, config=config)
    return raw, layout


READING = Reading(
    "Meta's MViTv2", lambda raw: _FIRST in raw.tensors and len(raw.tensors[_FIRST].shape) == 4, _read
)
