"""A step read back from disk: every array decoded and its fingerprint compared, on the host, a part at a time.

This runs in the background of training, so it neither asks an accelerator for anything nor holds more than a
few arrays.
"""

from pathlib import Path

import jax
import numpy as np
import orbax.checkpoint as ocp

from vit_jax import trees
from vit_jax.checkpoints import fingerprint
from vit_jax.checkpoints.files import Metadata, read_arrays, some
from vit_jax.errors import CheckpointError

GROUP_BYTES = 2**28  # decoded at a time; a single array may be larger


def verify(path: Path, metadata: Metadata, share: tuple[int, int] = (0, 1)) -> None:
    """Raise `CheckpointError` unless the arrays of a step are, bit by bit, those that were saved.

    Args:
      path: the step directory.
      metadata: of the step, undamaged.
      share: `(index, count)`: only look at every `count`-th group of arrays; processes that share a disk divide it.
    """
    stored = metadata["arrays"]
    index, count = share
    for names in _groups(stored)[index::count]:
        wanted = trees.unflatten({name: _shape(stored[name]) for name in names})
        arguments = ocp.args.PyTreeRestore(
            item=wanted,
            restore_args=jax.tree.map(lambda _: ocp.RestoreArgs(restore_type=np.ndarray), wanted),
            partial_restore=True,
        )
        found = read_arrays(path, arguments, names, np.ndarray)
        damaged = [name for name in names if fingerprint.entry_of_host(found[name]) != stored[name]]
        if damaged:
            raise CheckpointError(f"damaged, the fingerprint differs of {some(damaged)}.")


def _shape(entry: list) -> jax.ShapeDtypeStruct:
    dtype, shape, _ = entry
    return jax.ShapeDtypeStruct(tuple(shape), jax.numpy.dtype(dtype))


def _groups(stored: fingerprint.Table) -> list[list[str]]:
    """Return the names of arrays, divided into groups of at most `GROUP_BYTES` or one array."""
    groups: list[list[str]] = []
    room = 0
    for name, entry in stored.items():
        shape = _shape(entry)
        size = shape.size * shape.dtype.itemsize
        if not groups or size > room:
            groups.append([])
            room = GROUP_BYTES
        groups[-1].append(name)
        room -= size
    return groups
