"""Where images come from: opens the source a configuration names."""

import zlib
from typing import Any

from vit_jax.data.arrays import ArraySource, SyntheticSource, open_digits, open_npz
from vit_jax.data.base import Example, Selection, Source, balanced
from vit_jax.data.folder import FolderSource
from vit_jax.errors import choose

__all__ = [
    "SOURCES",
    "ArraySource",
    "Example",
    "FolderSource",
    "Selection",
    "Source",
    "SyntheticSource",
    "balanced",
    "open_source",
]

SOURCES = ("digits", "arrays", "folder", "tfds", "synthetic")


def open_source(
    section: Any,
    split: str,
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    num_classes: int | None = None,
) -> Source:
    """Return the source that a configuration's `data` section describes.

    Args:
      section: has the attributes `source`, `path` (folder, arrays, tfds), `name` (tfds), `size` (synthetic)
        and `train_split`, whose classes other splits must have.
      split: which part of the data.
      image_size, channels, num_classes: of the synthetic source, by default 224, 3 and 1000; the others have
        their own.

    Raises:
      ConfigError: there is no such source or split.
      DataError: the data is missing or inconsistent.
    """
    choose(section.source, SOURCES, "data.source")
    if section.source == "digits":
        return open_digits(split)
    if section.source == "arrays":
        return open_npz(section.path, split)
    if section.source == "folder":
        return FolderSource(section.path, split, reference=section.train_split)
    if section.source == "tfds":
        # Here because importing tensorflow_datasets takes a second that other sources need not wait for.
        from vit_jax.data.tfds_source import TfdsSource

        return TfdsSource(section.name, split, section.path)
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size or (224, 224)
    # Each split its own noise.
    seed = zlib.crc32(split.encode())
    return SyntheticSource(section.size, (height, width, channels or 3), num_classes or 1000, seed)
