"""A classifier that `inference.export` has written: it runs without the code of models, so it starts sooner."""

import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from vit_jax.compiler_options import prediction_options
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.evaluation.preprocess import Picture, Preprocessor
from vit_jax.inference.predictions import Prediction, fitting, in_batches, most_probable
from vit_jax.models.config_json import config_from_json
from vit_jax.models.vit_config import ViTConfig
from vit_jax.paths import read_file
from vit_jax.weights import safetensors_format
from vit_jax.weights.tensors import parse_json, reading

PROGRAM, PARAMETERS, DESCRIPTION = "program.stablehlo", "parameters.safetensors", "description.json"
FORMAT = 1
# What jax raises of programs that are damaged or do not fit their parameters, found by changing valid ones.
_UNREADABLE = (
    *(ValueError, TypeError, LookupError, AttributeError, AssertionError, OverflowError, NotImplementedError),
    *(struct.error, MemoryError, RecursionError, jax.errors.JaxRuntimeError),
)
_MAX_PROGRAM, _MAX_DESCRIPTION = 2**28, 10_000_000  # bytes


@dataclass(frozen=True)
class ExportedPredictor:
    """An exported classifier: images of any size to class probabilities.

    Attributes:
      program: `(params, images) -> probabilities`.
      params: its parameters, by path.
      model: what it was exported from.
      class_names: in order of label.
      eval_transforms: what happens to images.
      folder: where it came from.
      batch_size: most images computed at once, see `predictions.fitting`.
    """

    program: export.Exported
    params: dict[str, jax.Array]
    model: ViTConfig
    class_names: tuple[str, ...]
    eval_transforms: str
    folder: Path
    batch_size: int = 32

    @classmethod
    def load(cls, folder: str | Path) -> "ExportedPredictor":
        """Return the classifier of a folder that `export_predictor` has written.

        Raises:
          CheckpointError: it is none, damaged, or not for this platform.
        """
        folder = Path(folder)
        description = _description(folder)
        for name, digest in description["digests"].items():
            if digest_of(folder / name) != digest:
                raise CheckpointError(
                    f"{folder / name} is damaged: it is not what was exported; export it again."
                )
        try:
            program = export.deserialize(bytearray(read_file(folder / PROGRAM, _MAX_PROGRAM)))
        except _UNREADABLE as error:
            raise _not_readable(folder / PROGRAM, error) from error
        try:
            model = config_from_json(description["model"])
        except ConfigError as error:
            raise CheckpointError(f"{folder / DESCRIPTION} describes no model: {error}") from error
        backend = jax.default_backend()
        if {"gpu": "cuda"}.get(backend, backend) not in program.platforms:
            raise CheckpointError(
                f"{folder} was exported for {', '.join(program.platforms)}, and this is a {backend}; export it again."
            )
        tensors = safetensors_format.read(folder / PARAMETERS)
        params = {name: jax.device_put(tensor.read()) for name, tensor in tensors.items()}
        names = tuple(description["class_names"])
        return cls(program, params, model, names, description["eval_transforms"], folder)

    def probabilities(self, images: Picture | Sequence[Picture]) -> np.ndarray:
        """Return class probabilities `(b, classes)` float32, see `Predictor.probabilities`."""
        rows = self._preprocessor.pixels(images)
        if not len(rows):
            return np.zeros((0, self.model.num_classes), np.float32)
        return in_batches(self._compute, rows, fitting(self.batch_size, len(rows)))

    def predict(self, images: Picture | Sequence[Picture], top: int = 5) -> list[Prediction]:
        """Return the `top` most probable classes of each image, see `Predictor.predict`."""
        return most_probable(images, self.probabilities(images), self.class_names, top)

    def _compute(self, batch: np.ndarray) -> Any:
        if batch.shape not in self._compiled:
            options = prediction_options(jax.default_backend(), self.model.dtype)
            try:
                compute = jax.jit(self.program.call, compiler_options=options)
                program = compute.lower(self.params, batch).compile()
            except _UNREADABLE as error:
                if "RESOURCE_EXHAUSTED" in str(error):
                    raise
                raise _not_readable(self.folder / PROGRAM, error) from error
            self._compiled[batch.shape] = program
        return self._compiled[batch.shape](self.params, batch)

    @cached_property
    def _compiled(self) -> dict[tuple[int, ...], Any]:
        return {}

    @cached_property
    def _preprocessor(self) -> Preprocessor:
        return Preprocessor(self.model, self.eval_transforms)


def _not_readable(path: Path, error: Exception) -> CheckpointError:
    why = (str(error).splitlines() or [""])[0]
    return CheckpointError(
        f"{path} is no program that jax {jax.__version__} reads: {type(error).__name__} {why}; export it again."
    )


def _description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    needed = {"model": dict, "class_names": list, "eval_transforms": str, "digests": dict, "format": int}
    with reading(path):
        described = parse_json(read_file(path, _MAX_DESCRIPTION), path)
    for key, kind in needed.items():
        if not isinstance(described, dict) or not isinstance(described.get(key), kind):
            raise CheckpointError(f"{path} has no {key}; export the classifier again.")
    if described["format"] != FORMAT:
        raise CheckpointError(
            f"{path} is of format {described['format']}; this version reads {FORMAT}. Export the classifier again."
        )
    if set(described["digests"]) != {PROGRAM, PARAMETERS}:
        raise CheckpointError(f"{path} does not say what its files are; export the classifier again.")
    if not all(isinstance(name, str) for name in described["class_names"]):
        raise CheckpointError(f"{path} has class names that are no text; export the classifier again.")
    return described


def digest_of(path: Path) -> str:
    """Return the BLAKE2 digest of a file."""
    with reading(path), open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
