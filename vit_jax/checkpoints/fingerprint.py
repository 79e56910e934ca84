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
GOLDEN = 0x9E3779B9  # 2**32 divided by the golden ratio: neighbours' positions differ in many bits
BLOCK = 2**16  # words that NumPy handles at a time, so that they stay in the cache
_STRIDES = np.arange(BLOCK, dtype=np.uint32) * np.uint32(GOLDEN)


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
        if jax.default_backend() == "cpu" and len(sums[-1].devices()) > 1:
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


def entry_of_host(array: np.ndarray) -> list[Any]:
    """Return the entry that `table` has for an array, computed by NumPy, block by block."""
    bits = min(array.dtype.itemsize * 8, 32)
    words = np.ascontiguousarray(array).reshape(-1).view(np.dtype(f"uint{bits}"))
    total = 0
    for start in range(0, words.size, BLOCK):
        block = words[start : start + BLOCK].astype(np.uint32)
        block ^= _STRIDES[: block.size] + np.uint32(start * GOLDEN % 2**32)
        scratch = np.empty_like(block)
        for shift, factor in ((16, 0x85EBCA6B), (13, 0xC2B2AE35), (16, 1)):
            block ^= np.right_shift(block, np.uint32(shift), out=scratch)
            if factor != 1:
                block *= np.uint32(factor)
        total += int(block.sum(dtype=np.uint64))
    return [jnp.dtype(array.dtype).name, list(array.shape), f"{total % 2**32:08x}"]


def _words_on_host(leaf: Any) -> Any:
    # jit would narrow 64-bit NumPy arrays to 32 bits; two 32-bit words lose nothing.
    wide = isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.itemsize == 8
    return np.ascontiguousarray(leaf)[..., None].view(np.uint32) if wide else leaf


@jax.jit
def _sum(x: jax.Array) -> jax.Array:
    """Return the wrap-around sum over elements of a bijective hash of (bits XOR position times GOLDEN)."""
    words = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
    bits = min(jnp.dtype(words.dtype).itemsize * 8, 32)
    words = jax.lax.bitcast_convert_type(words, jnp.dtype(f"uint{bits}")).astype(jnp.uint32)
    position, stride = jnp.zeros(words.shape, jnp.uint32), 1
    for axis in reversed(range(words.ndim)):
        # Row-major index from one iota per axis: no reshape, so a sharded array stays where it is.
        index = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        position += index * jnp.uint32(stride * GOLDEN % 2**32)
        stride *= words.shape[axis]
    mixed = _mix(words ^ position)
    # In two sums: a CPU divides what keeps an axis among its cores, but not a sum to one number.
    return jnp.sum(jnp.sum(mixed, axis=tuple(range(1, mixed.ndim)), dtype=jnp.uint32), dtype=jnp.uint32)


def _mix(h: jax.Array) -> jax.Array:
    """Return MurmurHash3's finalizer (Austin Appleby, 2011): a bijection, so no single change is lost."""
    h = (h ^ (h >> jnp.uint32(16))) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> jnp.uint32(13))) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> jnp.uint32(16))
