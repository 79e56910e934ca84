"""Builders of `tensorflow_datasets`, opened by name or from a directory that may come from a stranger.

Metadata of a prepared dataset name Python classes, whose modules tfds would import, and names such as `kaggle:...` or
`someone:dataset` fetch and run code of others. Here only classes of tfds itself are known, and only names without
a namespace.
"""

import io
import os
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

import tensorflow_datasets as tfds

from vit_jax.errors import DataError, nearest
from vit_jax.paths import expanded, read_file

# Files of a prepared dataset that tfds reads whole.
_DOCUMENTS = ("dataset_info.json", "features.json", "metadata.json")
_MAX_DOCUMENT = 100_000_000  # bytes
_NAME = re.compile(r"\w+(/[\w.+-]+)?(:[\d*]+\.[\d*]+\.[\d*]+|:experimental_latest)?", re.ASCII)
_OWN = "tensorflow_datasets.core.features."


def open_builder(name: str, path: str = "") -> Any:
    """Return the builder of a dataset.

    Args:
      name: as in `tfds.builder`, for example `cifar10` or `imagenet2012:5.1.0`; empty when `path` is the directory of
        one version of a dataset.
      path: tfds's `data_dir`, or the directory of the dataset when there is no name; empty: tfds's default.

    Raises:
      DataError: there is none, its metadata are damaged, or they ask for code that is not tfds's own.
    """
    path = expanded(path)
    what = f"dataset {name!r}" if name else f"directory {path!r}"
    if name and not _NAME.fullmatch(name):
        raise DataError(
            f"tfds {what} cannot be opened: a name must be NAME, NAME/CONFIG or NAME:VERSION, without a namespace."
        )
    try:
        if not name:
            for document in _DOCUMENTS:
                if os.path.lexists(Path(path) / document):
                    read_file(Path(path) / document, _MAX_DOCUMENT)
        with quiet(), _own_features():
            return tfds.builder(name, data_dir=path or None) if name else tfds.builder_from_directory(path)
    # An unknown name or version, a directory without a dataset, a builder that itself needs TensorFlow; and what
    # damaged metadata make tfds and protobuf raise, which is anything.
    except Exception as error:
        known = tfds.list_builders(with_community_datasets=False) if name else ()
        hint = nearest(name.partition(":")[0].partition("/")[0], known)
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        raise DataError(f"tfds {what} cannot be opened: {why}{hint}") from error


def quiet() -> AbstractContextManager[Any]:
    """Return a context in which tfds does not print that a library is missing; that is told in an error's line."""
    return redirect_stdout(io.StringIO())


@contextmanager
def _own_features() -> Iterator[None]:
    """Keep tfds from importing modules that metadata name."""
    connector: Any = tfds.features.FeatureConnector
    original = connector.__dict__["cls_from_name"]

    def known(cls: Any, python_class_name: str) -> Any:
        if not str(python_class_name).startswith(_OWN):
            raise ValueError(f"its features.json names {python_class_name!r}, which is not part of tfds")
        return original.__func__(cls, python_class_name)

    connector.cls_from_name = classmethod(known)
    try:
        yield
    finally:
        connector.cls_from_name = original
