"""timm's MultiScaleVit: names of its arrays, what model they are of, and the `config.json` beside them."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace as changed
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError, choose
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.mvit.config import SIZES, STAGES, MvitConfig
from vit_jax.models.preprocessing import IMAGENET
from vit_jax.models.registry import ModelConfig
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.blocks import FROM_HEADS, TO_HEADS, norms
from vit_jax.weights.layouts.layout import Layout, Reading, Written, check_model
from vit_jax.weights.layouts.problem_type import problem_type, read_problem
from vit_jax.weights.layouts.timm.config import class_names
from vit_jax.weights.preprocessing_formats import from_timm, to_timm
from vit_jax.weights.rules import CONV, DEPTHWISE, FLAT, ROW, Rule, affine, norm, rule

FIRST = "stages.0.blocks.0.attn.pool_q.weight"
_POOLS = {"token": "cls", "avg": "mean"}
# Of the class's arguments, those that say how a model trains, or again what the arrays say.
_WITHOUT_EFFECT = {"img_size", "in_chans", "num_classes", "drop_path_rate", "drop_rate"}


def rules(config: MvitConfig) -> list[Rule]:
    """Return the rules of a model."""
    found = affine("patch_embed", "patch_embed.proj", CONV)
    if config.class_token:
        found.append(rule("class_token", "cls_token", form=ROW))
    for stage, runs in enumerate(config.stages()):
        for number, run in enumerate(runs):
            ours, theirs = f"stages/{stage}/runs/{number}/blocks", f"stages.{stage}.blocks.{{l}}"
            block = norms(ours, {"norm1": f"{theirs}.norm1", "norm2": f"{theirs}.norm2"})
            block.append(rule(f"{ours}/attn/qkv/kernel", f"{theirs}.attn.qkv.weight", form=TO_HEADS))
            if config.qkv_bias:
                block.append(rule(f"{ours}/attn/qkv/bias", f"{theirs}.attn.qkv.bias", form=FLAT))
            for letter in "qkv":
                pool = f"{ours}/attn/pool_{letter}"
                kernel = rule(f"{pool}/kernel", f"{theirs}.attn.pool_{letter}.weight", form=DEPTHWISE)
                block += [kernel, *norm(f"{pool}/norm", f"{theirs}.attn.norm_{letter}")]
            block += [rule(f"{ours}/attn/positions/{a}", f"{theirs}.attn.rel_pos_{a}") for a in "hw"]
            block += affine(f"{ours}/attn/out", f"{theirs}.attn.proj", FROM_HEADS)
            block += affine(f"{ours}/mlp/fc1", f"{theirs}.mlp.fc1")
            block += affine(f"{ours}/mlp/fc2", f"{theirs}.mlp.fc2")
            skips = {"skip1": run.inputs != run.width, "skip2": run.width != run.outputs}
            for (skip, there), name in zip(skips.items(), ("attn", "mlp")):
                block += affine(f"{ours}/{skip}", f"{theirs}.shortcut_proj_{name}") if there else []
            found += [changed(item, first=run.first) for item in block]
    found += norm("norm", "norm")
    return found + (affine("head", "head.fc") if config.num_classes else [])


def from_shapes(raw: RawCheckpoint) -> MvitConfig:
    """Return the model of a file, from the shapes of its arrays alone, with strides as published.

    Raises:
      CheckpointError: arrays are missing, or are of no MViT.
    """
    tensors = raw.tensors
    try:
        width, channels, kernel, _ = tensors["patch_embed.proj.weight"].shape
        k, _, pool, _ = tensors[FIRST].shape
        block, head = "stages.0.blocks.0", tensors.get("head.fc.weight")
        rows = [tensors[f"{block}.attn.rel_pos_{axis}"].shape[0] for axis in "hw"]
        hidden, attended = tensors[f"{block}.mlp.fc1.weight"].shape
        token = "cls_token" in tensors
        return MvitConfig(
            image_size=(2 * (rows[0] + 1), 2 * (rows[1] + 1)),  # four pixels a place
            in_channels=channels,
            num_classes=head.shape[0] if head else 0,
            depths=tuple(_depth(tensors, stage) for stage in range(STAGES)),
            head_dim=k,
            mlp_ratio=hidden / attended,
            qkv_bias=f"{block}.attn.qkv.bias" in tensors,
            width=width,
            widen="mlp" if any("shortcut_proj_mlp" in name for name in tensors) else "attention",
            patch_kernel=kernel,
            patch_pad=kernel // 2,
            pool_kernel=pool,
            class_token=token,
            pool="cls" if token else "mean",
            preprocessing=IMAGENET,
        )
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        raise CheckpointError(f"{raw.origin} lacks arrays of an MViT; it is damaged.") from None
    except ConfigError as error:
        raise CheckpointError(
            f"{raw.origin} holds no MViT of a published kind: {error} Give its configuration, load(..., model=)."
        ) from None


def write(config: MvitConfig, params: Mapping[str, Any], labels: Sequence[str]) -> Written:
    """Return a model in timm's words.

    Raises:
      ConfigError: timm has no such architecture.
    """
    size = next((size for size, fields in SIZES.items() if _is(config, fields)), None)
    if size is None:
        raise ConfigError(
            f"timm has no MViTv2 of width {config.width} and depths {config.depths}; choose 'orbax', or a size of "
            f"{', '.join(SIZES)}."
        )
    pool = {ours: theirs for theirs, ours in _POOLS.items()}[config.pool]
    arguments: dict[str, Any] = {"img_size": list(config.image_size), "global_pool": pool}
    if config.in_channels != 3:
        arguments["in_chans"] = config.in_channels
    about = {
        "architecture": f"mvitv2_{size}",
        "num_classes": config.num_classes,
        "num_features": config.last_width,
        "global_pool": pool,
        "model_args": arguments,
        "pretrained_cfg": {
            **to_timm(config.preprocessing, config.image_size, config.in_channels),
            "num_classes": config.num_classes,
            "fixed_input_size": True,
            "first_conv": "patch_embed.proj",
            "classifier": "head.fc",
        },
        **(problem_type(config) if config.problem != "single_label" else {}),
        **({"label_names": list(labels)} if labels else {}),
    }
    return Written(config, params, rules(config), {"config.json": about})


def _is(config: MvitConfig, fields: Mapping[str, Any]) -> bool:
    """Return whether a model is of a published size, whatever its images, classes and pooling are."""
    base = replace(MvitConfig(), **fields)
    known = ("depths", "width", "head_dim", "widen", "class_token")
    return all(getattr(config, name) == getattr(base, name) for name in known)


def described(config: MvitConfig, raw: RawCheckpoint) -> MvitConfig:
    """Return a model with what the `config.json` beside its arrays says of it.

    Raises:
      CheckpointError: it says something we do not know.
    """
    about = raw.documents.get("config.json", {})
    if "architecture" not in about:
        return config
    arguments = about.get("model_args") or {}
    known = about.get("pretrained_cfg") or {}
    for name in arguments if isinstance(arguments, Mapping) else ("model_args",):
        if name not in (*_WITHOUT_EFFECT, "global_pool"):
            raise CheckpointError(
                f"{raw.origin}: config.json has model_args {name!r:.60}, which this library does not know."
            )
    pool = arguments.get("global_pool") or about.get("global_pool")
    try:
        if pool is not None:
            choose(pool, _POOLS, "global_pool")
            config = replace(config, pool=_POOLS[pool])
        if isinstance(known, Mapping) and {"mean", "std"} <= known.keys():
            config = replace(config, preprocessing=from_timm(known)[0])
    except ConfigError as error:
        raise CheckpointError(f"{raw.origin}: config.json describes no model: {error}") from None
    return replace(config, problem=read_problem(about, raw.origin))


def read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    """Return a file and its layout, see `Reading`."""
    check_model(raw, model, "an MViT", "mvit")
    config = described(from_shapes(raw), raw) if model is None else model
    names = class_names(raw.documents.get("config.json", {}))
    return raw, Layout(config, rules(config), class_names=names)


def _depth(names: Mapping[str, Any], stage: int) -> int:
    return sum(bool(re.fullmatch(rf"stages\.{stage}\.blocks\.\d+\.norm1\.weight", name)) for name in names)


READING = Reading("timm's MViTv2", lambda raw: FIRST in raw.tensors, read)
