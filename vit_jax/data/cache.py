"""Records kept in memory once they were read."""

import os

import numpy as np

from vit_jax.data.base import Example, Source
from vit_jax.data.fields.table import USUAL, read_fields, summed_bytes
from vit_jax.data.transforms.base import Transform
from vit_jax.errors import ResourceError

# Of the machine's memory.
_SHARE = 0.5


class Cached(Source):
    """A source that is read from disk once; sets that fit into memory are.

    Args:
      source: what to keep.
      decode: if given, applied to what is kept; must not be random.

    Raises:
      ResourceError: when records are read that take more than half of the memory.
    """

    def __init__(self, source: Source, decode: Transform | None = None):
        self._source, self._decode = source, decode
        self.fields, self.class_names, self.named = source.fields, source.class_names, source.named
        self.labels, self._further = source.labels, not USUAL.issuperset(source.fields)
        self.image_shape, self.left_out = source.image_shape, dict(source.left_out)
        self._limit = _SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        self._kept: dict[int, Example] = {}
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> Example:
        example = self._kept.get(index)
        if example is None:
            example = self._source[index]
            if self._further:
                example = read_fields(example, self)
            if self._decode is not None:
                example = self._decode(example, np.random.default_rng(0))
            self._keep(index, example)
        return example

    def name_of(self, index: int) -> str:
        """Return what the source calls it."""
        return self._source.name_of(index)

    def take(self, indices: np.ndarray) -> Example | None:
        """Return several records stacked, if the source has them in memory as they are."""
        return None if self._decode else self._source.take(indices)

    def known(self, field: str) -> np.ndarray | None:
        """Return what the source knows."""
        return self._source.known(field)

    def order(self, positions: np.ndarray, seed: int) -> np.ndarray:
        """Return what the source says."""
        return self._source.order(positions, seed)

    def fingerprint(self) -> str:
        """Return that of the source."""
        return self._source.fingerprint()

    def _keep(self, index: int, example: Example) -> None:
        self._bytes += summed_bytes(example)
        if self._bytes > self._limit:
            raise ResourceError(
                f"data.cache: {len(self._kept)} of {len(self)} records take {self._bytes / 2**30:.1f} GiB, more "
                "than half of the memory; set data.cache='none'."
            )
        self._kept[index] = example
