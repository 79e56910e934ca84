"""Few-shot accuracy of frozen features by regularised least squares, as big_vision measures it."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from vit_jax.errors import ConfigError
from vit_jax.evaluation.probes.base import Features, Probe, Records, accuracy
from vit_jax.evaluation.probes.placing import padded_length, place, shards

BIAS = 100.0  # the constant feature: so large that its weight is hardly regularised
L2 = 2.0**10  # big_vision's
L2_GRID = tuple(2.0**power for power in range(-10, 21, 2))
SEEDS = (0, 1, 2)


@dataclass(frozen=True)
class LeastSquares:
    """A linear classifier of features `(n, d)`.

    Attributes:
      mean, scale: of the features it was fitted to, `(d,)`.
      weights: float64 `(d + 1, c)`; the last row is that of the constant feature.
      l2: the regularisation.
    """

    mean: np.ndarray
    scale: np.ndarray
    weights: np.ndarray
    l2: float

    @property
    def affine(self) -> tuple[np.ndarray, np.ndarray]:
        """Kernel `(d, c)` and bias `(c,)` in float32 that give the scores of features as they are."""
        kernel = self.weights[:-1] / self.scale[:, None]
        return kernel.astype(np.float32), (BIAS * self.weights[-1] - self.mean @ kernel).astype(np.float32)


def least_squares(
    features: np.ndarray, labels: np.ndarray, num_classes: int, l2: float | None = L2
) -> LeastSquares:
    """Return the ridge regression of targets `2 * onehot - 1` on whitened features and a constant of 100.

    Features are whitened with their own mean and deviation (biased, plus 1e-5). The whitened features sum to zero, so
    the constant's weight has a solution of its own, and one eigendecomposition of the smaller of `(d, d)` and `(n, n)`
    serves every `l2`.

    Args:
      features: `(n, d)`.
      labels: int `(n,)`.
      num_classes: labels are below.
      l2: the regularisation; None chooses of `L2_GRID` the one with the least squared leave-one-out error.

    Source: Dosovitskiy et al. 2020, arXiv 2010.11929; big_vision, `evaluators/fewshot_lsr.py`.
    """
    x, y = np.asarray(features, np.float64), 2.0 * np.eye(num_classes)[labels] - 1.0
    mean, scale = x.mean(axis=0), x.std(axis=0) + 1e-5
    x = (x - mean) / scale
    if x.shape[0] >= x.shape[1]:
        eigenvalues, vectors = np.linalg.eigh(x.T @ x)
        left, right, rows = vectors, vectors.T @ (x.T @ y), x @ vectors
    else:
        eigenvalues, vectors = np.linalg.eigh(x @ x.T)
        left, right, rows = x.T @ vectors, vectors.T @ y, vectors * eigenvalues

    def bias(l2: float) -> np.ndarray:
        return BIAS * y.sum(axis=0) / (BIAS**2 * len(x) + l2)

    if l2 is None:
        # Prediction is linear in the targets; what of its own target each keeps is the leverage.
        squares = rows**2 if x.shape[0] >= x.shape[1] else rows * vectors

        def left_out(l2: float) -> float:
            shrunk = 1 / (eigenvalues + l2)
            leverage = squares @ shrunk + BIAS**2 / (BIAS**2 * len(x) + l2)
            residual = y - (rows * shrunk) @ right - BIAS * bias(l2)
            return float(np.square(residual / np.maximum(1 - leverage, 1e-9)[:, None]).sum())

        l2 = min(L2_GRID, key=left_out)
    kernel = (left / (eigenvalues + l2)) @ right
    return LeastSquares(mean, scale, np.concatenate([kernel, bias(l2)[None]]), l2)


def draw_shots(labels: np.ndarray, num_classes: int, shots: int, seed: int) -> np.ndarray:
    """Return which records are the examples: the first `shots` of each class in the order of a seed.

    So fewer shots are some of more. Classes with fewer records have all of theirs.

    Args:
      labels: int `(n,)`.
      num_classes: labels are below.
      shots: examples of each class.
      seed: of the order.
    """
    rng = np.random.default_rng(seed)
    shuffled = [rng.permutation(np.flatnonzero(labels == label)) for label in range(num_classes)]
    return np.concatenate([of_class[:shots] for of_class in shuffled])


def fewshot_accuracies(
    bank: Features,
    queries: Features,
    num_classes: int,
    rows: NamedSharding,
    *,
    shots: Sequence[int] = (1, 5, 10, 25),
    l2: float | None = L2,
    seeds: Sequence[int] = SEEDS,
) -> dict[int, list[float]]:
    """Return the accuracy by number of shots, one for each seed.

    Args:
      bank: what examples are drawn from.
      queries: what is classified.
      num_classes: labels are below.
      rows: how the queries are divided over the devices.
      shots: examples of each class.
      l2: see `least_squares`.
      seeds: of the draws.
    """
    length = padded_length(len(queries), shards(rows))
    asked = place(queries.values, rows, length)

    @partial(jax.jit, out_shardings=NamedSharding(rows.mesh, PartitionSpec()))
    def classify(asked: jax.Array, kernel: jax.Array, bias: jax.Array) -> jax.Array:
        scores = jnp.einsum("qd,dc->qc", asked, kernel, precision=jax.lax.Precision.HIGHEST) + bias
        return scores.argmax(axis=1)

    found: dict[int, list[float]] = {}
    for count in shots:
        found[count] = []
        for seed in seeds:
            chosen = draw_shots(bank.labels, num_classes, count, seed)
            fitted = least_squares(bank.values[chosen], bank.labels[chosen], num_classes, l2)
            predicted = jax.device_get(classify(asked, *fitted.affine))[: len(queries)]
            found[count].append(accuracy(predicted, queries.labels))
    return found


@dataclass(frozen=True)
class FewShot(Probe):
    """Accuracy with a few labelled examples of each class, the mean over three draws, see `least_squares`.

    Attributes:
      shots: examples of each class.
      l2: the regularisation; None chooses it by leaving one out.
    """

    name: ClassVar[str] = "fewshot"
    shots: tuple[int, ...] = (1, 5, 10, 25)
    l2: float | None = L2

    @classmethod
    def configured(cls, section: Any, dtype: str) -> "FewShot":
        """Return the probe with `evaluation.shots` and `evaluation.shots_l2`."""
        return cls(tuple(section.shots), section.shots_l2 or None)

    @property
    def metrics(self) -> tuple[str, ...]:
        """One accuracy for each number of shots."""
        return tuple(f"fewshot{count}_accuracy" for count in self.shots)

    def check(self, records: Records) -> None:
        """Raise `ConfigError` if a class has fewer training records than shots."""
        super().check(records)
        counts = records.class_counts
        if counts is None or not len(counts) or max(self.shots) <= min(counts):
            return
        fewest = int(np.argmin(counts))
        possible = tuple(count for count in self.shots if count <= counts[fewest]) or (counts[fewest],)
        remedy = f"set evaluation.shots={possible}" if counts[fewest] else "leave out 'fewshot'"
        raise ConfigError(
            f"evaluation.shots has {max(self.shots)}, but class {records.class_names[fewest]!r} has "
            f"{counts[fewest]} training {'record' if counts[fewest] == 1 else 'records'}; {remedy}."
        )

    def measure(
        self, bank: Features, queries: Features, num_classes: int, rows: NamedSharding
    ) -> dict[str, float]:
        """Return `fewshot1_accuracy` and so on."""
        found = fewshot_accuracies(bank, queries, num_classes, rows, shots=self.shots, l2=self.l2)
        return {name: float(np.mean(each)) for name, each in zip(self.metrics, found.values())}
