"""Files of timm's Hieras; the authors' have the same names but for norm and head."""

import dataclasses
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.hiera import names
from vit_jax.models.hiera.config import HieraConfig, Stack, stacks
from vit_jax.models.hiera.mae_config import HieraMaeConfig
from vit_jax.models.preprocessing import IMAGENET, Preprocessing
from vit_jax.models.registry import ModelConfig
from vit_jax.weights.formats.tensors import RawCheckpoint, Tensor
from vit_jax.weights.layouts.blocks import FROM_HEADS, TO_HEADS
from vit_jax.weights.layouts.layout import Layout, Reading, Written, check_model
from vit_jax.weights.layouts.problem_type import problem_type, read_problem
from vit_jax.weights.layouts.timm.config import class_names, values_of
from vit_jax.weights.layouts.timm.hiera_arguments import arguments_of, with_arguments
from vit_jax.weights.preprocessing_formats import from_timm, to_timm
from vit_jax.weights.rules import CONV, FLAT, ROW, Rule, affine, map_first, norm, pixel_shuffle, rule

# Heads of the first stage, where no published size says otherwise one for each 96 of its width.
_HEADS = {112: 2, 144: 2, 256: 4}


def is_hiera(tensors: Mapping[str, Tensor]) -> bool:
    """Return whether arrays have the names of timm's or the authors' Hieras: one list of blocks of several widths."""
    widths = {t.shape for name, t in tensors.items() if re.fullmatch(r"blocks\.\d+\.norm2\.weight", name)}
    pooled = any(".attn.pool_q." in name for name in tensors)  # an MViT, of which Hiera is what was left
    return (
        len(widths) > 1
        and not pooled
        and {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight"} <= tensors.keys()
    )


def rules(config: HieraConfig) -> list[Rule]:
    """Return the rules of a model."""
    found = affine("patch_embed", "patch_embed.proj", CONV)
    if config.position == "window":
        found.append(rule("pos_embed", "pos_embed", form=map_first(config.position_grid)))
        unit = map_first((config.mask_unit, config.mask_unit))
        found.append(rule("pos_embed_window", "pos_embed_win", form=unit))
    else:
        found.append(rule("pos_embed", "pos_embed", form=ROW))
    starts = [stage.start for stage in config.stages]
    found += block_rules(
        config, ("norm1", "norm2"), lambda stack: ("blocks.{l}", starts[stack.stage] + stack.first)
    )
    found += norm("norm", "head.norm") if config.pool_norm else []
    return found + (affine("head", "head.fc") if config.num_classes else [])


def block_rules(
    config: HieraConfig, norms: tuple[str, str], named: Callable[[Stack], tuple[str, int]]
) -> list[Rule]:
    """Return the rules of all blocks.

    Args:
      config: the model.
      norms: their names of the two norms of a block.
      named: of a stack, what the names of its blocks begin with, and which number the first has.
    """
    found = []
    for stack in stacks(config):
        ours, (theirs, first) = stack.path, named(stack)
        own = one_block(ours, theirs, norms)
        if stack.entry and config.shortcut == "project":
            own += affine(f"{ours}/proj", f"{theirs}.proj")
        if config.layer_scale is not None:
            own += [rule(f"{ours}/scale{i}/gamma", f"{theirs}.ls{i}.gamma") for i in (1, 2)]
        found += [dataclasses.replace(item, first=first) for item in own]
    return found


def one_block(ours: str, theirs: str, norms: tuple[str, str]) -> list[Rule]:
    """Return the rules of plain blocks, see `block_rules`."""
    return [
        *norm(f"{ours}/norm1", f"{theirs}.{norms[0]}"),
        *norm(f"{ours}/norm2", f"{theirs}.{norms[1]}"),
        rule(f"{ours}/attn/qkv/kernel", f"{theirs}.attn.qkv.weight", form=TO_HEADS),
        rule(f"{ours}/attn/qkv/bias", f"{theirs}.attn.qkv.bias", form=FLAT),
        *affine(f"{ours}/attn/out", f"{theirs}.attn.proj", FROM_HEADS),
        *affine(f"{ours}/mlp/fc1", f"{theirs}.mlp.fc1"),
        *affine(f"{ours}/mlp/fc2", f"{theirs}.mlp.fc2"),
    ]


def fusion_rules(config: HieraMaeConfig, theirs: str) -> list[Rule]:
    """Return the rules of what joins the stages of a masked autoencoder; `theirs` is what their names begin with."""
    heads = range(config.encoder.pooled_stages)
    return [item for i in heads for item in affine(f"fusion/{i}", f"{theirs}.{i}", CONV)]


def pixel_rules(config: HieraMaeConfig, theirs: str) -> list[Rule]:
    """Return the rules of the layer that predicts pixels: channel by channel where ours goes pixel by pixel."""
    form = pixel_shuffle(config.patch_size, config.encoder.in_channels, convolution=False)
    return [
        rule("decoder/head/kernel", f"{theirs}.weight", form=form),
        rule("decoder/head/bias", f"{theirs}.bias", form=form),
    ]


def from_shapes(
    tensors: Mapping[str, Tensor], origin: str, preprocessing: Preprocessing = IMAGENET
) -> HieraConfig:
    """Return the model that arrays belong to; images are square, and mask units as large as they can be.

    Raises:
      CheckpointError: the arrays are not those of a Hiera.
    """
    try:
        width, channels, kernel, _ = tensors["patch_embed.proj.weight"].shape
        count = len({m[1] for name in tensors if (m := re.match(r"blocks\.(\d+)\.", name))})
        widths = [tensors[f"blocks.{block}.norm2.weight"].shape[0] for block in range(count)]
        depths = [widths.count(width) for width in sorted(set(widths))]
        positions = tensors["pos_embed"].shape
        fields: dict[str, Any] = dict(image_size=4 * math.isqrt(positions[1]))
        if len(positions) == 4:
            unit = tensors["pos_embed_win"].shape[-1]
            fields = dict(
                image_size=256,
                position="window",
                position_grid=positions[2:],
                mask_unit=unit,
                resample_antialias=True,
            )
        head = tensors.get("head.fc.weight")
        return HieraConfig(
            in_channels=channels,
            num_classes=head.shape[0] if head else 0,
            patch_kernel=kernel,
            width=width,
            heads=_HEADS.get(width, max(1, width // 96)),
            depths=tuple(depths),
            mlp_ratio=tensors["blocks.0.mlp.fc1.weight"].shape[0] / width,
            pooled_stages=len(depths) - 1,
            shortcut="project"
            if any(re.fullmatch(r"blocks\.\d+\.proj\.weight", name) for name in tensors)
            else "pool",
            layer_scale=1e-5 if "blocks.0.ls1.gamma" in tensors else None,
            preprocessing=preprocessing,
            **{"mask_unit": 2 ** (len(depths) - 1), **fields},
        )
    except (KeyError, ValueError, IndexError, ConfigError) as error:
        raise CheckpointError(f"{origin} lacks arrays of a Hiera, or they do not fit: {error}") from None


def _from_document(raw: RawCheckpoint) -> HieraConfig:
    about = raw.documents["config.json"]
    known, arguments = (values_of(about, name, raw.origin) for name in ("pretrained_cfg", "model_args"))
    said = f"{raw.origin}: config.json says architecture {about['architecture']!r:.60}"
    try:
        found = names.resolve(str(about["architecture"]))
    except ConfigError as error:
        raise CheckpointError(f"{said}; {error}") from None
    if found is None:
        raise CheckpointError(f"{said}, which is no Hiera; `vit-jax models 'hiera*'` lists them.")
    config = found[1]
    if about.get("num_classes") is not None:
        arguments.setdefault("num_classes", about["num_classes"])
    preprocessing, size = from_timm({"input_size": (config.in_channels, *config.image_size), **known})
    arguments.setdefault("img_size", size)
    if not {"mean", "std"} <= known.keys():
        preprocessing = config.preprocessing
    config = with_arguments(config, arguments, raw.origin)
    return dataclasses.replace(config, preprocessing=preprocessing, problem=read_problem(about, raw.origin))


def _claims(raw: RawCheckpoint) -> bool:
    authors = {"norm.weight", "encoder_norm.weight", "head.projection.weight"}
    return is_hiera(raw.tensors) and not authors & raw.tensors.keys()


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    check_model(raw, model, "a Hiera", "hiera")
    document = raw.documents.get("config.json", {})
    if model is not None:
        config = model
    elif "architecture" in document:
        config = _from_document(raw)
    else:
        config = from_shapes(raw.tensors, raw.origin)
    return raw, Layout(config, rules(config), class_names=class_names(document))


READING = Reading("timm's Hiera", _claims, _read)


def write(config: HieraConfig, params: Mapping[str, Any], labels: Sequence[str]) -> Written:
    """Return a Hiera in timm's words."""
    known = {
        name: config for name in names.architectures() for _, config in [names.resolve(name) or ("", None)]
    }
    said = {name: arguments_of(config, base) for name, base in known.items() if base is not None}
    architecture = min(said, key=lambda name: len(said[name]))
    about = {
        "architecture": architecture,
        "num_classes": config.num_classes,
        "num_features": config.feature_width,
        "global_pool": "avg",
        "model_args": {"img_size": list(config.image_size), **said[architecture]},
        "pretrained_cfg": {
            **to_timm(config.preprocessing, config.image_size, config.in_channels),
            "num_classes": config.num_classes,
            "fixed_input_size": True,
            "first_conv": "patch_embed.proj",
            "classifier": "head.fc",
        },
    }
    if config.problem != "single_label":
        about |= problem_type(config)
    if labels:
        about["label_names"] = list(labels)
    return Written(config, params, rules(config), {"config.json": about})
