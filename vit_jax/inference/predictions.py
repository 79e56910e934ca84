"""Images to what a model says of them, whatever that is and whatever computes it."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.data.sources.pictures import Pictures
from vit_jax.errors import ConfigError
from vit_jax.evaluation.preprocess import Preprocessor
from vit_jax.inference.stream import Row, stacked, stream
from vit_jax.objectives.outputs.base import Output, Prediction


class ImagePredictor(ABC):
    """Images of any size to predictions; the subclasses say what computes them.

    It can be pickled, compiled functions are not: another process compiles anew.

    Attributes:
      output: what is predicted, and how it is written and drawn.
      batch_size: most images computed at once, see `stream.fitting`.
    """

    output: Any  # an `Output`: of each subclass a field or a property
    batch_size: int

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.output.summary}>"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Names of the classes, in order of label; none where the model has none."""
        return getattr(self.output, "class_names", ())

    @cached_property
    @abstractmethod
    def _preprocessor(self) -> Preprocessor:
        """What happens to images before."""

    @abstractmethod
    def _compute(self, images: np.ndarray) -> Mapping[str, Any]:
        """Return what `output` needs of images `(b, h, w, c)` uint8: arrays `(b, ...)` by name."""

    def probabilities(
        self, images: Pictures, *, bad: str = "error", max_megapixels: float | None = None
    ) -> np.ndarray:
        """Return class probabilities `(b, classes)` float32, by the model's `problem`.

        Of `single_label` a softmax; of `multi_label` each class has its own, a sigmoid, and rows do not sum to 1; of
        `regression` the values, which are no probabilities. A row whose outputs are not finite is not-a-number.

        Args:
          images: one or several: paths, folders, bytes of image files, open files, images of Pillow's, uint8 arrays,
            see `data.sources.pictures.each`.
          bad: what to do with an image that cannot be read: `error` raises, `skip` gives a row of not-a-number.
          max_megapixels: largest area accepted of an image, in millions of pixels; None for the run's own, or 64.

        Raises:
          ConfigError: `bad` or `max_megapixels` is wrong, or the model predicts something else.
          DataError: an image cannot be read; it is named.
        """
        output: Output = self.output
        if output.vector is None:
            raise ConfigError(f"the model predicts {output.kind}, not probabilities; use predict or stream.")
        name, length = output.vector
        rows = self._rows(images, bad, False, max_megapixels)
        return stacked(
            (row if row.values is None else row._replace(values=row.values[name]) for row in rows), length
        )

    def predict(
        self,
        images: Pictures,
        top: int | None = None,
        *,
        bad: str = "error",
        progress: bool = False,
        max_megapixels: float | None = None,
    ) -> list[Any]:
        """Return the prediction of each image, see `stream`."""
        given = self.stream(images, top, bad=bad, progress=progress, max_megapixels=max_megapixels)
        return list(given)

    def stream(
        self,
        images: Pictures,
        top: int | None = None,
        *,
        bad: str = "error",
        progress: bool = False,
        max_megapixels: float | None = None,
    ) -> Iterator[Any]:
        """Give the prediction of each image as they come, in constant memory.

        Args:
          images: see `probabilities`; also endless. Two batches are asked for before the first is given.
          top: of classes, how many, most probable first; all if there are fewer. None for 5, and of several labels for
            those that reach their threshold.
          bad: what to do with an image that cannot be read: `error` raises, `skip` gives a prediction whose `error`
            says why, so that there is one for each image.
          progress: show a bar on stderr if it is a terminal and there is more than a batch.
          max_megapixels: see `probabilities`.

        Returns:
          Of each image a `Prediction`; of a classifier with `classes` and `probabilities`. Outputs that are not finite
          give one whose `error` says so.

        Raises:
          ConfigError: `top`, `bad` or `max_megapixels` is wrong, or `top` is given where predictions have no order.
          DataError: an image cannot be read; it is named.
        """
        output: Output = self.output if top is None else self.output.best(top)
        rows = self._rows(images, bad, progress, max_megapixels)
        return (_prediction(output, row) for row in rows)

    def original(self, path: str | Path) -> np.ndarray:
        """Return an image file as it is, uint8 `(h, w, c)` with the model's channels.

        Raises:
          DataError: it cannot be read.
        """
        return self._preprocessor.original(path)

    def _rows(
        self, images: Pictures, bad: str, progress: bool, max_megapixels: float | None
    ) -> Iterator[Row]:
        preprocessor = self._preprocessor.limited(max_megapixels)
        return stream(self._compute, preprocessor, images, self.batch_size, bad=bad, progress=progress)

    def __getstate__(self) -> dict[str, Any]:
        return without_cached(self)


def without_cached(thing: Any) -> dict[str, Any]:
    """Return the attributes of an object that nobody can make again, which is what is kept of it when pickled."""
    kinds = type(thing).__mro__
    cached = {n for kind in kinds for n, value in vars(kind).items() if isinstance(value, cached_property)}
    return {name: value for name, value in vars(thing).items() if name not in cached}


def _prediction(output: Output, row: Row) -> Prediction:
    if row.taken is None:
        return output.prediction(row.name, {}, row.error)
    return output.predicted(row.name, row.values, row.taken.size, row.taken.geometry)
