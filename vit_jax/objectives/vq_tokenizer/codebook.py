"""How a codebook follows what is encoded, as pure functions."""

import jax
import jax.numpy as jnp

from vit_jax.models.layers.norm import unit


def usage(codes: jax.Array, vectors: jax.Array, count: int) -> dict[str, jax.Array]:
    """Return how often each code was used, `(k,)`, and the sum of what it was used for, `(k, d)`.

    Args:
      codes: `(b, n)`.
      vectors: `(b, n, d)`.
      count: `k`.
    """
    codes, vectors = codes.reshape(-1), vectors.reshape(-1, vectors.shape[-1])
    return {
        "used": jnp.zeros(count).at[codes].add(1.0),
        "moved": jnp.zeros((count, vectors.shape[-1])).at[codes].add(vectors),
    }


def offered(vectors: jax.Array, token: jax.Array, slot: jax.Array, count: int) -> dict[str, jax.Array]:
    """Return for some codes what they may become, `(k, d)`, and which these are, `(k,)`: a patch of each image.

    Args:
      vectors: `(b, n, d)`.
      token: `(b,)`, which patch.
      slot: `(b,)`, which code, each another; `k` for none.
      count: `k`.
    """
    chosen = jnp.take_along_axis(vectors, token[:, None, None], axis=1)[:, 0]
    offers = jnp.zeros((count, vectors.shape[-1])).at[slot].add(chosen, mode="drop")
    return {"offers": offers, "offered": jnp.zeros(count).at[slot].add(1.0, mode="drop")}


def followed(
    codebook: jax.Array, uses: jax.Array, sums: dict[str, jax.Array], decay: float, revive_below: float
) -> tuple[jax.Array, jax.Array]:
    """Return the codebook and how often its codes are used, after a step.

    A code that was used goes to the direction of the mean of what it was used for (Peng et al. 2022, arXiv
    2208.06366); one that is hardly used any more, and has an offer, takes it, as if it were used as often as others.

    Args:
      codebook: `(k, d)`, rows of length 1.
      uses: `(k,)`, moving average of how often each is used in a step.
      sums: what `usage` and `offered` return, added up over the whole batch.
      decay: share that stays.
      revive_below: in shares of even use.
    """
    used = sums["used"]
    moved = unit(decay * codebook + (1 - decay) * unit(sums["moved"]))
    codebook = jnp.where((used > 0)[:, None], moved, codebook)
    uses = decay * uses + (1 - decay) * used
    even = used.sum() / len(used)
    dead = (uses < revive_below * even) & (sums["offered"] > 0)
    return jnp.where(dead[:, None], sums["offers"], codebook), jnp.where(dead, even, uses)


def perplexity(uses: jax.Array) -> jax.Array:
    """Return of how many codes used equally often the use `(k,)` has the entropy; 0 for no use at all."""
    total = uses.sum()
    share = uses / jnp.maximum(total, 1e-12)
    entropy = -jnp.where(share > 0, share * jnp.log(jnp.maximum(share, 1e-30)), 0.0).sum()
    return jnp.where(total > 0, jnp.exp(entropy), 0.0)
