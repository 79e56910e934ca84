"""Fingerprints of arrays, equal on every mesh, that change when a single bit does; and whether values are finite.

Both are found in one pass over the arrays, where these are. Fingerprints are of integer arithmetic only, so that the
order of a reduction over devices does not matter. Storage libraries do not notice flipped bits in array data; these do.
"""

import hashlib
import json
from collections.abc import Iterable
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
    return examine(tree)[0]


def not_finite(tree: trees.Tree) -> list[str]:
    """Return the paths of the arrays that have a value which is not finite."""
    return examine(tree)[1]


def examine(tree: trees.Tree) -> tuple[Table, list[str]]:
    """Return the table of a pytree of arrays, and the paths of those that are not finite; to be called by all hosts.

    Args:
      tree: as for `table`.
    """
    flat = trees.flatten(tree)
    # One small program per distinct shape, not one large one: moments and averages share their parameters'
    # shapes, so it compiles several times faster.
    found = []
    with jax.transfer_guard("allow"):
        for leaf in flat.values():
            found.append(_examine(_words_on_host(leaf), _finite_on_host(leaf)))
            if jax.default_backend() == "cpu" and len(found[-1][0].devices()) > 1:
                # Simulated devices share a few threads: many programs at once, each waiting for its reduction to be
                # joined by all devices, can take all of them and stop for good.
                jax.block_until_ready(found[-1])
        found = jax.device_get(found)
    entries = {
        path: [jnp.dtype(leaf.dtype).name, list(leaf.shape), f"{int(total):08x}"]
        for (path, leaf), (total, _) in zip(flat.items(), found)
    }
    return entries, [path for path, (_, finite) in zip(flat, found) if not finite]


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


def _is_wide(leaf: Any) -> bool:
    # jit would narrow 64-bit NumPy arrays to 32 bits; two 32-bit words lose nothing.
    return isinstance(leaf, np.ndarray | np.generic) and leaf.dtype.itemsize == 8


def _words_on_host(leaf: Any) -> Any:
    return np.ascontiguousarray(leaf)[..., None].view(np.uint32) if _is_wide(leaf) else leaf


def _finite_on_host(leaf: Any) -> bool:
    return bool(np.isfinite(leaf).all()) if _is_wide(leaf) else True


@jax.jit
def _examine(x: jax.Array, finite: bool | jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the wrap-around sum over elements of a bijective hash of (bits XOR position times GOLDEN), and whether all
    elements are finite and `finite`."""
    words = x.astype(jnp.uint8) if x.dtype == jnp.bool_ else x
    bits = min(jnp.dtype(words.dtype).itemsize * 8, 32)
    words = jax.lax.bitcast_convert_type(words, jnp.dtype(f"uint{bits}")).astype(jnp.uint32)
    position, stride = jnp.zeros(words.shape, jnp.uint32), 1
    for axis in reversed(range(words.ndim)):
        # Row-major index from one iota per axis: no reshape, so a sharded array stays where it is.
        index = jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
        position += index * jnp.uint32(stride * GOLDEN % 2**32)
        stride *= words.shape[axis]
    good = jnp.isfinite(x) if jnp.issubdtype(x.dtype, jnp.inexact) else jnp.ones(x.shape, jnp.bool_)
    good = jnp.broadcast_to(good if good.ndim == words.ndim else good[..., None], words.shape)
    # In two reductions: a CPU divides what keeps an axis among its cores, but not what becomes one number.
    partial = _joined(_mix(words ^ position), good, range(1, words.ndim))
    total, good = _joined(*partial, range(partial[0].ndim))
    return total, good & finite


def _joined(words: jax.Array, good: jax.Array, axes: Iterable[int]) -> tuple[jax.Array, jax.Array]:
    # One reduction of both: on CPUs, XLA's own of integers takes five times as long.
    zero, true = jnp.uint32(0), jnp.bool_(True)
    return jax.lax.reduce((words, good), (zero, true), lambda a, b: (a[0] + b[0], a[1] & b[1]), tuple(axes))


def _mix(h: jax.Array) -> jax.Array:
    """Return MurmurHash3's finalizer (Austin Appleby, 2011): a bijection, so no single change is lost."""
    h = (h ^ (h >> jnp.uint32(16))) * jnp.uint32(0x85EBCA6B)
    h = (h ^ (h >> jnp.uint32(13))) * jnp.uint32(0xC2B2AE35)
    return h ^ (h >> jnp.uint32(16))
