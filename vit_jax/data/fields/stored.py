"""Fields of records as prepared datasets store them, features of a `tf.train.Example`, and back."""

import io
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from vit_jax.data.fields.kind import IGNORE
from vit_jax.data.images.decode import decode, jpeg_header
from vit_jax.data.images.float_maps import decode_floats, encode_floats
from vit_jax.data.images.label_maps import decode_labels, encode_labels
from vit_jax.data.prepare.images import read_header
from vit_jax.errors import DataError

FILE = "fields.json"  # beside the records: which fields there are, and what classes are called
# How the values of a field are kept, and the shape of what they are.
_LISTS: dict[str, tuple[str, tuple[int, ...]]] = {
    "label": ("int64_list", ()),
    "labels": ("float_list", (-1,)),
    "value": ("float_list", (-1,)),
    "boxes": ("float_list", (-1, 4)),
    "classes": ("int64_list", (-1,)),
    "crowd": ("int64_list", (-1,)),
    "points": ("float_list", (-1, 2)),
}
_MAPS = ("segmentation", "masks", "depth")  # PNG files
STORED = ("image", *_MAPS, *_LISTS)
# Of targets that are few numbers: the end of the name of the file beside the records that has those of a split, so that
# they are known before any record is read.
BESIDE = {"label": "labels", "labels": "label_rows", "value": "values"}


class Stored(NamedTuple):
    """What a prepared dataset has.

    Attributes:
      fields: of each record.
      class_names, named: see `Source`.
    """

    fields: tuple[str, ...]
    class_names: tuple[str, ...]
    named: bool

    @property
    def ignored(self) -> int:
        """What stands in stored label maps for pixels that belong to no class."""
        return 255 if len(self.class_names) <= 255 else 65535

    def write(self, directory: Path) -> None:
        """Write the file that `read` reads."""
        said = {"fields": self.fields, "class_names": self.class_names, "named": self.named}
        (directory / FILE).write_text(json.dumps(said, indent=1))

    @classmethod
    def read(cls, directory: str | os.PathLike[str]) -> "Stored | None":
        """Return what the file in a directory says, or None if there is none: the dataset has images and labels.

        Raises:
          DataError: it is damaged.
        """
        path = Path(directory) / FILE
        if not path.is_file():
            return None
        try:
            said = json.loads(path.read_text())
            found = cls(tuple(said["fields"]), tuple(map(str, said["class_names"])), bool(said["named"]))
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(f"{path} is damaged ({error}); prepare the dataset again.") from error
        if not set(STORED).issuperset(found.fields):
            raise DataError(f"{path} has the fields {', '.join(found.fields)}; prepare the dataset again.")
        return found

    def encoded(self, example: Mapping[str, Any]) -> dict[str, tuple[str, list[Any]]]:
        """Return the fields of a checked record as the kind of list that a feature is, and its values."""
        result: dict[str, tuple[str, list[Any]]] = {}
        for name in self.fields:
            value = example[name]
            if name == "image":
                result[name] = (
                    "bytes_list",
                    [value if isinstance(value, bytes) else _png(value, example["record"])],
                )
            elif name in _MAPS:
                result[name] = "bytes_list", self._encoded_maps(name, value)
            else:
                kind, shape = _LISTS[name]
                if np.ndim(value) != len(shape):
                    raise DataError(
                        f"{name} has {np.ndim(value)} axes; prepared datasets store {len(shape)}."
                    )
                dtype = np.float32 if kind == "float_list" else np.int64
                result[name] = kind, np.asarray(value, dtype).reshape(-1).tolist()
        return result

    def decoded(self, features: Mapping[str, Any]) -> dict[str, Any]:
        """Return the fields of a record from the features of an example.

        Raises:
          IndexError, KeyError: there is not what there must be.
        """
        result: dict[str, Any] = {}
        for name in self.fields:
            if name == "image":
                result[name] = features[name].bytes_list.value[0]
            elif name in _MAPS:
                result[name] = self._decoded_maps(name, features)
            else:
                kind, shape = _LISTS[name]
                dtype = np.float32 if kind == "float_list" else np.int64
                values = np.array(getattr(features[name], kind).value, dtype)
                result[name] = int(values[0]) if name == "label" else values.reshape(shape)
        return result

    def _encoded_maps(self, name: str, value: np.ndarray) -> list[bytes]:
        if name == "masks":
            return [encode_labels(mask) for mask in value]
        if name == "depth":
            return [encode_floats(value)]
        return [encode_labels(np.where(value == IGNORE, self.ignored, value))]

    def _decoded_maps(self, name: str, features: Mapping[str, Any]) -> np.ndarray:
        files = features[name].bytes_list.value
        if name == "masks":
            if not files:  # of no objects, but as large as the image
                return np.zeros((0, *decode(features["image"].bytes_list.value[0]).shape[:2]), np.uint8)
            return np.stack([decode_labels(file) for file in files]).astype(np.uint8)
        if name == "depth":
            return decode_floats(files[0])
        ids = decode_labels(files[0])
        return np.where(ids == self.ignored, IGNORE, ids)


def objects_of(features: Mapping[str, Any], has_crowd: bool) -> dict[str, Any]:
    """Return the objects of an example that tfds wrote, with boxes as shares of height and width, in pixels.

    Args:
      features: of the example, `objects/bbox` (top, left, bottom, right) and `objects/label` among them.
      has_crowd: whether there is `objects/is_crowd`.

    Raises:
      DataError: the image says that it is to be turned, which boxes of tfds do not follow.
    """
    image = features["image"].bytes_list.value[0]
    header = jpeg_header(image)
    if header is not None and header.orientation != 1:
        raise DataError(
            "the image has an EXIF orientation, which boxes of tfds do not follow; rotate its pixels."
        )
    size = read_header(image)
    width, height = size.width, size.height
    shares = np.array(features["objects/bbox"].float_list.value, np.float32).reshape(-1, 4)
    crowd = {"crowd": np.array(features["objects/is_crowd"].int64_list.value, np.bool_)} if has_crowd else {}
    return {
        "image": image,
        "boxes": shares[:, [1, 0, 3, 2]] * np.array([width, height, width, height], np.float32),
        "classes": np.array(features["objects/label"].int64_list.value, np.int64),
        **crowd,
    }


def _png(image: np.ndarray, record: str) -> bytes:
    if image.dtype != np.uint8 or image.shape[-1] not in (1, 3):
        raise DataError(
            f"{record} is {image.dtype} of {image.shape[-1]} channels; image files hold uint8 of 1 or 3."
        )
    buffer = io.BytesIO()
    Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()
