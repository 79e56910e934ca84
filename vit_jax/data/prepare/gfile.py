"""TensorFlow's file functions for builders of tfds that use nothing else of it.

Most of them open and list files with `tf.io.gfile`, and so does tfds where it unpacks archives. It reaches
TensorFlow through one lazy module, which can be given another for a while.
"""

import glob
import os
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import SimpleNamespace
from typing import Any

from tensorflow_datasets.core.utils import lazy_imports_utils


class _Files(SimpleNamespace):
    """Stands for TensorFlow, or for a part of it; what it has not is told as TensorFlow's absence."""

    def __getattr__(self, name: str) -> Any:
        raise ImportError(
            f"tensorflow is not installed, and {name} is not of its file functions", name="tensorflow"
        )


_GFILE = _Files(
    GFile=open,
    exists=os.path.exists,
    glob=lambda pattern: sorted(glob.glob(os.fspath(pattern))),
    isdir=os.path.isdir,
    listdir=lambda path: sorted(os.listdir(path)),
    makedirs=lambda path: os.makedirs(path, exist_ok=True),
    walk=os.walk,
)


@contextmanager
def file_functions() -> Iterator[None]:
    """Let tfds find the file functions of TensorFlow where it is not installed; local files only."""
    if find_spec("tensorflow"):
        yield
        return
    lazy: Any = lazy_imports_utils.tensorflow.__dict__
    before = lazy.get("_module")
    lazy["_module"] = _Files(io=_Files(gfile=_GFILE))
    try:
        yield
    finally:
        del lazy["_module"]
        if before is not None:
            lazy["_module"] = before
