"""Explicit randomness: keys are derived by name and step, never stored.

`key=None` means evaluation everywhere: no dropout, no drop path, no masking.
"""

import zlib
from typing import overload

import jax


def root(seed: int) -> jax.Array:
    """Return the typed key of a run."""
    return jax.random.key(seed)


@overload
def fold(key: jax.Array, name: str | int | jax.Array) -> jax.Array: ...


@overload
def fold(key: None, name: str | int | jax.Array) -> None: ...


@overload
def fold(key: jax.Array | None, name: str | int | jax.Array) -> jax.Array | None: ...


def fold(key: jax.Array | None, name: str | int | jax.Array) -> jax.Array | None:
    """Return the key for `name` under `key`, or None when there is no key.

    Args:
      key: a typed scalar key, or None.
      name: a text label, or an integer such as the step (may be traced).
    """
    if key is None:
        return None
    if isinstance(name, str):
        name = zlib.crc32(name.encode()) & 0x7FFFFFFF
    return jax.random.fold_in(key, name)


def split(key: jax.Array | None, count: int) -> jax.Array | None:
    """Return `count` keys stacked on a leading axis, or None when there is no key."""
    return None if key is None else jax.random.split(key, count)
