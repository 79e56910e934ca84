"""Data in which there is nothing to tell apart: training would reach accuracy 1.0 and have learned nothing."""

import os
from pathlib import Path

import numpy as np

from vit_jax.data.base import Source
from vit_jax.data.images.image_files import subfolders
from vit_jax.errors import DataError
from vit_jax.paths import expanded
from vit_jax.training.config.defaults import Config


def check_several_classes(section: Config, source: Source) -> None:
    """Raise `DataError` if all records that labels are to be learned from are of one class.

    Args:
      section: `data` of the configuration.
      source: the records to train on.
    """
    labels = source.labels
    only = source.num_classes == 1
    if not only and (labels is None or len(labels) < 2 or (labels != labels[0]).any()):
        return
    name = source.class_names[0 if labels is None else int(np.asarray(labels)[0])]
    remedy = _levels(section) if only else ""
    raise DataError(
        f"all {len(source):,} training records belong to one class, {name!r} (such as {source.name_of(0)}), so "
        f"there is nothing to learn; {remedy or 'give records of several classes.'}"
    )


def _levels(section: Config) -> str:
    """Return what folder was meant, where the one given is probably too high or too deep."""
    if section.source != "folder" or section.mixture or not section.path:
        return ""
    root = Path(os.path.abspath(expanded(section.path)))
    if not os.path.isdir(root):
        return ""
    inside = subfolders(root)
    if len(inside) == 1 and len(subfolders(root / inside[0])) > 1:
        return f"data.path may be one level too high; give {str(root / inside[0])!r}."
    return f"data.path may be one level too deep; give {str(root.parent)!r}."
