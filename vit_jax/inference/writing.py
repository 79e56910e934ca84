"""Where predictions go: lines of text or JSON, a table, or a folder of masks and pictures."""

import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from vit_jax.errors import ConfigError, printable
from vit_jax.evaluation.finite import finite
from vit_jax.inference.tables import is_folder, open_table
from vit_jax.objectives.outputs.base import NOT_FINITE, Output, Prediction
from vit_jax.paths import expanded
from vit_jax.weights.formats.tensors import replacing

Write = Callable[[Prediction], None]
TABLE = "predictions.jsonl"  # in a folder


def write_to(
    path: str | None,
    output: Output,
    images: Sequence[str],
    original: Callable[[str], np.ndarray],
    *,
    errors: bool,
    as_json: bool,
) -> Any:
    """Return a context that gives what takes each prediction, in the order of the images.

    Args:
      path: a table's or a folder's, see `is_folder`; None prints.
      output: what is predicted.
      images: paths of all images.
      original: reads one of them, for what is drawn on it.
      errors: whether a table has a column that says why there is no prediction.
      as_json: print a line of JSON for each instead of text.

    Raises:
      ConfigError: the path is of a folder, and predictions are no files.
    """
    if path is None:
        return _printed(output, max(map(len, images), default=0), as_json)
    if is_folder(path):
        return _folder(path, output, images, original, errors)
    return _table(path, output, errors)


def json_line(output: Output, prediction: Prediction) -> str:
    """Return a prediction as one line of JSON."""
    said = {"error": prediction.error} if prediction.error else output.line(prediction.record)
    return json.dumps(finite({"image": prediction.image, **said}), allow_nan=False)


def text_line(output: Output, prediction: Prediction, width: int) -> str:
    """Return a prediction as one line of text, the image's name filled up to a width."""
    if prediction.error:
        told = NOT_FINITE if prediction.error == NOT_FINITE else "cannot be read"
    else:
        told = output.text(prediction.record)
    return printable(f"{prediction.image:<{width}}   {told}")


@contextmanager
def _printed(output: Output, width: int, as_json: bool) -> Iterator[Write]:
    def write(prediction: Prediction) -> None:
        line = json_line(output, prediction) if as_json else text_line(output, prediction, width)
        tqdm.write(line)  # above the bar

    yield write


@contextmanager
def _table(path: str | Path, output: Output, errors: bool) -> Iterator[Write]:
    columns = {"image": str, **output.columns} | ({"error": str} if errors else {})
    empty = {name: None if isinstance(kind, type) else [] for name, kind in columns.items()}
    with open_table(path, columns) as table:

        def write(prediction: Prediction) -> None:
            said = {"error": prediction.error or None} if errors else {}
            table.write({**empty, "image": prediction.image, **prediction.record, **said})

        yield write


@contextmanager
def _folder(
    path: str, output: Output, images: Sequence[str], original: Callable[[str], np.ndarray], errors: bool
) -> Iterator[Write]:
    if not output.writes_files:
        raise ConfigError(
            f"--output is {path!r}, a folder, but the model predicts {output.kind}, which go into a table; name "
            f"one: {path.rstrip('/')}.csv."
        )
    folder, stems = Path(expanded(path)), iter(stems_of(images))
    with _table(folder / TABLE, output, errors) as row:

        def write(prediction: Prediction) -> None:
            stem = next(stems)
            row(prediction)
            if prediction.error:
                return
            image = original(prediction.image)
            files = output.files(prediction.outputs, stem, image, prediction.geometry)
            for name, content in files.items():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                with replacing(folder / name) as temporary:
                    temporary.write_bytes(content)

        yield write


def stems_of(paths: Sequence[str]) -> list[str]:
    """Return a name for the files of each image: its path from the folder that all lie in, without its ending.

    Images that differ in their endings alone keep them; one that comes again has the same name.
    """
    if not paths:
        return []
    whole = [os.path.abspath(expanded(path)) for path in paths]
    above = os.path.commonpath([os.path.dirname(path) for path in whole])
    names = [os.path.relpath(path, above) for path in whole]
    counts = Counter(os.path.splitext(name)[0] for name in dict.fromkeys(names))
    return [name if counts[os.path.splitext(name)[0]] > 1 else os.path.splitext(name)[0] for name in names]
