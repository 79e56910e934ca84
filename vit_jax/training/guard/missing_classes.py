"""Classes without a record to train on: outputs that are never right, and often labels that were meant otherwise."""

import numpy as np

from vit_jax.data.base import Source
from vit_jax.data.classes import some
from vit_jax.errors import DataError


def check_labels_begin(source: Source) -> None:
    """Raise `DataError` if labels of unnamed classes run from 1, which would make an output that is never right.

    Args:
      source: the records to train on.
    """
    if source.named or source.labels is None or not len(source):
        return
    labels = np.asarray(source.labels)
    if labels.min() > 0:
        raise DataError(
            f"labels of the training records range from {labels.min()} to {labels.max()}, and none is 0; subtract "
            f"{labels.min()}, or name all classes, including those without records (class_names)."
        )


def missing_classes(source: Source) -> str:
    """Return what to say of classes that have no record to train on; nothing where labels are unknown."""
    if source.labels is None:
        return ""
    counts = np.bincount(source.labels, minlength=source.num_classes)
    names = [source.class_names[label] for label in np.flatnonzero(counts == 0)]
    if not names:
        return ""
    return f"{len(names):,} of {source.num_classes:,} classes have no training records: {some(names, 5)}"
