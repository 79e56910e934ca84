"""Whether arrays are finite, where they are."""

from typing import Any

import jax
import jax.numpy as jnp

from vit_jax import trees


def not_finite(tree: trees.Tree) -> list[str]:
    """Return the paths of arrays with a value that is not finite; to be called by all hosts."""
    flat = {
        path: leaf for path, leaf in trees.flatten(tree).items() if jnp.issubdtype(leaf.dtype, jnp.inexact)
    }
    # One small program for each shape, as for fingerprints, and for the same reasons one after the other on CPUs.
    flags = []
    with jax.transfer_guard("allow"):
        for leaf in flat.values():
            flags.append(_all_finite(leaf))
            if jax.default_backend() == "cpu":
                flags[-1].block_until_ready()
        return [path for path, finite in zip(flat, jax.device_get(flags)) if not finite]


@jax.jit
def _all_finite(x: Any) -> jax.Array:
    return jnp.isfinite(x).all()
