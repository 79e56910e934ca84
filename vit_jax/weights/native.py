"""Our own checkpoints as others' are read: what training, `save` and `Classifier.save` leave behind."""

import json
import os
from pathlib import Path
from threading import Lock
from typing import Any

import jax
import numpy as np

from vit_jax import trees
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.files import FOLDER, check_described, locate
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.config_json import config_from_json, config_to_json
from vit_jax.models.lora import ROOT, Lora
from vit_jax.models.registry import ModelConfig, model_functions
from vit_jax.weights.layouts.layout import Layout
from vit_jax.weights.rules import rule
from vit_jax.weights.tensors import RawCheckpoint, Tensor


def is_native(path: Path) -> bool:
    """Return whether a path is a folder that training or `save` wrote, or one of its checkpoints."""
    return os.path.isdir(path) and os.path.isdir(locate(path)[0])


def open_native(path: Path) -> tuple[RawCheckpoint, Layout]:
    """Return the newest intact checkpoint of a folder, or the one named; of averaged parameters, the average.

    Raises:
      CheckpointError: there is none, or it was written before checkpoints said what model they hold.
    """
    folder, step = locate(path)
    checkpoints = Checkpoints(folder, read_only=True)
    metadata = checkpoints.newest_metadata() if step is None else checkpoints.metadata(step)
    if metadata is None:
        raise CheckpointError(f"{path} holds no checkpoint yet; train first, or give another one.")
    check_described(metadata, path)
    if metadata.get("model") is None:
        raise CheckpointError(
            f"{path} does not say what model it holds; evaluate or predict with its --workdir."
        )
    part = "ema" if any(name.startswith("ema/") for name in metadata["arrays"]) else "params"
    adapted = any(name.startswith(f"{part}/{ROOT}/") for name in metadata["arrays"])
    try:
        config = config_from_json(metadata["model"])
        lora = Lora(**metadata["config"]["lora"]) if adapted else None
    except (ConfigError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path} describes no model: {error}") from None
    raw = RawCheckpoint(str(path), "orbax", _tensors(config, lora, checkpoints, part, metadata["step"]), {})
    names = tuple(metadata.get("class_names") or ())
    return raw, Layout(config, [rule(name, name) for name in raw.tensors], class_names=names)


def save_native(path: Path, config: ModelConfig, params: Any, class_names: tuple[str, ...]) -> None:
    """Write parameters as a checkpoint that `load` reads.

    Raises:
      ConfigError: the folder already holds one.
    """
    folder = path / FOLDER
    if folder.is_dir() and any(folder.iterdir()):
        raise ConfigError(f"{str(path)!r} already holds a model; save to another folder.")
    model = json.loads(json.dumps(config_to_json(config)))
    with Checkpoints(folder, frugal=True) as checkpoints:
        checkpoints.save(0, {"params": params}, {"model": model, "class_names": list(class_names)}, {})


def _tensors(
    config: ModelConfig, lora: Lora | None, checkpoints: Checkpoints, part: str, step: int
) -> dict[str, Tensor]:
    """Return the parameters; all are restored and verified when the first is read, and let go one by one."""
    plain = model_functions(config).abstract
    held: dict[str, np.ndarray] = {}
    lock = Lock()

    def read(name: str) -> np.ndarray:
        with lock:
            if name not in held:
                restored = checkpoints.restore_part(part, _with_factors(plain, lora), step)
                assert restored is not None
                whole = jax.jit(lora.merge)(restored[0]) if lora else restored[0]
                held.update({path: np.asarray(leaf) for path, leaf in trees.flatten(whole).items()})
            return held.pop(name)

    return {
        name: Tensor(tuple(leaf.shape), np.dtype(np.float32), lambda name=name: read(name))
        for name, leaf in trees.flatten(plain).items()
    }


def _with_factors(params: Any, lora: Lora | None) -> Any:
    """Return the shapes of parameters with those of the low-rank factors beside them, as training saves them."""
    if lora is None:
        return params
    factors = jax.eval_shape(lora.init, jax.random.key(0), params)
    return {**params, ROOT: factors}
