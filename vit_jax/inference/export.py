"""A classifier as a folder that runs without this library's models: program, parameters, description.

`program.stablehlo` is what `jax.export` serialises: StableHLO with any batch size, for CPUs, GPUs and TPUs alike;
jax promises that later versions read it for six months at least, and the text in it can be given to other tools.
`parameters.safetensors` has its first argument by path, `description.json` all else. `inference.exported` reads it.
"""

import json
from pathlib import Path

import jax
import numpy as np
from jax import export

from vit_jax import trees
from vit_jax.errors import ConfigError
from vit_jax.inference.exported import DESCRIPTION, FORMAT, PARAMETERS, PROGRAM, digest_of
from vit_jax.inference.predictor import Predictor
from vit_jax.models.config_json import config_to_json
from vit_jax.paths import check_output
from vit_jax.version import __version__
from vit_jax.weights import safetensors_format
from vit_jax.weights.tensors import replacing

PLATFORMS = ("cpu", "cuda", "tpu")


def export_predictor(predictor: Predictor, folder: str | Path) -> None:
    """Write a classifier to a new folder, from which `ExportedPredictor.load` and `vit-jax predict` read it.

    Args:
      predictor: the classifier, its parameters stored as they shall be stored there.
      folder: must not exist, or be empty.

    Raises:
      ConfigError: the folder holds something.
      ResourceError: it cannot be written.
    """
    folder = check_output(folder, "folder")
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise ConfigError(f"{str(folder)!r} is not an empty folder; export to another one.")
    flat, structure = trees.flatten(predictor.params), jax.tree.structure(predictor.params)
    names, model = list(flat), predictor.model

    def program(params: dict[str, jax.Array], images: jax.Array) -> jax.Array:
        whole = jax.tree.unflatten(structure, [params[name] for name in names])
        return predictor.compute(whole, images)

    (batch,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((batch, *model.image_size, model.in_channels), np.uint8)
    shapes = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in flat.items()}
    exported = export.export(jax.jit(program), platforms=PLATFORMS)(shapes, images)
    serialised = bytes(exported.serialize())
    safetensors_format.write(
        folder / PARAMETERS,
        [(name, tuple(leaf.shape), np.dtype(leaf.dtype)) for name, leaf in flat.items()],
        lambda name: np.asarray(flat[name]),
        {"format": "vit_jax"},
    )
    _write(folder / PROGRAM, serialised)
    description = {
        "format": FORMAT,
        "model": config_to_json(model),
        "class_names": list(predictor.objective.data.class_names),
        "eval_transforms": predictor.eval_transforms,
        "platforms": list(PLATFORMS),
        "versions": {"vit_jax": __version__, "jax": jax.__version__},
        "digests": {name: digest_of(folder / name) for name in (PROGRAM, PARAMETERS)},
    }
    _write(folder / DESCRIPTION, f"{json.dumps(description, indent=1)}\n".encode())  # last: then it is whole


def _write(path: Path, content: bytes) -> None:
    with replacing(path) as temporary:
        temporary.write_bytes(content)
