"""Our own checkpoints as others' are read: what training, `save` and `Classifier.save` leave behind."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import Any

import jax
import numpy as np

from vit_jax import trees
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.files import FOLDER, check_described, locate
from vit_jax.data.transforms.said import preprocessing_of
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.config_json import config_from_json, config_to_json
from vit_jax.models.families import family_of, is_image_encoder
from vit_jax.models.heads.units import SCALE, in_units
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.layers.lora import ROOT, Lora
from vit_jax.models.problem import LOSSES
from vit_jax.models.registry import ModelConfig, model_functions
from vit_jax.weights.formats.tensors import RawCheckpoint, Tensor
from vit_jax.weights.formats.which import no_such
from vit_jax.weights.layouts.layout import Layout
from vit_jax.weights.rules import rule


def is_native(path: Path) -> bool:
    """Return whether a path is a folder that training or `save` wrote, or one of its checkpoints."""
    return os.path.isdir(path) and os.path.isdir(locate(path)[0])


def open_native(path: Path, weights: str | None = None) -> tuple[RawCheckpoint, Layout]:
    """Return the newest intact checkpoint of a folder, or the one named; of averaged parameters, the average.

    Args:
      path: the folder, or a checkpoint in it.
      weights: `params` or `ema` of a run that averages its parameters, one of the `encoders` of an objective that has
        several; None for the average, and for the one whose features count.

    Raises:
      CheckpointError: there is none, it has no such weights, or it was written before checkpoints said what model
        they hold.
    """
    folder, step = locate(path)
    checkpoints = Checkpoints(folder, read_only=True)
    metadata = checkpoints.newest_metadata() if step is None else checkpoints.metadata(step)
    if metadata is None:
        raise CheckpointError(f"{path} holds no checkpoint yet; train first, or give another path.")
    check_described(metadata, path)
    if metadata.get("model") is None:
        raise CheckpointError(
            f"{path} does not tell what model it holds; evaluate or predict with its --workdir."
        )
    sets = {
        name: name for name in ("ema", "params") if any(a.startswith(f"{name}/") for a in metadata["arrays"])
    }
    averaged = "ema" in sets
    if metadata.get("encoders"):  # of an objective that trains more than its model, or several
        sets = {name: _averaged(place, averaged) for name, place in metadata["encoders"].items()}
    chosen = weights or next(iter(sets), "params")
    if weights and weights not in sets:
        raise no_such(str(path), weights, list(sets))
    part = sets.get(chosen, chosen)
    adapted = any(name.startswith(f"{part}/{ROOT}/") for name in metadata["arrays"])
    try:
        config = config_from_json(metadata["model"])
        if hasattr(config, "problem") and "problem" not in metadata["model"]:
            # Of a version that kept it in the loss alone.
            loss = ((metadata.get("config") or {}).get("objective") or {}).get("loss", "softmax")
            config = replace(config, problem=LOSSES.get(loss, "single_label"))
        if is_image_encoder(config) and metadata.get("eval_transforms") is not None:
            config = evaluated_with(config, metadata["eval_transforms"])
        lora = Lora(**metadata["config"]["lora"]) if adapted else None
    except (ConfigError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} describes no model: {error}") from None
    scaled = f"buffers/{SCALE}/mean" in metadata["arrays"]
    tensors = _tensors(config, lora, checkpoints, part, metadata["step"], scaled=scaled)
    others = tuple(name for name in sets if name != chosen)
    raw = RawCheckpoint(str(path), "orbax", tensors, {}, chosen, others)
    names = tuple(metadata.get("class_names") or ()) if metadata.get("outputs_named", True) else ()
    return raw, Layout(
        config,
        [rule(name, name) for name in raw.tensors],
        class_names=names,
        named=metadata.get("classes_named"),
    )


def _averaged(place: str, averaged: bool) -> str:
    """Return where the parameters lie that evaluation uses instead of those at a place."""
    return f"ema/{place.removeprefix('params/')}" if averaged and place.startswith("params/") else place


def evaluated_with(config: ModelConfig, transforms: str) -> ModelConfig:
    """Return a model whose preprocessing is what its images were evaluated with, see `transforms.said`."""
    budget = family_of(config).budget(config)
    about = config.preprocessing, config.image_size, config.in_channels, budget
    said = preprocessing_of(transforms, *about)
    return replace(config, preprocessing=said)


def save_native(
    path: Path, config: ModelConfig, params: Mapping[str, Any], class_names: tuple[str, ...]
) -> None:
    """Write parameters by path, batch statistics among them, as a checkpoint that `load` reads.

    Raises:
      ConfigError: the folder already holds one.
    """
    folder = path / FOLDER
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{str(path)!r} already holds a model; save to another folder.")
    model = json.loads(json.dumps(config_to_json(config)))
    buffers = trees.flatten(model_functions(config).abstract_buffers)
    state = {"params": {path: leaf for path, leaf in params.items() if path not in buffers}}
    if buffers:
        state["buffers"] = {path: params[path] for path in buffers}
    state = {part: trees.unflatten(flat) for part, flat in state.items()}
    with Checkpoints(folder, frugal=True) as checkpoints:
        checkpoints.save(0, state, {"model": model, "class_names": list(class_names)}, {})


def _tensors(
    config: ModelConfig, lora: Lora | None, checkpoints: Checkpoints, part: str, step: int, *, scaled: bool
) -> dict[str, Tensor]:
    """Return the parameters and batch statistics; all are restored and verified when the first is read, and let go one
    by one.

    Those of a regression (`scaled`) give its values in their own units.
    """
    functions = model_functions(config)
    plain, buffers = functions.abstract, functions.abstract_buffers
    held: dict[str, np.ndarray] = {}
    lock = Lock()

    def restored(part: str, abstract: Any) -> Any:
        found = checkpoints.restore_part(part, abstract, step)
        assert found is not None
        return found[0]

    def read(name: str) -> np.ndarray:
        with lock:
            if name not in held:
                whole = restored(part, _with_factors(plain, lora))
                whole = jax.jit(lora.merge)(whole) if lora else whole
                whole = in_units(whole, **_scale(config, checkpoints, step)) if scaled else whole
                flat = trees.flatten(whole)
                below = "/".join(["buffers", *part.split("/")[1:]])
                for top, inner in buffers.items():  # what an objective adds to them is not the model's
                    flat |= trees.flatten({top: restored(f"{below}/{top}", inner)})
                held.update({path: np.asarray(leaf) for path, leaf in flat.items()})
            return held.pop(name)

    return {
        name: Tensor(tuple(leaf.shape), np.dtype(np.float32), lambda name=name: read(name))
        for name, leaf in (trees.flatten(plain) | trees.flatten(buffers)).items()
    }


def _scale(config: Any, checkpoints: Checkpoints, step: int) -> Any:
    """Return mean and deviation of the values of a regression."""
    one = jax.ShapeDtypeStruct((config.num_classes,), np.float32)
    restored = checkpoints.restore_part(f"buffers/{SCALE}", {"mean": one, "std": one}, step)
    assert restored is not None
    return restored[0]


def _with_factors(params: Any, lora: Lora | None) -> Any:
    """Return the shapes of parameters with those of the low-rank factors beside them, as training saves them."""
    if lora is None:
        return params
    factors = jax.eval_shape(lora.init, jax.random.key(0), params)
    return {**params, ROOT: factors}
