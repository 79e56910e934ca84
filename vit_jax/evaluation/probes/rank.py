"""How many dimensions a representation uses, without labels; and whether it has collapsed."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jax.sharding import NamedSharding

from vit_jax.evaluation.probes.base import Features, Probe
from vit_jax.evaluation.probes.knn import unit

# As many as the authors take: more no longer changes the number.
RECORDS = 25_600
# Of `feature_std`, which is 1 for features that point anywhere alike.
COLLAPSED = 0.05


def singular_values(features: np.ndarray) -> np.ndarray:
    """Return the singular values of `(n, d)`, largest first, `(min(n, d),)` float64.

    They are roots of the eigenvalues of the smaller Gram matrix in float64: exact to `1e-8` of the largest.
    """
    x = np.asarray(features, np.float64)
    gram = x.T @ x if x.shape[0] >= x.shape[1] else x @ x.T
    return np.sqrt(np.maximum(np.linalg.eigvalsh(gram)[::-1], 0.0))


def rankme(features: np.ndarray, epsilon: float = 1e-7) -> float:
    """Return the effective rank of features `(n, d)`: the exponential of the entropy of their singular values.

    It lies between 1 and `d`; features are neither centred nor scaled.

    Args:
      features: `(n, d)`.
      epsilon: added to each share, as the authors do.

    Source: Garrido et al. 2023, arXiv 2210.02885.
    """
    values = singular_values(features)
    total = values.sum()
    if not total:
        return 1.0  # nothing but zeros
    shares = values / total + epsilon
    return float(np.exp(-np.sum(shares * np.log(shares))))


def feature_std(features: np.ndarray) -> float:
    """Return the mean deviation of features `(n, d)` of length 1, times the root of `d`.

    1 for features that point anywhere alike, 0 where all images have the same.

    Source: Chen & He 2021, arXiv 2011.10566, figure 2.
    """
    return float(unit(features).std(axis=0, dtype=np.float64).mean() * np.sqrt(features.shape[1]))


@dataclass(frozen=True)
class Rank(Probe):
    """Effective rank and spread of the features of the first training records, see `rankme` and `feature_std`."""

    name: ClassVar[str] = "rank"
    labels: ClassVar[bool] = False

    @property
    def metrics(self) -> tuple[str, ...]:
        """Both numbers."""
        return ("rankme", "feature_std")

    def measure(
        self, bank: Features, queries: Features, num_classes: int, rows: NamedSharding
    ) -> dict[str, float]:
        """Return `rankme` and `feature_std`."""
        # Equally spaced, as records may be sorted by class.
        some = bank.values[np.linspace(0, len(bank) - 1, min(len(bank), RECORDS)).astype(np.int64)]
        return {"rankme": rankme(some), "feature_std": feature_std(some)}

    def alarm(self, metrics: Mapping[str, float], width: int) -> str | None:
        """Return how the features have collapsed, if they have."""
        if metrics["feature_std"] < COLLAPSED:
            return (
                f"the features have collapsed: all images have nearly the same (feature_std "
                f"{metrics['feature_std']:.3f}; healthy is about 1)"
            )
        if metrics["rankme"] < 2 < width:
            return f"the features have collapsed to a line: their effective rank is {metrics['rankme']:.2f} of {width}"
        return None
