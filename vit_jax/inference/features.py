"""Features of images: the embedding of each that a model's head sees, or maps of several strides."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from vit_jax.compiler_options import jit, prediction_options
from vit_jax.data.images.image_files import EXTENSIONS, left_out_text
from vit_jax.data.sources.folder import classed_images
from vit_jax.data.sources.pictures import Pictures, is_folder
from vit_jax.errors import ConfigError, DataError
from vit_jax.evaluation.preprocess import Preprocessor
from vit_jax.inference.predictions import without_cached
from vit_jax.inference.published import is_run
from vit_jax.inference.stream import Row, stacked, stream
from vit_jax.inference.workdir import find
from vit_jax.models.families import family_of, is_image_encoder
from vit_jax.models.functional import ModelFunctions
from vit_jax.models.maps import Chosen, named_levels
from vit_jax.models.registry import model_functions
from vit_jax.objectives.base import Objective
from vit_jax.objectives.images import inputs
from vit_jax.training.config.defaults import default_config
from vit_jax.training.devices.hardware import compute_dtype
from vit_jax.weights.formats.tensors import replacing


@dataclass(frozen=True, repr=False)
class FeatureExtractor:
    """An image encoder without head: images to `(n, d)`, or to maps. It can be pickled; another process compiles anew.

    Attributes:
      model: the encoder's configuration, without classes.
      params: its parameters.
      transforms: what happens to images before; None for the model's own preprocessing.
      batch_size: images computed at once; the last batch is padded, so that one program serves all.
      buffers: what it has beside parameters, such as batch statistics.
      levels: names of the maps that are given instead of embeddings, see `at`.
    """

    model: Any
    params: Any
    transforms: str | None = None
    batch_size: int = 64
    buffers: Any = field(default_factory=dict)
    levels: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f"<FeatureExtractor: {self.model!r}>"

    @classmethod
    def load(
        cls,
        source: str | Path,
        step: int | None = None,
        *,
        best: bool = False,
        weights: str | None = None,
        objective: Callable[..., Objective] | None = None,
    ) -> "FeatureExtractor":
        """Return the encoder of a training run or of a published checkpoint, see `Predictor.load`.

        Of a run it is the encoder that the objective names, or that of its `encoders` whose name `weights` is; of an
        image-text model the image tower. Where a model does not pool, it is the class token that is taken, or else the
        mean of the patches.
        """
        if not is_run(source):
            return cls._published(source, weights)
        saved = find(source, step, best=best)
        learned = saved.objective(objective)
        if weights is not None and not learned.encoders:
            raise ConfigError(
                f"{str(source)!r} is a training run of one network; leave out weights, which select among several."
            )
        return cls.of(learned.model, *saved.encoder(learned, weights), saved.eval_transforms)

    @classmethod
    def _published(cls, source: str | Path, weights: str | None) -> "FeatureExtractor":
        # Here because reading checkpoints takes imports that runs of our own do not need.
        from vit_jax.weights.load import open_pretrained

        dtype = compute_dtype(default_config().compute_dtype)
        pretrained = open_pretrained(source, num_classes=0, dtype=dtype, weights=weights)
        if not is_image_encoder(pretrained.config):
            raise ConfigError(
                f"checkpoint {str(source)!r} has no image encoder, so it gives no image features."
            )
        both = pretrained.params()
        return cls.of(pretrained.config, both, both, None)

    @classmethod
    def of(cls, model: Any, params: Any, buffers: Any, transforms: str | None = None) -> "FeatureExtractor":
        """Return the extractor of a model's parameters and buffers, which may hold more than it needs."""
        headless = family_of(model).headless(model)
        functions = model_functions(headless)
        own, state = (
            {name: part for name, part in tree.items() if name in known}
            for tree, known in ((params, functions.abstract), (buffers, functions.abstract_buffers))
        )
        return cls(headless, own, transforms, buffers=state)

    def at(self, levels: Chosen, resample: bool = False) -> "FeatureExtractor":
        """Return one that gives maps of features, see `models.maps.named_levels`.

        Raises:
          ConfigError: there are no such levels.
        """
        return replace(self, levels=tuple(x.name for x in named_levels(self.model, levels, resample)))

    def features(
        self,
        images: Pictures,
        *,
        bad: str = "error",
        progress: bool = False,
        max_megapixels: float | None = None,
    ) -> Any:
        """Return the embeddings of images, float32 `(n, d)`; at levels a tuple of maps `(n, h, w, c)`, one for each.

        Args:
          images: one or several, see `Predictor.probabilities`.
          bad: what to do with an image that cannot be read: `error` raises, `skip` gives a row of not-a-number.
          progress: show a bar on stderr if it is a terminal and there is more than a batch.
          max_megapixels: largest area accepted of an image, in millions of pixels; None for the run's own, or 64.

        Raises:
          ConfigError: `bad` or `max_megapixels` is wrong.
          DataError: an image cannot be read; it is named.
        """
        rows = self.stream(images, bad=bad, progress=progress, max_megapixels=max_megapixels)
        return self.gathered(rows)

    def gathered(self, rows: Iterable[Row]) -> Any:
        """Return what `stream` gave as `features` does; of images that could not be read not-a-number."""
        if not self.levels:
            return stacked(rows, self.model.output_width)
        images = jax.ShapeDtypeStruct((1, *self._preprocessor.shape), np.uint8)
        shapes = [x.shape[1:] for x in jax.eval_shape(self._compute, self.params, self.buffers, images)]
        missing = [np.full(shape, np.nan, np.float32) for shape in shapes]
        found = [row.values or missing for row in rows]
        return tuple(
            np.asarray([maps[number] for maps in found], np.float32).reshape(-1, *shape)
            for number, shape in enumerate(shapes)
        )

    def stream(
        self,
        images: Pictures,
        *,
        bad: str = "error",
        progress: bool = False,
        max_megapixels: float | None = None,
    ) -> Iterator[Row]:
        """Give name and embedding `(d,)`, or maps, of each image as they come, in constant memory, see `features`."""
        compute = partial(self._compute, self.params, self.buffers)
        preprocessor = self._preprocessor.limited(max_megapixels)
        return stream(compute, preprocessor, images, self.batch_size, bad=bad, progress=progress)

    @cached_property
    def _compute(self) -> Any:
        functions: ModelFunctions = model_functions(self.model)

        def compute(params: Any, buffers: Any, pixels: Any) -> Any:
            images = inputs({"image": pixels}, self.model)
            if not self.levels:
                return functions.apply_state(params, buffers, images)[0]
            maps = functions.features(params, buffers, images, levels=self.levels)
            return tuple(x.astype(np.float32) for x in maps)

        options = prediction_options(jax.default_backend(), self.model.dtype)
        return jit(compute, options)

    def pixels(self, images: Pictures, *, max_megapixels: float | None = None) -> np.ndarray:
        """Return images as the encoder sees them, uint8 `(n, h, w, c)`, see `features`."""
        return self._preprocessor.limited(max_megapixels).pixels(images)

    def __getstate__(self) -> dict[str, Any]:
        return without_cached(self)

    @cached_property
    def _preprocessor(self) -> Preprocessor:
        return Preprocessor(self.model, self.transforms)


def list_images(paths: Sequence[str]) -> tuple[list[str], list[str] | None, Counter[str]]:
    """Return image files, the class of each if all come from class folders, and what else lay there.

    Args:
      paths: files, which are taken as they are, and folders, as training reads them.

    Returns:
      The files; of each the name of the class folder that it lies in; None instead of these if a file was named itself
      or lies in no class folder; and how many files of each kind are no images.

    Raises:
      DataError: a folder has no image, or cannot be read.
    """
    files: list[str] = []
    classes: list[str] | None = []
    left_out: Counter[str] = Counter()
    for path in paths:
        found, names, others = classed_images(path) if is_folder(path) else ([path], None, {})
        if not found:
            there = f" ({left_out_text(others)})" if others else ""
            raise DataError(f"folder {path!r} has no images ({', '.join(EXTENSIONS)}){there}.")
        files += found
        left_out.update(others)
        classes = None if classes is None or names is None else classes + names
    return files, classes, left_out


def write_features(
    extractor: FeatureExtractor,
    paths: Sequence[str],
    output: str,
    report: Callable[[str], None] = lambda line: None,
    *,
    bad: str = "error",
    max_megapixels: float | None = None,
) -> dict[str, Any]:
    """Write and return features of images as an `.npz` file.

    It holds `features` float32 `(n, d)` and `files` `(n,)`; from class folders also `labels` int32 `(n,)` and
    `class_names`. At levels there are maps `(n, h, w, c)` by the names of these instead of `features`; they are all in
    memory until they are written.

    Args:
      extractor: the encoder.
      paths: see `list_images`.
      output: the file; it appears when it is complete.
      report: told what lies in the folders and is no image.
      bad: what to do with an image that cannot be read: `error` raises, `skip` leaves it out; then `unreadable` has
        the files that were, and `reasons` why.
      max_megapixels: see `FeatureExtractor.features`.

    Raises:
      DataError: an image that cannot be read is named; or there is none.
      ResourceError: the file cannot be written.
    """
    files, classes, left_out = list_images(paths)
    if left_out:
        report(left_out_text(left_out))
    failed: dict[int, str] = {}

    def values() -> Iterator[Row]:
        rows = extractor.stream(files, bad=bad, progress=True, max_megapixels=max_megapixels)
        for index, row in enumerate(rows):
            if row.values is None:
                failed[index] = row.error
            else:
                yield row

    features = extractor.gathered(values())
    read = [index for index in range(len(files)) if index not in failed]
    arrays: dict[str, Any] = {
        **(dict(zip(extractor.levels, features)) if extractor.levels else {"features": features}),
        "files": np.asarray([files[index] for index in read], np.str_),
    }
    if classes is not None:
        class_names, labels = np.unique([classes[index] for index in read], return_inverse=True)
        arrays |= {"labels": labels.astype(np.int32), "class_names": class_names}
    if failed:
        arrays |= {
            "unreadable": np.asarray([files[index] for index in failed]),
            "reasons": np.asarray([*failed.values()]),
        }
    with replacing(Path(output)) as temporary, open(temporary, "wb") as file:
        np.savez(file, **arrays)
    return arrays
