"""A model of ours as a checkpoint that another library reads."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vit_jax import trees
from vit_jax.errors import CheckpointError, ConfigError, choose
from vit_jax.models.functional import parameters
from vit_jax.models.registry import ModelConfig
from vit_jax.models.text_config import ImageTextConfig
from vit_jax.models.vit_config import ViTConfig
from vit_jax.paths import check_output
from vit_jax.weights import npz_format, safetensors_format
from vit_jax.weights.arrays import Arrays
from vit_jax.weights.differences import differences
from vit_jax.weights.layouts import google, timm_document, transformers_document
from vit_jax.weights.native import save_native
from vit_jax.weights.preprocessing_formats import to_hf
from vit_jax.weights.rules import Rule
from vit_jax.weights.tensors import RawCheckpoint, replacing
from vit_jax.weights.understand import understand

FORMATS = ("timm", "hf", "npz", "orbax")
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
LIBRARIES = {"timm": "timm", "hf": "transformers", "npz": "Google's npz"}


def save(
    model: Any,
    path: str | Path,
    format: str = "orbax",
    *,
    dtype: str = "float32",
    class_names: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> str:
    """Write a model's parameters and description so that another library reads them.

    Args:
      model: a model of this library, for example from `load` or `create_model`.
      path: the folder to write (`timm`, `hf`, `orbax`) or the file (`npz`).
      format: `timm` (`model.safetensors` and `config.json`, as on its hub), `hf` (transformers: also
        `preprocessor_config.json`), `npz` (vision_transformer's names, or big_vision's where only they will do) or
        `orbax` (ours).
      dtype: of the arrays: `float32`, or `bfloat16` or `float16`, which lose digits and are not for `orbax`.
      class_names: in order of logits.
      ignore: fields of the configuration and parameters that the format may lose, for example `norm_epsilon`.

    Returns:
      What was written, and what the format does not say, in words.

    Raises:
      ConfigError: the format cannot say what the model computes; or a wrong argument.
      ResourceError: the disk is full or the folder may not be written.
    """
    flat = trees.flatten(parameters(model))
    return save_parameters(
        model.config, flat, path, format, dtype=dtype, class_names=class_names, ignore=ignore
    )


def save_parameters(
    config: ModelConfig,
    params: Mapping[str, Any],
    path: str | Path,
    format: str,
    *,
    dtype: str = "float32",
    class_names: Sequence[str] = (),
    ignore: Sequence[str] = (),
) -> str:
    """Write parameters by path, see `save`."""
    choose(format, FORMATS, "format")
    choose(dtype, DTYPES, "dtype")
    classes = getattr(config, "num_classes", 0)
    if class_names and len(class_names) != classes:
        raise ConfigError(f"class_names has {len(class_names)} names; the model has {classes} classes.")
    target = check_output(path, "the folder or file to write")
    if format == "orbax":
        for name, given in (("dtype", dtype != "float32"), ("ignore", bool(ignore))):
            if given:
                raise ConfigError(f"format 'orbax' keeps everything, in float32; leave out {name}.")
        save_native(target, config, trees.unflatten(dict(params)), tuple(class_names))
        return f"{target}: {len(params)} parameters"
    config, params = _slots(config, params, format)
    documents, rules = _describe(config, format, class_names)
    covered = {path for rule in rules for path in rule.ours}
    homeless = sorted(params.keys() - covered)
    for parameter in homeless:
        if not _named(parameter, ignore):
            raise ConfigError(
                f"{LIBRARIES[format]} has no place for {parameter}; choose another format, or lose it: "
                f"ignore=[{parameter!r}]."
            )
    arrays = Arrays({path: params[path] for path in covered & params.keys()}, rules, np.dtype(DTYPES[dtype]))
    written = RawCheckpoint(str(target), format, arrays.tensors(), documents)
    lost = {path: f"{path}, which is left out" for path in homeless} | _lost(config, written, format, ignore)
    for word in ignore:
        if not any(_named(name, [word]) for name in lost):
            raise ConfigError(
                f"ignore has {word!r}, but {LIBRARIES[format]} loses {', '.join(lost) or 'nothing'}; leave it out."
            )
    if format == "npz":
        npz_format.write(target, arrays.specs(), arrays.read)
    else:
        safetensors_format.write(target / "model.safetensors", arrays.specs(), arrays.read, {"format": "pt"})
        for name, document in documents.items():
            with replacing(target / name) as temporary:
                temporary.write_text(json.dumps(document, indent=2) + "\n")
    notes = [f"  not said by {LIBRARIES[format]}: {line}" for line in lost.values()]
    return "\n".join(
        [f"{target}: {len(arrays.names)} arrays, {' and '.join(documents) or 'no description'}", *notes]
    )


def _slots(
    config: ModelConfig, params: Mapping[str, Any], format: str
) -> tuple[ModelConfig, Mapping[str, Any]]:
    """Return an equal model whose position table has slots where the format wants them.

    transformers' tables always have one for the class token; timm's have none where there are registers.
    """
    if not isinstance(config, ViTConfig) or not config.class_token or config.position != "learned":
        return config, params
    table, token = np.asarray(params["pos_embed"]), np.asarray(params["class_token"])
    own = 1 + int(config.distillation_token)
    if format == "timm" and config.register_tokens and config.class_position and own == 1:
        changed = {"class_token": token + table[:1], "pos_embed": table[1:]}
        return dataclasses.replace(config, class_position=False), {**params, **changed}
    if format == "hf" and not config.class_position:
        changed = {"pos_embed": np.concatenate([np.zeros_like(table[:own]), table])}
        return dataclasses.replace(config, class_position=True), {**params, **changed}
    return config, params


def _describe(
    config: ModelConfig, format: str, class_names: Sequence[str]
) -> tuple[dict[str, Any], Sequence[Rule]]:
    """Return the documents to be written beside the arrays, by name, and the rules of the arrays."""
    if format == "timm":
        if not isinstance(config, ViTConfig):
            kind = type(config).__name__.removesuffix("Config")
            raise ConfigError(
                f"timm has no {kind}; load one part of it, with part=, or choose 'hf' or 'npz'."
            )
        document, rules = timm_document.document(config, class_names)
        return {"config.json": document}, rules
    if format == "hf":
        document, rules = transformers_document.document(config, class_names)
        image: Any = (
            config.image if isinstance(config, ImageTextConfig) else getattr(config, "encoder", config)
        )
        processor = transformers_document.PROCESSORS.get(document["model_type"])
        if processor is None:  # SigLIP 2's images of any shapes have a processor of their own
            return {"config.json": document}, rules
        known = to_hf(image.preprocessing, image.image_size, processor, image.in_channels)
        return {"config.json": document, "preprocessor_config.json": known}, rules
    if isinstance(config, ImageTextConfig):
        return {}, google.image_text_rules(config)
    if not isinstance(config, ViTConfig):
        raise ConfigError("Google's npz holds image encoders and pairs of towers; choose 'hf' or 'orbax'.")
    modern = config.pool != "cls" or not config.class_position or config.position != "learned"
    return {}, google.rules(config, prefix="params/" if modern else "")


def _lost(config: ModelConfig, written: RawCheckpoint, format: str, ignore: Sequence[str]) -> dict[str, str]:
    """Return what a reader of the files would take to be otherwise: field -> in words.

    Raises:
      ConfigError: some of it changes what the model computes, and is not to be ignored.
    """
    try:
        read = understand(written)[1].config
    except CheckpointError as error:
        raise ConfigError(f"{LIBRARIES[format]} cannot hold this model: {error}") from None
    lines: dict[str, str] = {}
    for name, ours, theirs in differences(config, read):
        line = f"{name} {ours}, which becomes {theirs}"
        # npz says nothing of preprocessing; that its readers resize in another way is worth a note.
        note = format == "npz" and name.endswith((".interpolation", ".crop", ".crop_mode"))
        if not note and not _named(name, ignore):
            raise ConfigError(
                f"{LIBRARIES[format]} cannot say {line}; ignore=[{name!r}] writes it all the same."
            )
        lines[name] = line
    return lines


def _named(name: str, ignore: Sequence[str]) -> bool:
    """Return whether a field or a parameter, or what it is part of, is to be ignored."""
    return any(name == word or name.startswith((f"{word}/", f"{word}.")) for word in ignore)
