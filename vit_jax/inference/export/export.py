"""A predictor as a folder that runs without this library's models: program, parameters, description.

`program.stablehlo` is what `jax.export` serialises: StableHLO with any batch size, for CPUs, GPUs and TPUs alike, and
with any height and width for models that take them; `program_b8.stablehlo` is one for batches of 8 alone. jax
promises that later versions read it for six months at least, and the text in it can be given to other tools.
`parameters.safetensors` has its first argument by path, `buffers.safetensors` the second, buffers and frozen networks,
of models that have any, and `description.json` all else; `inference.export.exported` reads them.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from vit_jax import trees
from vit_jax.data.images.resizing import check_integer
from vit_jax.errors import ConfigError
from vit_jax.inference.export.exported import (
    BUFFERS,
    DESCRIPTION,
    FORMAT,
    PARAMETERS,
    digest_of,
    program_name,
)
from vit_jax.inference.predictor import Predictor
from vit_jax.models.config_json import config_to_json
from vit_jax.models.families import family_of
from vit_jax.models.patches import Patches
from vit_jax.paths import check_output
from vit_jax.version import __version__
from vit_jax.weights.formats import safetensors_format
from vit_jax.weights.formats.tensors import replacing

PLATFORMS = ("cpu", "cuda", "tpu")


def export_predictor(predictor: Predictor, folder: str | Path, batch_sizes: Sequence[int] = ()) -> None:
    """Write a predictor to a new folder, from which `ExportedPredictor.load` and `vit-jax predict` read it.

    Args:
      predictor: of any task, its parameters stored as they shall be stored there.
      folder: must not exist, or be empty.
      batch_sizes: write a program for each of these, as compilers and runtimes want that know fixed sizes only; by
        default one that takes any.

    Raises:
      ConfigError: the folder holds something, a batch size is none, or the model's positions need images of one size
        although it takes several.
      ResourceError: it cannot be written.
    """
    folder = check_output(folder, "folder")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"{str(folder)!r} is not an empty folder; export to another one.")
    beside = {"buffers": predictor.buffers, "frozen": dict(predictor.frozen)}
    trained = [predictor.params, beside] if jax.tree.leaves(beside) else [predictor.params]
    flats = [trees.flatten(tree) for tree in trained]
    model = predictor.model

    def program(*arguments: Any) -> Any:
        params, *others = (_like(tree, flat) for tree, flat in zip(trained, arguments))
        whole, images = others[0] if others else beside, arguments[-1]
        if isinstance(images, dict):
            images = Patches(**images)
        return predictor.compute(params, whole["buffers"], images, whole["frozen"])

    batch_sizes = sorted(set(batch_sizes))
    for size in batch_sizes:
        check_integer(size, "batch size", 1)
    shapes = [
        {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in flat.items()} for flat in flats
    ]
    make = export.export(jax.jit(program), platforms=PLATFORMS)
    serialised = {
        program_name(size): bytes(make(*shapes, _images(model, size)).serialize())
        for size in batch_sizes or [0]
    }
    files = dict(zip((PARAMETERS, BUFFERS), flats))
    for name, flat in files.items():
        _write_arrays(folder / name, flat)
    for name, content in serialised.items():
        _write(folder / name, content)
    description = {
        "format": FORMAT,
        "model": config_to_json(model),
        "output": predictor.output.to_json(),
        "eval_transforms": predictor.eval_transforms,
        "platforms": list(PLATFORMS),
        "batch_sizes": batch_sizes,
        "versions": {"vit_jax": __version__, "jax": jax.__version__},
        "digests": {name: digest_of(folder / name) for name in (*serialised, *files)},
    }
    _write(folder / DESCRIPTION, f"{json.dumps(description, indent=1)}\n".encode())  # last: then it is whole


def _like(tree: Any, flat: dict[str, Any]) -> Any:
    """Return arrays by path in the structure of a tree."""
    return jax.tree.unflatten(jax.tree.structure(tree), [flat[name] for name in trees.flatten(tree)])


def _images(model: Any, batch_size: int) -> Any:
    """Return the shape of a program's images: a number where it is fixed, a symbol where it is not.

    Of a model whose images keep their shape it is a dict of what `models.patches.Patches` has.
    """
    if family_of(model).budget(model) is not None:
        (batch,) = export.symbolic_shape(str(batch_size or "b"))
        values = jax.ShapeDtypeStruct((batch, *model.input_shape), np.uint8)
        return {"values": values, "sizes": jax.ShapeDtypeStruct((batch, 2), np.int32)}
    height, width = map(str, model.image_size)
    stride = family_of(model).any_size(model)
    if stride is not None:
        height, width = f"{stride[0]}*h", f"{stride[1]}*w"
    shape = export.symbolic_shape(f"{batch_size or 'b'}, {height}, {width}, {model.in_channels}")
    return jax.ShapeDtypeStruct(shape, np.uint8)


def _write_arrays(path: Path, flat: dict[str, Any]) -> None:
    safetensors_format.write(
        path,
        [(name, tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in flat.items()],
        lambda name: np.asarray(flat[name]),
        {"format": "vit_jax"},
    )


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
