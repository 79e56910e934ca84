"""Losses that compare views of images without prototypes. All take whole batches: under jit, those of all devices.

Letters: `v` views, `b` images, `d` width of projections, `s` directions.
"""

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.models.layers.norm import unit

KNOTS, FARTHEST = 17, 3.0  # of the quadrature that SIGReg is published with


def unit_directions(key: jax.Array, width: int, count: int) -> jax.Array:
    """Return random directions, unit vectors in columns, `(d, s)` float32."""
    return unit(jax.random.normal(key, (count, width), jnp.float32)).T


# ---- no teacher, and any number of views


def invariance(views: jax.Array, around: jax.Array) -> jax.Array:
    """Return the mean squared distance of each view from the mean of some, of all features.

    Args:
      views: `(v, b, d)`.
      around: `(u, b, d)`, whose mean it is: the global views (lightly, VISReg), or all (LeJEPA's authors).
    """
    return jnp.square(views - around.mean(0)).mean()


def sigreg(views: jax.Array, directions: jax.Array) -> jax.Array:
    """Return how far projections of each view are from a standard normal distribution, along some directions.

    It is the statistic of Epps & Pulley of each view and direction, the squared distance of two characteristic
    functions, by the trapezoidal rule over the 17 knots of [0, 3]; of them the mean.

    Args:
      views: `(v, b, d)`.
      directions: `(d, s)`, unit vectors in columns, the same for all views.

    Source: LeJEPA, Balestriero & LeCun 2025, arXiv 2511.08544.
    """
    # Cosines are b x s x knots values for each view; computed again for the gradient, they are never kept.
    return jax.checkpoint(_epps_pulley)(jnp.einsum("vbd,ds->vbs", views, directions)).mean()


def _epps_pulley(samples: jax.Array) -> jax.Array:
    """Return the statistic `(v, s)` of samples `(v, b, s)`."""
    knots = np.linspace(0, FARTHEST, KNOTS)
    normal = np.exp(-np.square(knots) / 2)
    steps = np.full(KNOTS, 2 * FARTHEST / (KNOTS - 1))  # twice: of negative knots too
    steps[[0, -1]] /= 2
    angles = samples[..., None] * jnp.asarray(knots, jnp.float32)
    real = jnp.square(jnp.cos(angles).mean(1) - jnp.asarray(normal, jnp.float32))
    error = real + jnp.square(jnp.sin(angles).mean(1))
    return samples.shape[1] * (error * jnp.asarray(steps * normal, jnp.float32)).sum(-1)


def lejepa_loss(
    views: jax.Array, around: jax.Array, directions: jax.Array, weight: float
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return LeJEPA's loss and its terms: `weight` for the distribution, the rest for `invariance`.

    Args:
      views, around: see `invariance`.
      directions: see `sigreg`.
      weight: from 0 to 1.
    """
    terms = {"invariance": invariance(views, around), "sigreg": sigreg(views, directions)}
    return (1 - weight) * terms["invariance"] + weight * terms["sigreg"], terms


def visreg_loss(
    views: jax.Array, around: jax.Array, directions: jax.Array, weight: float, weights: tuple[float, ...]
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return VISReg's loss and its terms (Wu et al. 2026, arXiv 2606.02572).

    Of each view, features shall have mean 0 and deviation 1, and, divided by their deviations, along each direction
    the quantiles of a normal distribution.

    Args:
      views, around: see `invariance`.
      directions: see `sigreg`.
      weight: of all terms but `invariance`, which has the rest; from 0 to 1.
      weights: of `scale`, `shape` and `centre` among them.
    """
    count, mean = views.shape[1], views.mean(1, keepdims=True)
    # Not the root of 0, whose gradient is not a number.
    deviation = jnp.sqrt(jnp.square(views - mean).mean(1, keepdims=True) + 1e-12)
    normed = (views - mean) / (jax.lax.stop_gradient(deviation) + 1e-4)
    found = jnp.sort(jnp.einsum("vbd,ds->vbs", normed, directions), axis=1)
    quantiles = jax.scipy.stats.norm.ppf(jnp.arange(1, count + 1, dtype=jnp.float32) / (count + 1))
    terms = {
        "invariance": invariance(views, around),
        "scale": jnp.square(1 - deviation).mean(),
        "shape": jnp.square(found - quantiles[:, None]).mean(),
        "centre": jnp.square(mean).mean(),
    }
    scale, shape, centre = weights
    spread = scale * terms["scale"] + shape * terms["shape"] + centre * terms["centre"]
    return (1 - weight) * terms["invariance"] + weight * spread, terms


# ---- two views


def vicreg_loss(
    first: jax.Array, second: jax.Array, weights: tuple[float, float, float] = (25.0, 25.0, 1.0)
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return VICReg's loss and its terms (Bardes et al. 2021, arXiv 2105.04906).

    Args:
      first, second: projections of two views, `(b, d)`.
      weights: of invariance, variance and covariance.
    """
    views = jnp.stack([first, second])
    count, width = first.shape
    centred = views - views.mean(1, keepdims=True)
    deviations = jnp.square(centred).sum(1) / (count - 1)
    products = jnp.einsum("vbd,vbe->vde", centred, centred) / (count - 1)
    others = jnp.square(products).sum() - jnp.square(deviations).sum()
    terms = {
        "invariance": jnp.square(first - second).mean(),
        "variance": jax.nn.relu(1 - jnp.sqrt(deviations + 1e-4)).mean(),
        "covariance": others / width,
    }
    invariance, variance, covariance = weights
    total = invariance * terms["invariance"] + variance * terms["variance"]
    return total + covariance * terms["covariance"], terms


def barlow_twins_loss(
    first: jax.Array, second: jax.Array, weight: float = 5e-3
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Return the loss of Barlow Twins and its terms (Zbontar et al. 2021, arXiv 2103.03230).

    Args:
      first, second: projections of two views, `(b, d)`.
      weight: of the correlations of different features.
    """
    one, two = (_normed(view) for view in (first, second))
    correlation = one.T @ two / len(first)
    same = jnp.diagonal(correlation)
    terms = {
        "invariance": jnp.square(same - 1).sum(),
        "redundancy": jnp.square(correlation).sum() - jnp.square(same).sum(),
    }
    return terms["invariance"] + weight * terms["redundancy"], terms


def _normed(x: jax.Array) -> jax.Array:
    """Return features `(b, d)` with mean 0 and deviation 1, as batch normalisation without parameters does."""
    centred = x - x.mean(0)
    return centred * jax.lax.rsqrt(jnp.square(centred).mean(0) + 1e-5)


def nt_xent_loss(first: jax.Array, second: jax.Array, temperature: float = 0.1) -> jax.Array:
    """Return SimCLR's loss: which of the 2b - 1 others is the other view of an image (Chen et al. 2020, 2002.05709).

    Args:
      first, second: projections of two views, `(b, d)`.
      temperature: of the cosines.
    """
    count, both = len(first), unit(jnp.concatenate([first, second]))
    scores = jnp.where(jnp.eye(2 * count, dtype=bool), -jnp.inf, both @ both.T / temperature)
    other = (both * jnp.roll(both, count, axis=0)).sum(-1) / temperature
    return (jax.nn.logsumexp(scores, axis=-1) - other).mean()


def info_nce_loss(queries: jax.Array, keys: jax.Array, temperature: float) -> jax.Array:
    """Return which of a batch's keys belongs to a query: MoCo v3's (Chen et al. 2021, arXiv 2104.02057).

    Args:
      queries, keys: `(b, d)`.
      temperature: of the cosines; the loss is multiplied by twice as much, as published.
    """
    scores = unit(queries) @ unit(keys).T / temperature
    return 2 * temperature * (jax.nn.logsumexp(scores, axis=-1) - jnp.diagonal(scores)).mean()


def cosine(said: jax.Array, wanted: jax.Array) -> jax.Array:
    """Return the mean cosine of predictions and targets `(b, d)`, through which no gradient goes to the targets."""
    return (unit(said) * unit(jax.lax.stop_gradient(wanted))).sum(-1).mean()


# ---- how much is left of a batch


def spread(x: jax.Array) -> jax.Array:
    """Return the deviation of unit features `(b, d)` over a batch, times the root of d: 0 where all are the same.

    It is about 1 where they point in all directions alike (SimSiam, Chen & He 2020, arXiv 2011.10566).
    """
    directions = unit(x.astype(jnp.float32))
    return directions.std(0).mean() * x.shape[-1] ** 0.5
