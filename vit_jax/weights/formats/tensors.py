"""What every reader of weights gives: arrays that are described but not read, and helpers that keep reading safe.

A file is checked completely before anything of the size it declares is allocated, and then read one array at a
time with plain reads: pages of a mapped file would count as memory of the process.
"""

import json
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax.errors import CheckpointError, ResourceError
from vit_jax.models.layers.encoder_config import LARGEST as LARGEST

MAX_DIMENSIONS = 32
MAX_TENSORS = 100_000


@dataclass(frozen=True)
class Tensor:
    """One array of a file, not read yet.

    Attributes:
      shape: its dimensions.
      dtype: native dtype of what `read` returns; `ml_dtypes.bfloat16` is possible.
      read: reads the array from the file, each time anew.
    """

    shape: tuple[int, ...]
    dtype: np.dtype
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class RawCheckpoint:
    """What a file or folder of weights holds, under the names it has there.

    Attributes:
      origin: path or name, for messages.
      format: `safetensors`, `npz`, `torch` or `orbax`.
      tensors: name -> tensor, in the order of the file.
      documents: parsed JSON files beside the weights, by file name.
      weights: which of several sets of weights these are, by name.
      others: names of the other sets.
      left_out: names of arrays that belong to none of the sets.
    """

    origin: str
    format: str
    tensors: Mapping[str, Tensor]
    documents: Mapping[str, Any]
    weights: str = ""
    others: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()


def short(value: object) -> str:
    """Return a file's text as one printable line of bounded length, for messages."""
    text = value if isinstance(value, str) else f"a {type(value).__name__}"
    return repr(text if len(text) <= 80 else text[:77] + "...")


def check_name(name: object, origin: str) -> str:
    """Return the name of a tensor.

    Raises:
      CheckpointError: it is no text that can be printed on one line.
    """
    if not isinstance(name, str) or not name.isprintable() or len(name) > 1000:
        raise CheckpointError(f"{origin} names a tensor {short(name)}; names must be one printable line.")
    return name


def byte_size(shape: object, dtype: np.dtype, what: str) -> int:
    """Return how many bytes an array takes.

    Args:
      shape: sequence that a file gives as dimensions, unchecked.
      dtype: type of its elements.
      what: names the array in the message.

    Raises:
      CheckpointError: the shape is none that an array can have.
    """
    if not isinstance(shape, list | tuple) or len(shape) > MAX_DIMENSIONS:
        raise CheckpointError(
            f"{what} has no shape of at most {MAX_DIMENSIONS} dimensions; the file is damaged."
        )
    # numpy bounds the product of the dimensions other than zero, so that strides fit in 64 bits.
    if not all(type(n) is int and 0 <= n < 2**48 for n in shape) or math.prod(n or 1 for n in shape) >= 2**48:
        raise CheckpointError(f"{what} has an impossible shape; the file is damaged.")
    return math.prod(shape) * dtype.itemsize


def as_array(
    raw: np.ndarray, dtype: np.dtype, shape: tuple[int, ...], swap: bool = False, fortran: bool = False
) -> np.ndarray:
    """View bytes as an array, without a copy except for booleans.

    Args:
      raw: (bytes,) uint8 of exactly the array's size; changed in place by `swap`.
      dtype: native type of the elements.
      shape: the dimensions.
      swap: whether the bytes of each element are in the other order than this machine's.
      fortran: whether the first dimension varies fastest.
    """
    if swap and dtype.itemsize > 1:
        raw.view(f"u{dtype.itemsize}").byteswap(inplace=True)
    flat = raw != 0 if dtype.kind == "b" else raw.view(dtype)
    return flat.reshape(shape[::-1]).T if fortran else flat.reshape(shape)


def parse_json(text: bytes, path: Path) -> Any:
    """Return the value of JSON text in which no object has a key twice.

    Raises:
      CheckpointError: the text is something else.
    """

    def distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        value = dict(pairs)
        if len(value) < len(pairs):
            raise ValueError("a key is repeated")
        return value

    try:
        return json.loads(text.decode(), object_pairs_hook=distinct)
    except (ValueError, RecursionError):
        raise CheckpointError(
            f"{path} does not hold valid JSON; it is damaged or was not copied completely."
        ) from None


@contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what the system says about an unreadable file into one line.

    Raises:
      CheckpointError: the file is missing, is a pipe or device, or cannot be read.
      ResourceError: it may not be read.
    """
    try:
        kind = os.stat(path).st_mode
        if not stat.S_ISREG(kind) and not stat.S_ISDIR(kind):
            raise CheckpointError(f"{path} is a pipe or device; give the path of an ordinary file.")
        yield
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} does not exist; give the path of a file or folder of weights."
        ) from None
    except PermissionError:
        raise ResourceError(f"{path} may not be read; give this user permission to read it.") from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror or type(error).__name__}.") from None
    except ValueError:
        if "\0" in os.fspath(path):
            raise CheckpointError(f"{path} is not a valid name of a file.") from None
        raise


def file_bytes(path: Path, offset: int, size: int) -> np.ndarray:
    """Read part of a file.

    Args:
      path: the file.
      offset: where the part begins.
      size: how many bytes it has; the caller has checked that the file had them.

    Returns:
      (size,) uint8.

    Raises:
      CheckpointError: the file has become shorter or unreadable.
    """
    out = np.empty(size, np.uint8)
    with reading(path), open(path, "rb", buffering=0) as file:
        file.seek(offset)
        fill(file, out, path)
    return out


def fill(file: Any, out: np.ndarray, path: Path) -> None:
    """Read exactly as many bytes as `out` (bytes,) has from a binary file.

    Raises:
      CheckpointError: the file ends before.
    """
    view, done = out.data, 0
    while done < len(view):
        # Linux reads at most 2 GiB a call; parts also keep the copy that a zip reader makes small.
        count = file.readinto(view[done : done + 2**22])
        if not count:
            raise CheckpointError(f"{path} ends early; it is damaged or was not copied completely.")
        done += count


def bytes_of(array: np.ndarray, name: str, shape: tuple[int, ...], dtype: np.dtype) -> memoryview:
    """Return an array's bytes for writing, last dimension fastest.

    Args:
      array: what is written.
      name: names it in the message.
      shape: what was announced for it.
      dtype: likewise.

    Raises:
      ValueError: the array is not what was announced.
    """
    if array.shape != tuple(shape) or array.dtype != dtype:
        raise ValueError(f"{name} is {array.dtype}{array.shape}, but {dtype}{tuple(shape)} was announced")
    return np.asarray(array, order="C").reshape(-1).view(np.uint8).data


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Give a temporary path beside `path`; what was written there takes its place if all went well.

    Raises:
      ResourceError: the disk is full or the folder may not be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        with open(temporary, "rb") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        raise ResourceError(
            f"{path} cannot be written: {error.strerror or error}; free space or choose another."
        ) from None
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
