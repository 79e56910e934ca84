"""Where images come from: opens what a configuration's `data` section names."""

import zlib
from collections.abc import Sequence
from typing import Any

from vit_jax.data.arrays import ArraySource, SyntheticSource, open_npz
from vit_jax.data.base import Example, Selection, Source, balanced
from vit_jax.data.cache import Cached
from vit_jax.data.digits import open_digits
from vit_jax.data.folder import FolderSource
from vit_jax.data.mixture import Mixture
from vit_jax.data.section import SOURCES, Part
from vit_jax.data.split import parse_split, part_of
from vit_jax.data.transforms.decoding import Decode
from vit_jax.errors import choose

__all__ = [
    "SOURCES",
    "ArraySource",
    "Example",
    "FolderSource",
    "Mixture",
    "Selection",
    "Source",
    "SyntheticSource",
    "balanced",
    "cached",
    "open_mixture",
    "open_source",
]


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
      split: which part of the data, for example `train` or `train[:99%]`.
      image_size, channels, num_classes: of the synthetic source, by default 224, 3 and 1000; the others have
        their own.

    Raises:
      ConfigError: there is no such source or split.
      DataError: the data is missing or inconsistent.
    """
    choose(section.source, SOURCES, "data.source")
    if section.source == "tfds":
        # Here because importing tensorflow_datasets takes a second that other sources need not wait for.
        from vit_jax.data.tfds_source import TfdsSource

        return TfdsSource(section.name, split, section.path)
    name, _, _ = parse_split(split)
    if section.source == "digits":
        whole = open_digits(name)
    elif section.source == "arrays":
        whole = open_npz(section.path, name)
    elif section.source == "folder":
        whole = FolderSource(section.path, name, reference=parse_split(section.train_split)[0])
    else:
        height, width = (image_size, image_size) if isinstance(image_size, int) else image_size or (224, 224)
        # Each split its own noise.
        seed = zlib.crc32(name.encode())
        whole = SyntheticSource(section.size, (height, width, channels or 3), num_classes or 1000, seed)
    return part_of(whole, split)


def open_mixture(parts: Sequence[Part], **shape: Any) -> Mixture:
    """Return the mixture of sources that `data.mixture` describes.

    Args:
      parts: see `section.mixture_parts`.
      **shape: see `open_source`.
    """
    return Mixture(
        [open_source(part, part.split, **shape) for part in parts], [part.weight for part in parts]
    )


def cached(source: Source, kind: str, channels: int) -> Source:
    """Return a source whose records stay in memory as `data.cache` says: `none`, `encoded` or `decoded`."""
    if kind == "none":
        return source
    return Cached(source, Decode(channels) if kind == "decoded" else None)
