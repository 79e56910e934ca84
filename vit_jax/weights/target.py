"""Where a parameter goes while it is read: memory that its devices take over, without a copy of the whole beside it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol

import jax
import numpy as np

Shape = tuple[int, ...]


class Target(Protocol):
    """A parameter being read."""

    def part(self, layer: int | None = None) -> Any:
        """Return a context in which an array is filled: that of one block, or the whole for None."""


class Whole:
    """A parameter in one piece.

    Args:
      shape: of the parameter.
      sharding: how it is to lie on the devices; None for the default one.
    """

    def __init__(self, shape: Shape, sharding: Any = None):
        self.array, self.sharding = aligned(shape), sharding

    @contextmanager
    def part(self, layer: int | None = None) -> Iterator[np.ndarray]:
        """Give the memory of one block, or of all."""
        yield self.array if layer is None else self.array[layer]

    def placed(self) -> jax.Array:
        """Return the parameter on its devices; on a CPU its memory is taken over."""
        return place(self.array, self.sharding)


class Shards:
    """A stacked parameter in the pieces that this host's devices hold, filled block by block.

    Args:
      shape: of the parameter, blocks first; they are not divided.
      sharding: how it lies on the devices.
    """

    def __init__(self, shape: Shape, sharding: Any):
        self.shape, self.sharding = shape, sharding
        indices = sharding.addressable_devices_indices_map(shape)
        self.places = {device: _bounds(index, shape) for device, index in indices.items()}
        self.pieces = {bounds: aligned(tuple(b - a for a, b in bounds)) for bounds in self.places.values()}

    @staticmethod
    def suits(shape: Shape, sharding: Any) -> bool:
        """Return whether blocks are whole on every device."""
        return bool(shape) and sharding.shard_shape(shape)[0] == shape[0]

    @contextmanager
    def part(self, layer: int | None = None) -> Iterator[np.ndarray]:
        """Give memory for one block; what it was filled with then goes to every piece."""
        assert layer is not None
        block = np.empty(self.shape[1:], np.float32)
        yield block
        for bounds, piece in self.pieces.items():
            piece[layer] = block[tuple(slice(a, b) for a, b in bounds[1:])]

    def placed(self) -> jax.Array:
        """Return the parameter on its devices."""
        shards = [
            jax.device_put(self.pieces[bounds], device, may_alias=True)
            for device, bounds in self.places.items()
        ]
        return jax.make_array_from_single_device_arrays(self.shape, self.sharding, shards)


def aligned(shape: Shape) -> np.ndarray:
    """Return an empty float32 array that jax can take over on CPU without copying it: it begins at 64 bytes."""
    size = int(np.prod(shape, dtype=np.int64)) * 4
    memory = np.empty(size + 64, np.uint8)
    start = -memory.ctypes.data % 64
    return memory[start : start + size].view(np.float32).reshape(shape)


def place(array: np.ndarray, sharding: Any = None) -> jax.Array:
    """Return an array on its devices, or on the default one."""
    if sharding is None:
        return jax.device_put(array, may_alias=True)
    return jax.make_array_from_callback(array.shape, sharding, lambda index: array[index])


def _bounds(index: tuple[slice, ...], shape: Shape) -> tuple[tuple[int, int], ...]:
    return tuple(part.indices(size)[:2] for part, size in zip(index, shape))
