"""A predictor that `inference.export.export` has written: it runs without the code of models, so it starts sooner."""

import hashlib
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax import export

from vit_jax.compiler_options import jit, prediction_options
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.evaluation.preprocess import Preprocessor
from vit_jax.inference.predictions import ImagePredictor
from vit_jax.models.config_json import config_from_json
from vit_jax.models.patches import Patches
from vit_jax.objectives.outputs.base import Output, output_from_json
from vit_jax.objectives.outputs.classes import Classes
from vit_jax.objectives.outputs.values import Values
from vit_jax.paths import expanded, read_file
from vit_jax.weights.formats import safetensors_format
from vit_jax.weights.formats.tensors import parse_json, reading

PROGRAM, DESCRIPTION = "program.stablehlo", "description.json"
PARAMETERS, BUFFERS = "parameters.safetensors", "buffers.safetensors"
FORMAT = 2  # the first was of classifiers alone
_MODEL = {"model": dict, "eval_transforms": str, "digests": dict}
_NEEDED = {1: {**_MODEL, "class_names": list}, FORMAT: {**_MODEL, "output": dict}}
# What jax raises of programs that are damaged or do not fit their parameters, found by changing valid ones.
_UNREADABLE = (
    *(ValueError, TypeError, LookupError, AttributeError, AssertionError, OverflowError, NotImplementedError),
    *(struct.error, MemoryError, RecursionError, jax.errors.JaxRuntimeError),
)
_MAX_PROGRAM, _MAX_DESCRIPTION = 2**28, 10_000_000  # bytes


@dataclass(frozen=True, repr=False)
class ExportedPredictor(ImagePredictor):
    """An exported predictor: images of any size to predictions.

    Attributes:
      programs: `(params, images) -> outputs` by batch size, or with `buffers` before the images if there are any; 0 is
        any. Images are uint8 `(b, h, w, c)`, or a dict of what `models.patches.Patches` has.
      params: its parameters, by path.
      model: what it was exported from.
      output: what is predicted, and how it is written and drawn.
      eval_transforms: what happens to images.
      folder: where it came from.
      batch_size: most images computed at once, see `stream.fitting`.
      buffers: what it has beside parameters, by path.
    """

    programs: dict[int, export.Exported]
    params: dict[str, jax.Array]
    model: Any
    output: Output
    eval_transforms: str
    folder: Path
    batch_size: int = 32
    buffers: dict[str, jax.Array] = field(default_factory=dict)

    @classmethod
    def load(cls, folder: str | Path) -> "ExportedPredictor":
        """Return the predictor of a folder that `export_predictor` has written.

        Raises:
          CheckpointError: it is none, damaged, or not for this platform.
        """
        folder = Path(expanded(folder))
        description = _description(folder)
        for name, digest in description["digests"].items():
            if digest_of(folder / name) != digest:
                raise CheckpointError(
                    f"{folder / name} is damaged: it differs from what was exported; export it again."
                )
        programs = {
            size: _read_program(folder / program_name(size)) for size in description["batch_sizes"] or [0]
        }
        try:
            model = config_from_json(description["model"])
        except ConfigError as error:
            raise CheckpointError(f"{folder / DESCRIPTION} describes no model: {error}") from error
        try:
            output = _output(description, model)
        except ConfigError as error:
            raise CheckpointError(f"{folder / DESCRIPTION} describes no predictions: {error}") from error
        _check_names(output, next(iter(programs.values())), folder)
        backend = jax.default_backend()
        platforms = next(iter(programs.values())).platforms
        if {"gpu": "cuda"}.get(backend, backend) not in platforms:
            raise CheckpointError(
                f"{folder} was exported for {', '.join(platforms)}, but this machine has a {backend}; export it "
                "again."
            )
        params = _read_arrays(folder / PARAMETERS)
        buffers = _read_arrays(folder / BUFFERS) if BUFFERS in description["digests"] else {}
        largest = max(programs) or cls.batch_size
        return cls(programs, params, model, output, description["eval_transforms"], folder, largest, buffers)

    def _compute(self, images: Any) -> Mapping[str, Any]:
        given = self._filled(images._asdict() if isinstance(images, Patches) else images)
        # Programs of the first format give the array itself.
        return given if isinstance(given, Mapping) else {_vector(self.output)[0]: given}

    def _filled(self, images: Any) -> Any:
        count = len(jax.tree.leaves(images)[0])
        fixed = [size for size in self.programs if size >= count]

        def filled(rows: np.ndarray) -> np.ndarray:
            whole = np.zeros((min(fixed), *rows.shape[1:]), rows.dtype)
            whole[:count] = rows
            return whole

        if fixed:  # filled up to a batch that it was exported for
            return jax.tree.map(lambda rows: rows[:count], self._run(jax.tree.map(filled, images)))
        return self._run(images)

    def _run(self, images: Any) -> Any:
        shape = jax.tree.leaves(images)[0].shape
        size = shape[0] if shape[0] in self.programs else 0
        arrays = (self.params, self.buffers) if self.buffers else (self.params,)
        if shape not in self._compiled:
            options = prediction_options(jax.default_backend(), self.model.dtype)
            try:
                compute = jit(self.programs[size].call, options)
                program = compute.lower(*arrays, images).compile()
            except _UNREADABLE as error:
                if "RESOURCE_EXHAUSTED" in str(error):
                    raise
                raise _not_readable(self.folder / program_name(size), error) from error
            self._compiled[shape] = program
        return self._compiled[shape](*arrays, images)

    def __getstate__(self) -> dict[str, Any]:
        # What it was read from: jax pickles no program, and reads this one in another process as in this.
        return super().__getstate__() | {
            "programs": {size: bytes(program.serialize()) for size, program in self.programs.items()}
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        programs = {size: export.deserialize(bytearray(text)) for size, text in state["programs"].items()}
        vars(self).update(state, programs=programs)

    @cached_property
    def _compiled(self) -> dict[tuple[int, ...], Any]:
        return {}

    @cached_property
    def _preprocessor(self) -> Preprocessor:
        return Preprocessor(self.model, self.eval_transforms)


def program_name(batch_size: int) -> str:
    """Return the file of the program for a batch size; 0 is any."""
    return PROGRAM.replace(".", f"_b{batch_size}.") if batch_size else PROGRAM


def _output(description: dict[str, Any], model: Any) -> Output:
    if "output" in description:
        return output_from_json(description["output"])
    kind = Values if model.problem == "regression" else Classes
    return kind(tuple(description["class_names"]))


def _vector(output: Output) -> tuple[str, int]:
    assert output.vector is not None
    return output.vector


def _check_names(output: Output, program: export.Exported, folder: Path) -> None:
    """Raise `CheckpointError` unless there are as many names as the program gives numbers."""
    if output.vector is None:
        return
    given = jax.tree.unflatten(program.out_tree, program.out_avals)
    name, names = output.vector
    outputs = given[name] if isinstance(given, Mapping) and name in given else given
    shape = getattr(outputs, "shape", ())
    if not shape or shape[-1] != names:
        raise CheckpointError(
            f"{folder / DESCRIPTION} has {names} names for outputs of shape {shape}; export the model again."
        )


def _read_program(path: Path) -> export.Exported:
    try:
        return export.deserialize(bytearray(read_file(path, _MAX_PROGRAM)))
    except _UNREADABLE as error:
        raise _not_readable(path, error) from error


def _read_arrays(path: Path) -> dict[str, jax.Array]:
    return {name: jax.device_put(tensor.read()) for name, tensor in safetensors_format.read(path).items()}


def _not_readable(path: Path, error: Exception) -> CheckpointError:
    why = (str(error).splitlines() or [""])[0]
    return CheckpointError(
        f"{path} is not a program that jax {jax.__version__} can read: {type(error).__name__} {why}; export it again."
    )


def _description(folder: Path) -> dict[str, Any]:
    path = folder / DESCRIPTION
    with reading(path):
        described = parse_json(read_file(path, _MAX_DESCRIPTION), path)
    if not isinstance(described, dict) or type(described.get("format")) is not int:
        raise CheckpointError(f"{path} has no format; export the model again.")
    if described["format"] not in _NEEDED:
        known = " and ".join(map(str, _NEEDED))
        raise CheckpointError(
            f"{path} is of format {described['format']}; this version reads {known}. Export the model again."
        )
    for key, kind in _NEEDED[described["format"]].items():
        if not isinstance(described.get(key), kind):
            raise CheckpointError(f"{path} has no {key}; export the model again.")
    sizes = described.setdefault("batch_sizes", [])  # versions before this had one program
    if not isinstance(sizes, list) or not all(type(size) is int and size > 0 for size in sizes):
        raise CheckpointError(f"{path} has batch sizes {sizes!r:.60}; export the model again.")
    if set(described["digests"]) - {BUFFERS} != {PARAMETERS, *map(program_name, sizes or [0])}:
        raise CheckpointError(f"{path} does not list its files; export the model again.")
    return described


def digest_of(path: Path) -> str:
    """Return the BLAKE2 digest of a file."""
    with reading(path), open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()
