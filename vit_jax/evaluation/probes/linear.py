"""Logistic regression on frozen features by L-BFGS, on the devices."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec

from vit_jax.evaluation.probes.base import Features, Probe, accuracy
from vit_jax.evaluation.probes.placing import padded_length, place, place_batches, shards

BLOCK = 1024  # rows whose logits exist at a time
# Times half the squared weights, beside the mean loss: C of scikit-learn is 1 / (n * l2). From strong to weak, as each
# fit starts from the one before.
L2_GRID = (1e0, 1e-1, 1e-2, 1e-3, 1e-4, 1e-5, 1e-6)
ITERATIONS = 200
TOLERANCE = 1e-5  # of the largest entry of the gradient
HELD_OUT = 10  # one record of so many chooses

Weights = dict[str, Any]


@dataclass(frozen=True)
class Standard:
    """Features less their mean, by their deviation; what does not vary stays zero.

    Attributes:
      mean, scale: float32 `(d,)`, of the training features.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray) -> "Standard":
        """Return that of features `(n, d)`."""
        deviation = features.std(axis=0, dtype=np.float64)
        scale = np.where(deviation > 1e-7, deviation, 1.0)
        return cls(features.mean(axis=0, dtype=np.float64).astype(np.float32), scale.astype(np.float32))

    def __call__(self, features: np.ndarray) -> np.ndarray:
        """Return standardised features, float32 `(n, d)`."""
        return (np.asarray(features, np.float32) - self.mean) / self.scale


@dataclass(frozen=True)
class Batches:
    """Standardised features on the devices.

    Attributes:
      features: float32 `(m, b, d)`.
      labels: int32 `(m, b)`.
      mask: float32 `(m, b)`, 0 for padding.
      count: rows that are none.
    """

    features: jax.Array
    labels: jax.Array
    mask: jax.Array
    count: int

    @classmethod
    def of(cls, features: Features, standard: Standard, rows: NamedSharding, size: int = BLOCK) -> "Batches":
        """Return features in batches of `size` rows, fewer where there are not as many."""
        size = padded_length(min(size, len(features)), shards(rows))
        return cls(
            place_batches(features.values, rows, size, standard),
            place_batches(np.asarray(features.labels, np.int32), rows, size),
            place_batches(np.ones(len(features), np.float32), rows, size),
            len(features),
        )

    @property
    def arrays(self) -> tuple[jax.Array, jax.Array, jax.Array]:
        """What programs take."""
        return self.features, self.labels, self.mask


def logits(weights: Weights, features: jax.Array) -> jax.Array:
    """Return `(b, c)` for features `(b, d)`."""
    kernel, bias = weights["kernel"], weights["bias"]
    return jnp.einsum("bd,dc->bc", features, kernel, precision=jax.lax.Precision.HIGHEST) + bias


def cross_entropies(weights: Weights, features: jax.Array, labels: jax.Array) -> jax.Array:
    """Return the loss of each row, `(b,)`."""
    return optax.softmax_cross_entropy_with_integer_labels(logits(weights, features), labels)


def zero_weights(width: int, num_classes: int, rows: NamedSharding, *stacked: int) -> Weights:
    """Return where every fit starts, whole on every device; `stacked` are leading dimensions."""
    whole = NamedSharding(rows.mesh, PartitionSpec())
    shapes = {"kernel": (*stacked, width, num_classes), "bias": (*stacked, num_classes)}
    return {name: place(np.zeros(shape, np.float32), whole, shape[0]) for name, shape in shapes.items()}


@lru_cache(maxsize=8)
def compile_fit(mesh: Any, iterations: int = ITERATIONS, tolerance: float = TOLERANCE) -> Any:
    """Return a jitted function of (weights, l2, features, labels, mask) that gives the weights of least loss.

    The loss is the mean cross-entropy over the rows that count and `l2 / 2` times the squared kernel; the bias is not
    regularised. L-BFGS with 10 pairs and a zoom line search ends when no entry of the gradient is above the tolerance.

    Source: Liu & Nocedal 1989, "On the limited memory BFGS method for large scale optimization".
    """
    solver = optax.lbfgs(memory_size=10)

    def fit(
        weights: Weights, l2: jax.Array, features: jax.Array, labels: jax.Array, mask: jax.Array
    ) -> Weights:
        count = mask.sum()

        def loss(weights: Weights) -> jax.Array:
            @jax.checkpoint  # the logits of one block at a time, also for the gradient
            def add(total: jax.Array, block: Any) -> tuple[jax.Array, None]:
                x, y, counts = block
                return total + jnp.sum(counts * cross_entropies(weights, x, y)), None

            total, _ = jax.lax.scan(add, jnp.zeros((), jnp.float32), (features, labels, mask))
            return total / count + l2 / 2 * jnp.sum(jnp.square(weights["kernel"]))

        value_and_grad = optax.value_and_grad_from_state(loss)

        def step(carry: Any) -> Any:
            weights, state, number, _ = carry
            value, gradient = value_and_grad(weights, state=state)
            updates, state = solver.update(
                gradient, state, weights, value=value, grad=gradient, value_fn=loss
            )
            largest = optax.tree.norm(optax.tree.get(state, "grad"), ord=jnp.inf)
            return optax.apply_updates(weights, updates), state, number + 1, largest

        def goes_on(carry: Any) -> jax.Array:
            return (carry[2] < iterations) & (carry[3] > tolerance)

        start = weights, solver.init(weights), jnp.zeros((), jnp.int32), jnp.asarray(jnp.inf, jnp.float32)
        return jax.lax.while_loop(goes_on, step, start)[0]

    return jax.jit(fit, out_shardings=NamedSharding(mesh, PartitionSpec()))


@lru_cache(maxsize=8)
def compile_classify(mesh: Any) -> Any:
    """Return a jitted function of (weights, features `(m, b, d)`) that gives the classes int32 `(m, b)`."""

    def classify(weights: Weights, features: jax.Array) -> jax.Array:
        return jax.lax.map(lambda block: logits(weights, block).argmax(axis=1), features)

    return jax.jit(classify, out_shardings=NamedSharding(mesh, PartitionSpec()))


def held_out(count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Return indices of records to fit to and of a tenth to choose by, drawn with a seed."""
    order = np.random.default_rng(seed).permutation(count)
    some = max(1, count // HELD_OUT)
    return np.sort(order[some:]), np.sort(order[:some])


def linear_classes(
    bank: Features,
    queries: Features,
    num_classes: int,
    rows: NamedSharding,
    *,
    l2_grid: Sequence[float] = L2_GRID,
) -> tuple[np.ndarray, float]:
    """Return the class of each query, int32 `(q,)`, by multinomial logistic regression, and the `l2` chosen for it.

    Conventions: frozen features of one view without augmentation, standardised with the mean and deviation of the
    training records (the affine-free batch norm of MAE's probe, arXiv 2111.06377); L-BFGS to convergence over a grid of
    `l2`, as for CLIP (arXiv 2103.00020) and DINOv2's logistic regression (arXiv 2304.07193). The `l2` is chosen by the
    accuracy on a tenth of the training records, the stronger one of equals, and then all of them are fitted. The
    evaluation records choose nothing.

    Args:
      bank: what is fitted to.
      queries: what is classified.
      num_classes: labels are below.
      rows: how rows are divided over the devices.
      l2_grid: from strong to weak.
    """
    standard = Standard.of(bank.values)
    fit, classify = compile_fit(rows.mesh), compile_classify(rows.mesh)
    batches = Batches.of(bank, standard, rows)
    features, labels, every = batches.arrays
    _, chooses = held_out(len(bank))
    kept = np.ones(len(bank), np.float32)
    kept[chooses] = 0

    def classes(weights: Weights, batches: Batches) -> np.ndarray:
        return jax.device_get(classify(weights, batches.features)).reshape(-1)[: batches.count]

    weights = zero_weights(bank.values.shape[1], num_classes, rows)
    most = place_batches(kept, rows, features.shape[1])
    tried: dict[float, float] = {}
    for l2 in sorted(l2_grid, reverse=True):
        weights = fit(weights, np.float32(l2), features, labels, most)
        tried[l2] = accuracy(classes(weights, batches)[chooses], bank.labels[chooses])
    best = max(tried, key=lambda l2: (tried[l2], l2))
    weights = fit(weights, np.float32(best), features, labels, every)
    return classes(weights, Batches.of(queries, standard, rows)), best


@dataclass(frozen=True)
class Linear(Probe):
    """Accuracy of logistic regression, see `linear_classes`."""

    name: ClassVar[str] = "linear"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The one accuracy."""
        return ("linear_accuracy",)

    def measure(
        self, bank: Features, queries: Features, num_classes: int, rows: NamedSharding
    ) -> dict[str, float]:
        """Return `linear_accuracy`."""
        predicted, _ = linear_classes(bank, queries, num_classes, rows)
        return {"linear_accuracy": accuracy(predicted, queries.labels)}
