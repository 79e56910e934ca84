"""Probabilities of images in batches of one size, and the classes they make most probable."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from vit_jax.evaluation.preprocess import Picture, name_of, several


@dataclass(frozen=True)
class Prediction:
    """The most probable classes of one image.

    Attributes:
      image: path of the image, or `image` and its number.
      classes: names, most probable first.
      probabilities: of these classes.
    """

    image: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]


def fitting(batch_size: int, count: int) -> int:
    """Return the batch size for `count` rows, at least one, in all.

    Fewer than a batch are padded to a power of two: a single image costs that of a single image, and there are few
    programs whatever comes. Programs of different sizes differ in the last bits of what they give.
    """
    return min(batch_size, 1 << (count - 1).bit_length())


def in_batches(compute: Callable[[np.ndarray], Any], rows: np.ndarray, batch_size: int) -> np.ndarray:
    """Return what a compiled function gives for rows, float32 `(n, ...)`.

    Args:
      compute: takes `(b, ...)`, gives `(b, ...)`.
      rows: `(n, ...)`, at least one; the last batch is padded with zeros, so that one program serves all.
      batch_size: rows computed at once.
    """
    outputs = []
    for start in range(0, len(rows), batch_size):
        chunk = rows[start : start + batch_size]
        padded = np.pad(chunk, [(0, batch_size - len(chunk))] + [(0, 0)] * (rows.ndim - 1))
        outputs.append(np.asarray(compute(padded), np.float32)[: len(chunk)])
    return np.concatenate(outputs)


def most_probable(
    images: Picture | Sequence[Picture], probabilities: np.ndarray, names: Sequence[str], top: int
) -> list[Prediction]:
    """Return the `top` most probable classes of each image.

    Args:
      images: one or several.
      probabilities: `(images, classes)`.
      names: of the classes.
      top: how many; all if there are fewer.
    """
    predictions = []
    for index, (image, row) in enumerate(zip(several(images), probabilities)):
        best: list[int] = np.argsort(-row, kind="stable")[: max(1, top)].tolist()
        chances = tuple(float(row[i]) for i in best)
        predictions.append(Prediction(name_of(image, index), tuple(names[i] for i in best), chances))
    return predictions
