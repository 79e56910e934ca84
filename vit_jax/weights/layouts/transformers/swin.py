"""transformers' Swin and Swin v2: what model `config.json` describes, and names in files and in memory."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace as changed
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.layers.pixels.sizes import pair
from vit_jax.models.registry import ModelConfig
from vit_jax.models.swin.config import VERSION_2, SwinConfig
from vit_jax.models.swin.names import TRANSFORMERS, transformers_fields
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.blocks import FROM_HEADS, norms, split_attention
from vit_jax.weights.layouts.layout import Layout, Reading, Written, check_model
from vit_jax.weights.layouts.problem_type import problem_type, read_problem
from vit_jax.weights.layouts.timm.swin import positions
from vit_jax.weights.layouts.transformers.config import HIDDEN_ACTS, activation, class_names, settings
from vit_jax.weights.layouts.transformers.document import label_names
from vit_jax.weights.layouts.transformers.vit import placed
from vit_jax.weights.preprocessing_formats import from_hf, to_hf
from vit_jax.weights.rules import CONV, ROW, Rule, affine, norm, pixel_shuffle, rule

COMPUTED = ("*relative_position_index", "*relative_coords_table")
PREFIXES = ("swin.", "swinv2.")
# What transformers assumes when a `config.json` does not say.
_DEFAULTS = dict(
    image_size=224, patch_size=4, num_channels=3, embed_dim=96, window_size=7, mlp_ratio=4.0, qkv_bias=True,
    hidden_act="gelu", layer_norm_eps=1e-5, use_absolute_embeddings=False, encoder_stride=32,
)  # fmt: skip
_LISTS: dict[str, Any] = dict(
    depths=[2, 2, 6, 2], num_heads=[3, 6, 12, 24], pretrained_window_sizes=[0, 0, 0, 0]
)
# Names in files -> in memory since version 5, of version 1 alone.
_IN_MEMORY = (
    (r"attention\.self\.query", "attention.q_proj"),
    (r"attention\.self\.key", "attention.k_proj"),
    (r"attention\.self\.value", "attention.v_proj"),
    (r"attention\.output\.dense", "attention.o_proj"),
    (
        r"attention\.self\.relative_position_bias_table",
        "attention.relative_position_bias.relative_position_bias_table",
    ),
    (r"intermediate\.dense", "mlp.fc1"),
    (r"output\.dense", "mlp.fc2"),
)


def layout(raw: RawCheckpoint) -> Layout:
    """Return the model of a `config.json` and where its parameters are.

    Raises:
      CheckpointError: it is a model we do not have, or says something we do not know.
    """
    document = raw.documents["config.json"]
    try:
        config, size = _described(raw, document)
    except ConfigError as error:
        raise CheckpointError(f"{raw.origin}: config.json describes no model: {error}") from None
    found = rules(config, f"{document['model_type']}.")
    if any(".attention.q_proj." in name for name in raw.tensors):
        found = [_renamed(item) for item in found]
    found = placed(found, PREFIXES, raw.tensors)
    classes = class_names(document, raw.origin) if config.num_classes and config.pool == "mean" else ()
    return Layout(config, found, COMPUTED, size, classes)


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    check_model(raw, model, "what its config.json says")
    return raw, layout(raw)


def _reading(model_type: str) -> Reading:
    return Reading(
        f"transformers' {model_type}",
        lambda raw: raw.documents.get("config.json", {}).get("model_type") == model_type,
        _read,
    )


SWIN, SWINV2 = _reading("swin"), _reading("swinv2")


def _described(raw: RawCheckpoint, document: Mapping[str, Any]) -> tuple[SwinConfig, tuple[int, int] | None]:
    about = settings(_DEFAULTS, document, f"{raw.origin}: config.json")
    lists = {name: _integers(about.get(name, default), name, raw.origin) for name, default in _LISTS.items()}
    second = document["model_type"] == "swinv2"
    if about["use_absolute_embeddings"]:
        raise CheckpointError(
            f"{raw.origin}: config.json says use_absolute_embeddings True; this library has no absolute positions in "
            "Swin Transformers, nor has any published model."
        )
    own = pair(about["image_size"], "image_size")
    processor = raw.documents.get("preprocessor_config.json")
    preprocessing, size = (TRANSFORMERS, None) if processor is None else from_hf(processor, own)
    outputs: dict[str, Any] = {"num_classes": 0}
    if "classifier.weight" in raw.tensors:
        outputs = {"num_classes": raw.tensors["classifier.weight"].shape[0]}
    elif "decoder.0.weight" in raw.tensors:
        outputs = {"num_classes": raw.tensors["decoder.0.weight"].shape[0], "pool": "patches"}
    config = SwinConfig(
        image_size=own,
        patch_size=pair(about["patch_size"], "patch_size"),
        in_channels=about["num_channels"],
        problem=read_problem(document, raw.origin),
        width=about["embed_dim"],
        depths=lists["depths"],
        heads=lists["num_heads"],
        mlp_ratio=float(about["mlp_ratio"]),
        window_size=about["window_size"],
        pretrained_windows=lists["pretrained_window_sizes"] if second else (),
        qkv_bias=about["qkv_bias"],
        activation=activation(about["hidden_act"], raw.origin),
        norm_epsilon=about["layer_norm_eps"],
        mask_token=any(name.endswith("embeddings.mask_token") for name in raw.tensors),
        preprocessing=preprocessing,
        **transformers_fields(second),
        **(VERSION_2 if second else {}),
        **outputs,
    )
    return config, size


def _integers(value: Any, name: str, origin: str) -> tuple[int, ...]:
    if not isinstance(value, list | tuple) or not all(type(number) is int for number in value):
        raise CheckpointError(
            f"{origin}: config.json says {name} {value!r:.60}; it must be a list of whole numbers."
        )
    return tuple(value)


def rules(config: SwinConfig, prefix: str) -> list[Rule]:
    """Return the rules of a model, with names of files.

    Args:
      config: the model.
      prefix: what the backbone's names begin with: `swin.`, `swinv2.` or nothing.
    """
    found = affine("patch_embed", "embeddings.patch_embeddings.projection", CONV)
    found += norm("patch_embed/norm", "embeddings.norm")
    if config.mask_token:
        found.append(rule("mask_token", "embeddings.mask_token", form=ROW))
    mlp = "continuous_position_bias_mlp"
    for stage in range(len(config.depths)):
        ours, theirs = f"stages/{stage}/blocks", f"encoder.layers.{stage}.blocks.{{l}}"
        if stage:
            merge = f"encoder.layers.{stage - 1}.downsample"
            found += affine(f"stages/{stage}/merge/reduction", f"{merge}.reduction", bias=False)
            found += norm(f"stages/{stage}/merge/norm", f"{merge}.norm")
        found += [
            *norms(ours, {"norm1": f"{theirs}.layernorm_before", "norm2": f"{theirs}.layernorm_after"}),
            *split_attention(config.blocks(stage), f"{ours}/attn/qkv", f"{theirs}.attention.self"),
            *affine(f"{ours}/attn/out", f"{theirs}.attention.output.dense", FROM_HEADS),
            *positions(config, f"{ours}/attn", f"{theirs}.attention.self", mlp),
            *affine(f"{ours}/mlp/fc1", f"{theirs}.intermediate.dense"),
            *affine(f"{ours}/mlp/fc2", f"{theirs}.output.dense"),
        ]
    found = [item.prefixed(theirs=prefix) for item in found + norm("norm", "layernorm")]
    if not config.num_classes:
        return found
    if config.pool == "mean":
        return found + affine("head", "classifier")
    pixels = pixel_shuffle(encoder_stride(config), config.in_channels)
    return [
        *found,
        rule("head/kernel", "decoder.0.weight", form=pixels),
        rule("head/bias", "decoder.0.bias", form=pixels),
    ]


def encoder_stride(config: SwinConfig) -> tuple[int, int]:
    """Return the height and width of the pixels that a place of the last map predicts.

    Raises:
      ConfigError: the outputs are no pixels of a square.
    """
    side = round((config.num_classes / config.in_channels) ** 0.5)
    if side**2 * config.in_channels != config.num_classes:
        raise ConfigError(
            f"num_classes is {config.num_classes}, which is no square of {config.in_channels}-channel pixels, as "
            "transformers' masked image modelling predicts; choose 'orbax'."
        )
    return side, side


def _renamed(item: Rule) -> Rule:
    theirs = item.theirs
    for old, new in _IN_MEMORY:
        theirs = tuple(re.sub(old, new, name) for name in theirs)
    return changed(item, theirs=theirs)


def write(config: SwinConfig, params: Mapping[str, Any], names: Sequence[str]) -> Written:
    """Return a model in transformers' words.

    Raises:
      ConfigError: transformers has no such model.
    """
    if len(config.window_size) > 1:
        raise ConfigError(
            f"window_size is {config.window_size}; transformers has one number for all stages; choose 'timm'."
        )
    second = config.position_bias == "log"
    kind, word = ("swinv2", "Swinv2") if second else ("swin", "Swin")
    image = config.pool == "mean"
    ending = (
        ("ForImageClassification" if image else "ForMaskedImageModeling") if config.num_classes else "Model"
    )
    square = {"image_size": config.image_size, "patch_size": config.patch_size}
    about: dict[str, Any] = {
        **{name: size[0] if size[0] == size[1] else list(size) for name, size in square.items()},
        "model_type": kind,
        "architectures": [f"{word}{ending}"],
        "num_channels": config.in_channels,
        "embed_dim": config.width,
        "depths": list(config.depths),
        "num_heads": list(config.heads),
        "num_layers": len(config.depths),
        "hidden_size": config.feature_width,
        "window_size": max(config.window_size),  # one for all stages
        "mlp_ratio": config.mlp_ratio,
        "qkv_bias": config.qkv_bias,
        "hidden_act": HIDDEN_ACTS[config.activation],
        "layer_norm_eps": config.norm_epsilon,
        "use_absolute_embeddings": False,
        "encoder_stride": 32 if image or not config.num_classes else encoder_stride(config)[0],
        "dtype": "float32",
    }
    if second:
        about["pretrained_window_sizes"] = list(config.pretrained_windows or [0] * len(config.depths))
    if config.num_classes and image:
        about |= {**label_names(config.num_classes, names), **problem_type(config)}
    processor = to_hf(config.preprocessing, config.image_size, "ViTImageProcessor", config.in_channels)
    documents = {"config.json": about, "preprocessor_config.json": processor}
    return Written(config, params, rules(config, f"{kind}." if config.num_classes else ""), documents)
