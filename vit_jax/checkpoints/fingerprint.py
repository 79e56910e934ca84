"""Fingerprints of arrays, equal on every mesh, that change when a single bit does.

They are computed where the arrays are, with integer arithmetic only, so that the order of a reduction over
devices does not matter. Storage libraries do not notice flipped bits in array data; these do.
"""

import hashlib
import json
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax import trees

Table = dict[str, list[Any]]


def table(tree: trees.Tree) -> Table:
    """Return `{path: [dtype, shape, sum]}` of a pytree of arrays; `sum` is eight hexadecimal digits.

    Args:
      tree: arrays of any real, integer or boolean dtype, on any devices, in any sharding.
    """
    flat = trees.flatten(tree)
    # One small program per distinct shape, not one large one: moments and averages share their parameters'
    # shapes, so it compiles several times faster.
    sums = []
    for leaf in flat.values():
        sums.append(_sum(_words_on_host(leaf)))
        if jax.default_backend() == "cpu":
            # Simulated devices share a few threads: many programs at once, each waiting for its reduction to be
            # joined by all devices, can take all of them and stop for good.
            sums[-1].block_until_ready()
    sums = jax.device_get(sums)
    return {
        path: [jnp.dtype(leaf.dtype).name, list(leaf.shape), f"{int(total):08x}"]
        for (path, leaf), total in zip(flat.items(), sums)
    }


def combine(entries: Table) -> str:
    """Return one fingerprint, sixteen hexadecimal digits, of a table; the order of its entries is free."""
    text = json.dumps(sorted(entries.items()))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


def fingerprint(tree: trees.Tree) -> str:
    """Return the fingerprint of a pytree of arrays: of its paths, dtypes, shapes and every bit."""
    return combine(table(tree))


def _words_on_host(leaf: Any) -> Any:
    # jit would narrow 64-bit NumPy arrays to 32 bits; two 32-bit words lose nothing.
    wide = isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.itemsize == 8
    return np.ascontiguousarray(leaf)[..., None].view(np.uint32) if wide else leaf


@jax.jit
def _sum(x: jax.Array) -> jax.Array:
    """Return the wrap-around sum over elements of a bijective hash of (bits XOR position)."""
    words = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
    bits = min(jnp.dtype(words.dtype).itemsize * 8, 32)
    words = jax.lax.bitcast_convert_type(words, jnp.dtype(f"uint{bits}")).astype(jnp.uint32)
    position, stride = jnp.zeros(words.shape, jnp.uint32), 1
    for axis in reversed(range(words.ndim)):
        # Row-major index from one iota per axis: no reshape, so a sharded array stays where it is.
        index = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        position += index * jnp.uint32(stride % 2**32)
        stride *= words.shape[axis]
    return jnp.sum(_mix(words ^ (position * jnp.uint32(0x9E3779B9))), dtype=jnp.uint32)


def _mix(h: jax.Array) -> jax.Array:
    """Return MurmurHash3's finalizer (Austin Appleby, 2011): a bijection, so no single change is lost."""
    h = (h ^ (h >> jnp.uint32(16))) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> jnp.uint32(13))) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> jnp.uint32(16))
