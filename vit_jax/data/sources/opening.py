"""Where images come from: opens what a configuration's `data` section names."""

import importlib
from collections.abc import Sequence
from typing import Any

from vit_jax.data.base import Example, Selection, Source, balanced
from vit_jax.data.cache import Cached
from vit_jax.data.images.decode import MAX_MEGAPIXELS
from vit_jax.data.mixture import Mixture
from vit_jax.data.section import SOURCES, Part, Shape
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.data.sources.folder import FolderSource
from vit_jax.data.sources.synthetic import SyntheticSource
from vit_jax.data.split import open_split
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
      section: has `source`, what the source is told by (`path`, `name`, `size`, `image_column`, ...), and
        `train_split`, whose classes other splits must have.
      split: which part of the data, for example `train`, `train[:99%]` or `train[:20%]+train[40%:]`.
      image_size, channels, num_classes: of the synthetic source, by default 224, 3 and 1000; the others have
        their own.

    Raises:
      ConfigError: there is no such source or split.
      DataError: the data is missing or inconsistent.
    """
    choose(section.source, SOURCES, "data.source")
    kind = SOURCES[section.source]
    height, width = (image_size, image_size) if isinstance(image_size, int) else image_size or (224, 224)
    shape = Shape((height, width, channels or 3), num_classes or 1000)
    # Here because importing tensorflow_datasets, for example, takes a second that other sources need not wait for.
    module, _, function = kind.opens.partition(":")
    opened = getattr(importlib.import_module(module), function)
    if kind.sliced:
        return opened(section, split, shape)
    return open_split(split, lambda name: opened(section, name, shape))


def open_mixture(parts: Sequence[Part], **shape: Any) -> Mixture:
    """Return the mixture of sources that `data.mixture` describes.

    Args:
      parts: see `section.mixture_parts`.
      **shape: see `open_source`.
    """
    return Mixture(
        [open_source(part, part.split, **shape) for part in parts], [part.weight for part in parts]
    )


def cached(source: Source, kind: str, channels: int, max_megapixels: float = MAX_MEGAPIXELS) -> Source:
    """Return a source whose records stay in memory as `data.cache` says: `none`, `encoded` or `decoded`."""
    if kind == "none":
        return source
    return Cached(source, Decode(channels, max_megapixels) if kind == "decoded" else None)
