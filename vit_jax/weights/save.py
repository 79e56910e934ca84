"""A model of ours as a checkpoint that another library reads."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

from vit_jax import trees
from vit_jax.errors import CheckpointError, ConfigError, argument, choose
from vit_jax.models.families import family_of, is_image_encoder
from vit_jax.models.functional import buffers_of, parameters
from vit_jax.models.registry import ModelConfig
from vit_jax.paths import check_output
from vit_jax.weights.differences import differences
from vit_jax.weights.formats import npz_format, safetensors_format, torch_writing
from vit_jax.weights.formats.arrays import Arrays
from vit_jax.weights.formats.tensors import RawCheckpoint, replacing
from vit_jax.weights.layouts.layout import Written
from vit_jax.weights.layouts.table import formats_of, writing
from vit_jax.weights.native import save_native
from vit_jax.weights.understand import understand

FORMATS = ("timm", "hf", "npz", "torchvision", "pth", "orbax")
DTYPES = {"float32": np.float32, "bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
# Files without a description say nothing of preprocessing and outputs.
_UNSAID = {
    "npz": ("problem", ".interpolation", ".crop", ".crop_mode", ".transforms"),
    "torchvision": (
        "image_size", "problem", ".mean", ".std", ".interpolation", ".crop", ".crop_mode", ".transforms",
    ),
    "pth": ("problem", ".mean", ".std", ".interpolation", ".crop", ".crop_mode", ".transforms"),
}  # fmt: skip
LIBRARIES = {
    "timm": "timm", "hf": "transformers", "npz": "Google's npz", "torchvision": "torchvision",
    "pth": "the authors' format",
}  # fmt: skip


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
      path: the folder to write (`timm`, `hf`, `torchvision`, `orbax`) or the file (`npz`, `pth`).
      format: `timm` (`model.safetensors` and `config.json`, as on its hub), `hf` (transformers: also
        `preprocessor_config.json`), `npz` (vision_transformer's names, or big_vision's where only they will do),
        `torchvision` (the state of its module as `model.safetensors`), `pth` (the file of PyTorch that the model's
        authors publish and load) or `orbax` (ours).
      dtype: of the arrays: `float32`, or `bfloat16` or `float16`, which lose digits and are not for `orbax`.
      class_names: in order of logits.
      ignore: fields of the configuration and parameters that the format may lose, for example `norm_epsilon`.

    Returns:
      What was written, and what the format does not say, in words.

    Raises:
      ConfigError: the format cannot say what the model computes; or a wrong argument.
      ResourceError: the disk is full or the folder may not be written.
    """
    flat = trees.flatten(parameters(model)) | trees.flatten(buffers_of(model))
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
    if format == "pth" and target.suffix != ".pth":
        raise ConfigError(f"{target} is to be a file of PyTorch; give it a name that ends with .pth.")
    if format == "orbax":
        for name, given in (("dtype", dtype != "float32"), ("ignore", bool(ignore))):
            if given:
                raise ConfigError(f"format 'orbax' keeps everything, in float32; leave out {argument(name)}.")
        save_native(target, config, params, tuple(class_names))
        return f"{target}: {len(params)} parameters"
    said = _said(config, params, format, class_names)
    config, params, rules, documents = said.config, said.params, said.rules, said.documents
    covered = {path for rule in rules for path in rule.ours}
    homeless = sorted(params.keys() - covered)
    for parameter in homeless:
        if not _named(parameter, ignore):
            lose = "" if parameter.startswith("head") else f", or lose it: {argument('ignore', [parameter])}"
            raise ConfigError(
                f"{LIBRARIES[format]} has no place for {parameter}; choose another format{lose}."
            )
    held = {path: params[path] for path in covered & params.keys()}
    arrays = Arrays(held, rules, np.dtype(DTYPES[dtype]), said.constants)
    weights = said.inside if format == "pth" else ""
    written = RawCheckpoint(str(target), format, arrays.tensors(), documents, weights)
    unsaid = (*_UNSAID.get(format, ()), *said.unsaid)
    lost = {path: f"{path}, which is left out" for path in homeless}
    lost |= _lost(config, written, format, unsaid, ignore)
    if format in _UNSAID and class_names:
        lost["class_names"] = f"class_names {class_names[0]!r} to {class_names[-1]!r}, which become numbers"
    for word in ignore:
        if not any(_named(name, [word]) for name in lost):
            raise ConfigError(
                f"{argument('ignore')} has {word!r}, but {LIBRARIES[format]} loses "
                f"{', '.join(lost) or 'nothing'}; leave it out."
            )
    if format == "npz":
        npz_format.write(target, arrays.specs(), arrays.read)
    elif format == "pth":
        torch_writing.write(target, arrays.specs(), arrays.read, said.inside)
    else:
        safetensors_format.write(target / "model.safetensors", arrays.specs(), arrays.read, {"format": "pt"})
        for name, document in documents.items():
            with replacing(target / name) as temporary:
                temporary.write_text(json.dumps(document, indent=2) + "\n")
    notes = [f"  not expressed by {LIBRARIES[format]}: {line}" for line in lost.values()]
    return "\n".join(
        [f"{target}: {len(arrays.names)} arrays, {' and '.join(documents) or 'no description'}", *notes]
    )


def _said(config: ModelConfig, params: Mapping[str, Any], format: str, class_names: Sequence[str]) -> Written:
    """Return a model in the words of a library."""
    family = family_of(config).name
    write = writing(format, family)
    if write is None:
        kind = type(config).__name__.removesuffix("Config")
        part = (
            f"load one part of it, with {argument('part')}, or "
            if any(family_of(config).parts.values())
            else ""
        )
        others = " or ".join(map(repr, (*formats_of(family), "orbax")))
        raise ConfigError(f"{LIBRARIES[format]} has no {kind}; {part}choose {others}.")
    return write(config, params, class_names)


def _lost(
    config: ModelConfig, written: RawCheckpoint, format: str, unsaid: tuple[str, ...], ignore: Sequence[str]
) -> dict[str, str]:
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
        # What such a file says nothing of, its readers take as they do; that they resize otherwise is worth a note.
        note = name.endswith(unsaid)
        if not note and not _named(name, ignore):
            remedy = _said_otherwise(config) if "preprocessing." in name else ""
            raise ConfigError(
                f"{LIBRARIES[format]} cannot express {line}; {remedy}{argument('ignore', [name])} writes it anyway."
            )
        lines[name] = line
    return lines


def _said_otherwise(config: ModelConfig) -> str:
    """Return the remedy for preprocessing that a format cannot say."""
    if not is_image_encoder(config):
        return ""
    height, width = config.image_size
    size = height if height == width else config.image_size
    text = f"decode|resize({size}, {config.preprocessing.interpolation!r})"
    given = argument("eval_transforms", text, key="data.eval_transforms")
    return f"evaluate with a different one and record that, {given}; or "


def _named(name: str, ignore: Sequence[str]) -> bool:
    """Return whether a field or a parameter, or what it is part of, is to be ignored."""
    return any(name == word or name.startswith((f"{word}/", f"{word}.")) for word in ignore)
