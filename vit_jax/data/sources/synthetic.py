"""Noise as images, for measuring speed and for trying things out."""

import zlib
from typing import Any

import numpy as np

from vit_jax.data.base import Example, Source
from vit_jax.data.fingerprint import digest
from vit_jax.data.section import Shape
from vit_jax.errors import ConfigError


class SyntheticSource(Source):
    """Noise of any size, a pure function of the index and the seed; costs no more than a copy.

    Args:
      size: number of records.
      image_shape: `(h, w, c)`.
      num_classes: record `i` has label `i % num_classes`.
      seed: of the noise.
      name: what messages call it.
    """

    named = False
    # Windows into one buffer of noise: this many different images for the memory of one.
    _WINDOWS = 4096

    def __init__(
        self,
        size: int,
        image_shape: tuple[int, int, int],
        num_classes: int,
        seed: int = 0,
        name: str = "the synthetic source",
    ):
        if size < 1:
            raise ConfigError(f"data.size is {size}; the synthetic source needs at least 1 record.")
        self._size, self._name = size, name
        self.image_shape = image_shape
        self.class_names = tuple(str(label) for label in range(num_classes))
        self.labels = (np.arange(size) % num_classes).astype(np.int32)
        noise = np.random.default_rng(seed).bytes(int(np.prod(image_shape)) + self._WINDOWS)
        self._noise = np.frombuffer(noise, np.uint8)

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> Example:
        stacked = self.take(np.array([index]))
        return {
            "image": stacked["image"][0],
            "label": int(stacked["label"][0]),
            "record": f"record {index} of {self._name}",
        }

    def take(self, indices: np.ndarray) -> Example:
        """Return several records stacked."""
        assert self.labels is not None
        assert self.image_shape is not None
        windows = np.lib.stride_tricks.sliding_window_view(self._noise, int(np.prod(self.image_shape)))
        images = windows[indices % self._WINDOWS].reshape(-1, *self.image_shape)
        return {"image": images, "label": self.labels[indices]}

    def fingerprint(self) -> str:
        """Return a checksum of the noise and what is cut from it."""
        return digest(self.image_shape, self.labels, self._noise)


def open_section(section: Any, split: str, shape: Shape) -> SyntheticSource:
    """Return what `data.source='synthetic'` means: of each split its own noise."""
    seed, name = zlib.crc32(split.encode()), f"the synthetic source ({split})"
    return SyntheticSource(section.size, shape.image, shape.num_classes, seed, name)
