"""Rows of a host's array on the devices: divided, padded with zeros, converted part by part."""

import math
from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

Convert = Callable[[np.ndarray], np.ndarray]


def _as_is(part: np.ndarray) -> np.ndarray:
    return part


def shards(rows: NamedSharding) -> int:
    """Return into how many parts a sharding divides the rows."""
    axes = rows.spec[0] if rows.spec else ()
    return math.prod(rows.mesh.shape[axis] for axis in ((axes,) if isinstance(axes, str) else axes or ()))


def padded_length(count: int, multiple: int) -> int:
    """Return the smallest multiple of `multiple` that is at least `count`, and at least one of them."""
    return max(1, -(-count // multiple)) * multiple


def place(values: np.ndarray, rows: NamedSharding, length: int, convert: Convert = _as_is) -> jax.Array:
    """Return `(length, ...)` on the devices: the rows of `values`, converted, then zeros.

    Every device gets its own rows alone, so no more of a large bank than that is converted at a time.

    Args:
      values: `(n, ...)`, whole on every host, `n <= length`.
      rows: divides the first dimension.
      length: of the result.
      convert: gives of `(b, ...)` rows what should lie on the device.
    """
    example = convert(values[:1])

    def part(index: tuple[slice, ...]) -> np.ndarray:
        start, stop, _ = index[0].indices(length)
        found = convert(values[start:stop])
        return np.pad(found, [(0, stop - start - len(found))] + [(0, 0)] * (found.ndim - 1))

    return jax.make_array_from_callback((length, *example.shape[1:]), rows, part)  # pyright: ignore[reportArgumentType]


def place_batches(values: np.ndarray, rows: NamedSharding, size: int, convert: Convert = _as_is) -> jax.Array:
    """Return `(m, size, ...)` on the devices: rows in batches, each divided over them, zeros after the last row.

    Args:
      values: `(n, ...)`, whole on every host.
      rows: divides the rows of a batch.
      size: rows of a batch, a multiple of the devices that they are divided over.
      convert: as in `place`.
    """
    example, batches = convert(values[:1]), padded_length(len(values), size) // size

    def part(index: tuple[slice, ...]) -> np.ndarray:
        which, (start, stop, _) = range(batches)[index[0]], index[1].indices(size)
        found = np.zeros((len(which), stop - start, *example.shape[1:]), example.dtype)
        for place, batch in enumerate(which):
            own = convert(values[batch * size + start : batch * size + stop])
            found[place, : len(own)] = own
        return found

    spec = NamedSharding(rows.mesh, PartitionSpec(None, *rows.spec))
    return jax.make_array_from_callback((batches, size, *example.shape[1:]), spec, part)  # pyright: ignore[reportArgumentType]
