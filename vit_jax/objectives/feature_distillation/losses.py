"""How far features are from those of a teacher: pure functions, one value per image."""

import jax
import jax.numpy as jnp

from vit_jax.objectives.losses import smooth_l1


def same_grid(one: jax.Array, other: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return maps `(b, h, w, d)` on the coarser grid of both, bilinear."""
    grid = tuple(map(min, one.shape[1:3], other.shape[1:3]))
    return tuple(  # pyright: ignore[reportReturnType]
        x
        if x.shape[1:3] == grid
        else jax.image.resize(x, (len(x), *grid, x.shape[-1]), "bilinear", antialias=True)
        for x in (one, other)
    )


def row_losses(student: jax.Array, target: jax.Array, kind: str) -> jax.Array:
    """Return the loss of each row `(b,)`: the mean over its places and, but for cosines, over its numbers."""
    if kind == "cosine":
        return 1 - row_cosines(student, target)
    if kind == "smooth_l1":
        return _per_row(smooth_l1(student, target))
    return _per_row(jnp.square(student - target))


def row_cosines(one: jax.Array, other: jax.Array) -> jax.Array:
    """Return the mean over places of the cosines of vectors `(b, ..., d)`, `(b,)`; 0 where one is shorter than 1e-6."""
    lengths = jnp.square(one).sum(-1) * jnp.square(other).sum(-1)
    return _per_row((one * other).sum(-1) * jax.lax.rsqrt(jnp.maximum(lengths, 1e-12)))


def _per_row(x: jax.Array) -> jax.Array:
    return x.reshape(len(x), -1).mean(-1)
