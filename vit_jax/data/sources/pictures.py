"""Pictures as people hand them over, one by one: what each is called, and the file or array that it is.

Arrays are uint8, or of floats that are whole numbers from 0 to 255, which training takes too.

An array of three axes is one image `(h, w, c)` if its last axis is the model's channels, 1 or 3. Else it is grey images
`(b, h, w)`, if the model takes such and height and width are the model's or equal; only `(3, h, w)` may as well be one
image with its channels first, and is refused where the model takes three. Whatever else there is is refused.
"""

import os
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from vit_jax.data.images.decode import MAX_BYTES, MAX_PIXELS, from_pillow
from vit_jax.data.images.image_files import EXTENSIONS, image_files, left_out_text
from vit_jax.data.sources.sequence import is_array
from vit_jax.errors import DataError
from vit_jax.paths import expanded

Picture = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO | np.ndarray | Image.Image
Pictures = Picture | Iterable[Picture]

_COLOURS = (1, 3)  # channels that image files have, and grey images can be given
_WHAT = "a path, the bytes of an image file, a binary file, an image of Pillow's or a uint8 array"
_BYTES = (bytes, bytearray, memoryview)


class Given(NamedTuple):
    """One picture.

    Attributes:
      name: its path as it was given, or `image` and its number.
      content: a path, the bytes of a file, uint8 `(h, w, c)`, or what is wrong with it.
    """

    name: str
    content: Path | bytes | np.ndarray | DataError


def each(
    images: Pictures, size: tuple[int, int], channels: int, max_pixels: int = MAX_PIXELS
) -> Iterator[Given]:
    """Yield pictures one by one.

    An iterator is gone through once; what it yields may change when it is asked for the next, as the frames of a video
    do. Files are named, not read.

    Args:
      images: a path (of a folder: all images in it, see `image_files`), the bytes of an image file, a binary file, read
        from where it stands, an image of Pillow's, an array uint8 `(h, w)`, `(h, w, c)`, `(b, h, w, c)` or, by the rule
        above, `(b, h, w)`; or an iterable of these.
      size: height and width that the model takes.
      channels: that it takes.
      max_pixels: largest area accepted of an image of Pillow's.

    Raises:
      DataError: it is nothing like that. What is wrong with one picture of several is yielded.
    """
    count = 0
    for one, is_row in _listed(images):
        name = os.fspath(one) if isinstance(one, str | os.PathLike) else f"image {count}"
        try:
            found = _found(one, name, is_row, size, channels, max_pixels)
        except DataError as error:
            found = [(name, error)]
        for name, content in found:
            yield Given(name or f"image {count}", content)
            count += 1


def find(paths: Iterable[str]) -> tuple[list[str], Counter[str]]:
    """Return image files, those named and all those in folders, and how many of each kind in these are no images.

    Raises:
      DataError: a folder has no images, or cannot be read.
    """
    files, left_out = [], Counter[str]()
    for path in paths:
        inside, others = _inside(path) if is_folder(path) else ([path], Counter[str]())
        files += inside
        left_out.update(others)
    return files, left_out


def is_folder(path: str) -> bool:
    """Return whether a path means a folder of images; one that is called like an image does not.

    So it is not asked of each of a hundred thousand images, which takes long where files are far away.
    """
    return not path.lower().endswith(EXTENSIONS) and os.path.isdir(expanded(path))


def _inside(folder: str) -> tuple[list[str], Counter[str]]:
    found, left_out = image_files(expanded(folder))
    if not found:
        there = f" ({left_out_text(left_out)})" if left_out else ""
        raise DataError(f"folder {folder!r} has no images ({', '.join(EXTENSIONS)}){there}.")
    return [os.path.join(folder, name) for name in found], left_out


def _listed(images: Any) -> Iterator[tuple[Any, bool]]:
    """Yield what may be a picture, and whether it is one of an array `(b, h, w, c)`."""
    axes = len(images.shape) if is_array(images) else 0
    if axes == 4:
        yield from ((image, True) for image in images)  # not the whole: it may be in a file, and large
    elif axes in (2, 3) or isinstance(images, (str, os.PathLike, Image.Image, *_BYTES)) or _is_file(images):
        yield images, False
    elif (
        isinstance(images, Mapping)
        or not isinstance(images, Iterable)
        or (hasattr(images, "shape") and axes != 1)
    ):
        raise DataError(f"the images are {_described(images)}; give {_WHAT}, or several of these.")
    else:
        kept = isinstance(images, list | tuple)
        for image in images:
            yield (image if kept or not isinstance(image, np.ndarray) else image.copy()), False


def _found(
    one: Any, name: Any, is_row: bool, size: tuple[int, int], channels: int, max_pixels: int
) -> Iterable[tuple[str, Any]]:
    """Return name, empty if it has none, and content of what was given for a picture; of a folder and more, several."""
    if isinstance(one, str | os.PathLike):
        if not isinstance(name, str):
            raise DataError(f"path {name!r} is bytes; give it as a string: os.fsdecode(path).")
        if "://" in name:
            raise DataError(
                f"{name} is a URL; images are read from files: download it first, or give its bytes."
            )
        paths = _inside(name)[0] if is_folder(name) else [name]
        return [(path, Path(path)) for path in paths]
    if isinstance(one, _BYTES):
        return [("", bytes(one))]
    if isinstance(one, Image.Image):
        try:
            return [("", from_pillow(one, max_pixels))]
        except DataError as error:
            raise DataError(f"{name}: {error}") from error
    if _is_file(one):
        return [("", _read(one, name))]
    if is_array(one):
        return [("", image) for image in _images(one, name, is_row, size, channels)]
    raise DataError(f"{name} is {_described(one)}; give {_WHAT}.")


def _read(file: Any, name: str) -> bytes:
    try:
        content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        raise DataError(f"{name} is an open file that cannot be read: {error}.") from error
    if not isinstance(content, bytes):
        raise DataError(f"{name} is a file opened in text mode; open it with mode 'rb'.")
    if len(content) > MAX_BYTES:
        raise DataError(f"{name} is an open file of more than {MAX_BYTES} bytes, which no image may have.")
    if not content:
        raise DataError(f"{name} is an open file with nothing left to read; rewind it: seek(0).")
    return content


def _images(
    given: Any, name: str, is_row: bool, size: tuple[int, int], channels: int
) -> Iterable[np.ndarray]:
    """Return the images `(h, w, c)` of an array."""
    try:
        array = np.asarray(given)
    except (TypeError, RuntimeError, ValueError) as error:  # it lies on another device, for example
        raise DataError(f"{name} is {_described(given)} that is not a NumPy array: {error}") from error
    shape = array.shape
    described = f"{name} is {array.dtype} of shape {shape}; it must be uint8 (h, w, c) with c = {channels}"
    if array.dtype.kind == "f" and array.size:
        array = _of_floats(array, described)
    if array.dtype != np.uint8:
        raise DataError(f"{described}.")
    if 0 in shape or not 2 <= array.ndim <= 4:
        raise DataError(f"{described}.")
    if array.ndim == 4:
        return (image for row in array for image in _images(row, name, True, size, channels))
    if array.ndim == 3 and shape[-1] in (*_COLOURS, channels):
        return [array]
    if array.ndim == 2 and channels in _COLOURS:
        return [array[..., None]]
    if array.ndim == 2:
        raise DataError(f"{described}.")
    if is_row or channels not in _COLOURS or not (shape[1:] == size or shape[1] == shape[2]):
        first = " Channels go last: x.transpose(1, 2, 0)." if shape[0] in (*_COLOURS, channels) else ""
        raise DataError(
            f"{name}: the image has {shape[-1]} channels, which cannot become {channels}; give uint8 "
            f"(h, w, {channels}).{first}"
        )
    if shape[0] == channels == 3:
        raise DataError(
            f"{name} is of shape {shape}, one image with its channels first or three grey ones; give "
            "x.transpose(1, 2, 0) or x[..., None]."
        )
    return array[..., None]


def _of_floats(array: np.ndarray, described: str) -> np.ndarray:
    """Return uint8 of whole numbers from 0 to 255; what has none above 1 may as well be a share of white."""
    low, high = array.min(), array.max()
    if (1 < high <= 255 and low >= 0) or low == high == 0:
        pixels = array.astype(np.uint8)
        if (pixels == array).all():
            return pixels
        raise DataError(f"{described}, or whole numbers: x.round().astype('uint8').")
    values = f"values from 0 to 255, and not from {low:g} to {high:g}"
    remedy = "; of values from 0 to 1 make (255 * x).round().astype('uint8')" if 0 <= low <= high <= 1 else ""
    raise DataError(f"{described}, {values}{remedy}.")


def _is_file(value: Any) -> bool:
    return callable(getattr(value, "read", None))


def _described(value: Any) -> str:
    kind, shape = type(value).__name__, getattr(value, "shape", None)
    article = "an" if kind[0].lower() in "aeiou" else "a"
    return f"{article} {kind}" + (f" of shape {tuple(shape)}" if shape is not None else "")
