"""What makes the features of different teachers comparable: PHI-S, and simpler ways.

PCA-Hadamard isotropic standardisation (Ranzinger et al. 2024, arXiv 2410.01680): features are turned into their
principal axes and then by a Hadamard matrix, which spreads the variance of the axes evenly over all numbers, and
divided by the one deviation that all then have. It is an isometry but for that one factor, so that no direction of a
teacher counts more than it did. Letters: `n` rows, `d` width.
"""

from collections.abc import Mapping
from functools import cache

import jax
import jax.numpy as jnp
import numpy as np

Measured = Mapping[str, jax.Array]
EPSILON = 1e-6


def begin(width: int) -> dict[str, jax.Array]:
    """Return what is known before any feature was seen: nothing is changed."""
    return {
        "rows": jnp.zeros(()),
        "total": jnp.zeros((width,)),
        "products": jnp.zeros((width, width)),
        "mean": jnp.zeros((width,)),
        "turn": jnp.eye(width),
        "scale": jnp.ones(()),
    }


def sums(features: jax.Array) -> dict[str, jax.Array]:
    """Return what is added up over rows of features `(..., d)`."""
    rows = features.astype(jnp.float32).reshape(-1, features.shape[-1])
    products = jnp.einsum("nd,ne->de", rows, rows, precision=jax.lax.Precision.HIGHEST)
    return {"rows": jnp.float32(len(rows)), "total": rows.sum(0), "products": products}


def measured(before: Measured, more: Measured, last: jax.Array, turned: bool) -> dict[str, jax.Array]:
    """Return what is known once more rows were added up.

    Args:
      before: what was known.
      more: see `sums`.
      last: whether these were the last; only then features are turned, because it takes an eigendecomposition.
      turned: whether they are turned at all.
    """
    found = {name: before[name] + more[name] for name in ("rows", "total", "products")}
    rows = jnp.maximum(found["rows"], 1.0)
    mean = found["total"] / rows
    covariance = found["products"] / rows - jnp.outer(mean, mean)
    scale = jax.lax.rsqrt(jnp.maximum(jnp.trace(covariance) / len(mean), EPSILON))
    turn = before["turn"]
    if turned:
        turn = jax.lax.cond(last, _turn, lambda covariance: turn, covariance)
    return {**found, "mean": mean, "turn": turn, "scale": scale}


def _turn(covariance: jax.Array) -> jax.Array:
    """Return the orthogonal matrix `(d, d)` that gives features of this covariance equal variances."""
    _, axes = jnp.linalg.eigh(covariance)
    mixing = jnp.asarray(hadamard(len(covariance)), jnp.float32) / np.float32(len(covariance) ** 0.5)
    return jnp.matmul(axes, mixing.T, precision=jax.lax.Precision.HIGHEST)


def standardised(features: jax.Array, known: Measured) -> jax.Array:
    """Return features `(..., d)` with their mean removed, turned and scaled, in float32."""
    centred = features.astype(jnp.float32) - known["mean"]
    return jnp.matmul(centred, known["turn"], precision=jax.lax.Precision.HIGHEST) * known["scale"]


@cache
def hadamard(order: int) -> np.ndarray:
    """Return a Hadamard matrix, `(order, order)` of ones and minus ones with orthogonal rows, int8.

    By the constructions of Sylvester (1867) and Paley (1933), over primes.

    Raises:
      ValueError: these give none of this order.
    """
    if order == 1:
        return np.ones((1, 1), np.int8)
    found = _paley(order)
    if found is None:
        if order % 2:
            raise ValueError(order)
        half = hadamard(order // 2)
        found = np.block([[half, half], [half, -half]])
    return found


def _paley(order: int) -> np.ndarray | None:
    """Return Paley's matrix of an order, of his first construction or his second; None where there is none."""
    q = order - 1
    if q % 4 == 3 and _prime(q):
        core = _residues(q)
        first = np.ones((order, order), np.int8)
        first[1:, 1:] = core + np.eye(q, dtype=np.int8)
        first[1:, 0] = -1
        return first
    q = order // 2 - 1
    if order % 2 == 0 and q % 4 == 1 and _prime(q):
        conference = np.zeros((q + 1, q + 1), np.int8)
        conference[0, 1:] = conference[1:, 0] = 1
        conference[1:, 1:] = _residues(q)
        one, other = np.array([[1, 1], [1, -1]], np.int8), np.array([[1, -1], [-1, -1]], np.int8)
        return np.kron(conference, one) + np.kron(np.eye(q + 1, dtype=np.int8), other)
    return None


def _residues(q: int) -> np.ndarray:
    """Return `(q, q)`: 1 where the difference of row and column is a square modulo q, -1 where not, 0 where 0."""
    squares = np.full(q, -1, np.int8)
    squares[np.arange(1, q) ** 2 % q] = 1
    squares[0] = 0
    return squares[(np.arange(q)[:, None] - np.arange(q)) % q]


def _prime(q: int) -> bool:
    return q > 1 and all(q % factor for factor in range(2, int(q**0.5) + 1))
