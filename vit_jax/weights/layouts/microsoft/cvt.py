"""Names of the authors' CvT, github.com/microsoft/CvT; its files are torch's and describe nothing."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.cvt.config import STAGES, CvtConfig
from vit_jax.models.registry import ModelConfig
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.blocks import FROM_HEADS, norms
from vit_jax.weights.layouts.layout import Layout, Reading, Written, check_model
from vit_jax.weights.rules import CONV, DEPTHWISE, ROW, Rule, affine, batch_counts, batch_norm, norm, rule

COMPUTED = ("*.num_batches_tracked",)
_FIRST = "stage0.patch_embed.proj.weight"


def rules(config: CvtConfig) -> list[Rule]:
    """Return the rules of a model."""
    found: list[Rule] = []
    for index in range(len(config.depths)):
        ours, theirs = f"stages/{index}", f"stage{index}"
        block = f"{theirs}.blocks.{{l}}"
        found += affine(f"{ours}/embed", f"{theirs}.patch_embed.proj", CONV)
        found += norm(f"{ours}/embed/norm", f"{theirs}.patch_embed.norm")
        found += norms(f"{ours}/blocks", {"norm1": f"{block}.norm1", "norm2": f"{block}.norm2"})
        for name in ("query", "key", "value"):
            own, letter = f"{ours}/blocks/attn/{name}", name[0]
            conv = f"{block}.attn.conv_proj_{letter}"
            found.append(rule(f"{own}/conv/kernel", f"{conv}.conv.weight", form=DEPTHWISE))
            found += batch_norm(f"{own}/norm", f"{conv}.bn")
            found += affine(f"{own}/dense", f"{block}.attn.proj_{letter}", bias=config.qkv_bias)
        found += affine(f"{ours}/blocks/attn/out", f"{block}.attn.proj", FROM_HEADS)
        found += affine(f"{ours}/blocks/mlp/fc1", f"{block}.mlp.fc1")
        found += affine(f"{ours}/blocks/mlp/fc2", f"{block}.mlp.fc2")
    last = len(config.depths) - 1
    found.append(rule(f"stages/{last}/class_token", f"stage{last}.cls_token", form=ROW))
    return found + norm("norm", "norm") + (affine("head", "head") if config.num_classes else [])


def describe(raw: RawCheckpoint) -> CvtConfig:
    """Return the model of a file, from the shapes of its arrays, with strides and heads as published.

    The size of its images, 224 or 384 pixels, only the name of the file says; no array depends on it.

    Raises:
      CheckpointError: arrays are missing, or are of no CvT.
    """
    tensors = raw.tensors
    try:
        embeds = [tensors[f"stage{index}.patch_embed.proj.weight"].shape for index in range(STAGES)]
        first, head = "stage0.blocks.0", tensors.get("head.weight")
        return CvtConfig(
            in_channels=embeds[0][1],
            num_classes=head.shape[0] if head else 0,
            depths=tuple(_depth(tensors, index) for index in range(STAGES)),
            widths=tuple(shape[0] for shape in embeds),
            mlp_ratio=tensors[f"{first}.mlp.fc1.weight"].shape[0] / embeds[0][0],
            qkv_bias=f"{first}.attn.proj_q.bias" in tensors,
            activation="quick_gelu",
            kernels=tuple(shape[2] for shape in embeds),
            projection_kernel=tensors[f"{first}.attn.conv_proj_q.conv.weight"].shape[2],
        )
    except (KeyError, IndexError, ZeroDivisionError):
        raise CheckpointError(f"{raw.origin} lacks arrays of the authors' CvT; it is damaged.") from None
    except ConfigError as error:
        raise CheckpointError(
            f"{raw.origin} holds no CvT of a published kind: {error} Give its configuration, load(..., model=)."
        ) from None


def write(config: CvtConfig, params: Mapping[str, Any], class_names: Sequence[str]) -> Written:
    """Return a model as the authors' file has it: the state alone, and how many batches its norms have seen.

    Raises:
      ConfigError: the authors' code has no such model.
    """
    if not config.final_norm:
        raise ConfigError("the authors' CvT has a norm after its last stage; choose 'hf' or 'orbax'.")
    own = rules(config)
    counts = batch_counts(own, params)
    return Written(config, params, own, constants=counts, unsaid=("image_size",), inside="")


def _depth(names: Iterable[str], index: int) -> int:
    return sum(bool(re.fullmatch(rf"stage{index}\.blocks\.\d+\.norm1\.weight", name)) for name in names)


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    check_model(raw, model, "a CvT", "cvt")
    config = describe(raw) if model is None else model
    return raw, Layout(config, rules(config), COMPUTED)


READING = Reading("Microsoft's CvT", lambda raw: _FIRST in raw.tensors, _read)
