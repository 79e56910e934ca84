"""Several sources as one, each record drawn from them in given proportions."""

import zlib
from collections.abc import Sequence

import numpy as np

from vit_jax.data.base import Example, Source
from vit_jax.data.fields.table import renumbered
from vit_jax.data.fingerprint import digest
from vit_jax.data.images.image_files import together
from vit_jax.data.order import shuffled
from vit_jax.errors import ConfigError, DataError

# In so many positions every source has exactly its share.
BLOCK = 10_000


class Mixture(Source):
    """The records of several sources; training draws from each in proportion to its weight.

    Classes are those of all sources, told apart by name, in the order in which they first come. Each source is gone
    through in epochs of its own, shuffled; what comes at a position of training is a pure function of position and
    seed. Read by index, records come source after source.

    Args:
      sources: from one on.
      weights: positive, one for each source; only their ratios count.

    Raises:
      ConfigError: a weight is not positive, or is less than half a ten-thousandth of their sum.
      DataError: the sources have different fields.
    """

    def __init__(self, sources: Sequence[Source], weights: Sequence[float]):
        self._sources = tuple(sources)
        shares = np.asarray(weights, np.float64)
        if len(shares) != len(sources) or not np.isfinite(shares).all() or shares.min() <= 0:
            raise ConfigError(
                f"weights of a mixture are {tuple(weights)}; give each source a positive number."
            )
        bounds = np.rint(np.cumsum(shares) / shares.sum() * BLOCK).astype(np.int64)
        self._slots = np.concatenate([[0], bounds])
        if (np.diff(self._slots) == 0).any():
            raise ConfigError(
                f"weights of a mixture are {tuple(weights)}; none may be less than 1/{BLOCK} of their sum."
            )
        self.fields = sources[0].fields
        for number, source in enumerate(sources):
            if odd := set(source.fields) ^ set(self.fields):
                raise DataError(
                    f"source {number} of a mixture has the fields {', '.join(source.fields)} but the first has "
                    f"{', '.join(self.fields)}; mix sources that all have {min(odd)!r}, or none of which has it."
                )
        self._starts = np.cumsum([0, *(len(source) for source in sources)])
        self.class_names = tuple(dict.fromkeys(name for source in sources for name in source.class_names))
        self.named = all(source.named for source in sources)
        number = {name: index for index, name in enumerate(self.class_names)}
        self._labels = [np.array([number[name] for name in source.class_names]) for source in sources]
        shapes = {source.image_shape for source in sources}
        self.image_shape = shapes.pop() if len(shapes) == 1 else None
        self.left_out = together(source.left_out for source in sources)
        known = [source.labels for source in sources]
        if not any(labels is None for labels in known):
            parts = [names[labels] for names, labels in zip(self._labels, known)]  # pyright: ignore[reportArgumentType]
            self.labels = np.concatenate(parts).astype(np.int32)

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> Example:
        which, own = self._place(index)
        source = self._sources[which]
        return renumbered(source[own], source, self._labels[which], self.num_classes)

    def name_of(self, index: int) -> str:
        """Return what its own source calls it."""
        which, own = self._place(index)
        return self._sources[which].name_of(own)

    def order(self, positions: np.ndarray, seed: int) -> np.ndarray:
        """Return which record is at each position; of any `BLOCK` of them each source has exactly its share."""
        blocks = positions // BLOCK
        slots = shuffled(positions, BLOCK, seed)
        which = np.searchsorted(self._slots, slots, "right") - 1
        own = np.diff(self._slots)[which] * blocks + slots - self._slots[which]
        indices = np.empty(len(positions), np.int64)
        for number, source in enumerate(self._sources):
            chosen = which == number
            if chosen.any():
                # Else equal sources would be in the same order.
                own_seed = zlib.crc32(f"{seed} {number}".encode())
                indices[chosen] = self._starts[number] + source.order(own[chosen], own_seed)
        return indices

    def fingerprint(self) -> str:
        """Return a checksum of the sources and their shares."""
        return digest(self._slots, [source.fingerprint() for source in self._sources])

    def _place(self, index: int) -> tuple[int, int]:
        """Return the source of a record, and which it is of that."""
        which = int(np.searchsorted(self._starts, index, "right")) - 1
        return which, index - int(self._starts[which])
