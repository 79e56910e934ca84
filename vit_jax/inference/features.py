"""Embeddings of image files: what a model's head sees of each."""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from tqdm import tqdm

from vit_jax.compiler_options import jit, prediction_options
from vit_jax.data.folder import EXTENSIONS
from vit_jax.errors import ConfigError, DataError
from vit_jax.evaluation.preprocess import Preprocessor
from vit_jax.inference.predictions import fitting, in_batches
from vit_jax.inference.predictor import Predictor
from vit_jax.inference.published import is_run
from vit_jax.inference.workdir import find
from vit_jax.models.functional import ModelFunctions
from vit_jax.models.mae import mae_encoder_config
from vit_jax.models.registry import model_functions
from vit_jax.models.vit_config import ViTConfig, replace
from vit_jax.objectives.images import normalise
from vit_jax.training.defaults import default_config
from vit_jax.training.hardware import compute_dtype
from vit_jax.training.model import resolve_model
from vit_jax.weights.tensors import replacing


@dataclass(frozen=True)
class FeatureExtractor:
    """An image encoder without head: image files to `(n, d)`.

    Attributes:
      model: the encoder's configuration, without classes.
      params: its parameters.
      transforms: what happens to images before; None for the model's own preprocessing.
      batch_size: images computed at once; the last batch is padded, so that one program serves all.
    """

    model: ViTConfig
    params: Any
    transforms: str | None = None
    batch_size: int = 64

    @classmethod
    def load(cls, source: str | Path, step: int | None = None, *, best: bool = False) -> "FeatureExtractor":
        """Return the encoder of a training run or of a published checkpoint, see `Predictor.load`.

        Of a masked autoencoder it is the encoder, of an image-text model the image tower. Where a model does not
        pool, it is the class token that is taken, or else the mean of the patches.
        """
        if not is_run(source):
            return cls._published(source)
        saved = find(source, step, best=best)
        if saved.config.objective.name == "mae":
            model = mae_encoder_config(resolve_model(saved.config, None, saved.model)[0])
            shapes = model_functions(model).abstract
            return cls(_headless(model), saved.params(shapes, "encoder"), saved.eval_transforms)
        predictor = Predictor.load(source, step, best=best)
        params = {
            name: part for name, part in predictor.params.items() if name not in ("head", "head_distillation")
        }
        return cls(_headless(predictor.model), params, predictor.eval_transforms)

    @classmethod
    def _published(cls, source: str | Path) -> "FeatureExtractor":
        # Here because reading checkpoints takes imports that runs of our own do not need.
        from vit_jax.weights.load import open_pretrained

        dtype = compute_dtype(default_config().compute_dtype)
        pretrained = open_pretrained(source, num_classes=0, dtype=dtype)
        if not isinstance(pretrained.config, ViTConfig):
            raise ConfigError(
                f"checkpoint {str(source)!r} has no image encoder, so there are no features of images."
            )
        return cls(_headless(pretrained.config), pretrained.params())

    def features(self, files: Sequence[str | Path], *, progress: bool = False) -> np.ndarray:
        """Return the embeddings of image files, float32 `(n, d)`.

        Args:
          files: paths.
          progress: show a bar on stderr if it is a terminal.

        Raises:
          DataError: a file cannot be read; it is named.
        """
        if not files:
            return np.zeros((0, self.model.output_width), np.float32)
        batches = [files[i : i + self.batch_size] for i in range(0, len(files), self.batch_size)]
        rows, size = [], fitting(self.batch_size, len(files))
        with tqdm(total=len(files), unit="image", disable=None if progress else True) as bar:
            for pixels in _read_ahead(self._preprocessor.pixels, batches):
                rows.append(in_batches(partial(self._compute, self.params), pixels, size))
                bar.update(len(pixels))
        return np.concatenate(rows)

    @cached_property
    def _compute(self) -> Any:
        functions: ModelFunctions = model_functions(self.model)

        def compute(params: Any, pixels: jax.Array) -> jax.Array:
            return functions.apply(params, normalise(pixels, self.model.preprocessing))

        options = prediction_options(jax.default_backend(), self.model.dtype)
        return jit(compute, options)

    @cached_property
    def _preprocessor(self) -> Preprocessor:
        return Preprocessor(self.model, self.transforms)


def list_images(paths: Sequence[str]) -> tuple[list[str], list[str] | None]:
    """Return image files, and the class of each if all come from class folders.

    Args:
      paths: files, which are taken as they are, and folders, searched at every depth in order of name.

    Returns:
      The files, and of each the name of the folder it lies in; None instead of these if a file was named itself or
      lies directly in a folder that was.

    Raises:
      DataError: a path does not exist, or there is no image.
    """
    files: list[str] = []
    classes: list[str] | None = []
    for path in paths:
        if not os.path.exists(path):
            raise DataError(f"image {path!r} does not exist; give image files or folders of them.")
        found = _images_under(path) if os.path.isdir(path) else [path]
        if not found:
            raise DataError(f"folder {path!r} has no images ({', '.join(EXTENSIONS)}).")
        files += found
        nested = [os.path.dirname(file) for file in found]
        if (
            classes is None
            or not os.path.isdir(path)
            or os.path.normpath(path) in map(os.path.normpath, nested)
        ):
            classes = None
        else:
            classes += [os.path.basename(folder) for folder in nested]
    return files, classes


def write_features(extractor: FeatureExtractor, paths: Sequence[str], output: str) -> dict[str, Any]:
    """Write and return embeddings of images as an `.npz` file.

    It holds `features` float32 `(n, d)` and `files` `(n,)`; from class folders also `labels` int32 `(n,)` and
    `class_names`.

    Args:
      extractor: the encoder.
      paths: see `list_images`.
      output: the file; it appears when it is complete.

    Raises:
      DataError: see `list_images`; an image that cannot be read is named.
      ResourceError: the file cannot be written.
    """
    files, classes = list_images(paths)
    arrays: dict[str, Any] = {
        "features": extractor.features(files, progress=True),
        "files": np.asarray(files),
    }
    if classes is not None:
        class_names, labels = np.unique(classes, return_inverse=True)
        arrays |= {"labels": labels.astype(np.int32), "class_names": class_names}
    with replacing(Path(output)) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)
    return arrays


def _headless(model: ViTConfig) -> ViTConfig:
    if model.pool not in ("none", "patches"):
        return replace(model, num_classes=0)
    return replace(model, num_classes=0, pool="cls" if model.class_token else "mean")


def _images_under(folder: str) -> list[str]:
    found = []
    for root, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        found += [
            os.path.join(root, name)
            for name in sorted(names)
            if name.lower().endswith(EXTENSIONS) and not name.startswith(".")
        ]
    return found


def _read_ahead(read: Callable[[Any], np.ndarray], batches: Iterable[Sequence[Any]]) -> Iterator[np.ndarray]:
    """Yield each batch read by threads, the next one being read meanwhile."""
    with ThreadPoolExecutor(os.cpu_count()) as executor:
        waiting = None
        for batch in batches:
            following = [executor.submit(read, [file]) for file in batch]
            if waiting is not None:
                yield np.concatenate([future.result() for future in waiting])
            waiting = following
        if waiting is not None:
            yield np.concatenate([future.result() for future in waiting])
