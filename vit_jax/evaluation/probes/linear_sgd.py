"""A linear classifier on frozen features by SGD, many learning rates at once, on the devices."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from vit_jax.evaluation.probes.base import Features, Probe, accuracy
from vit_jax.evaluation.probes.linear import (
    Batches,
    Standard,
    Weights,
    compile_classify,
    cross_entropies,
    held_out,
    zero_weights,
)

BATCH = 256
EPOCHS = 100
MOMENTUM = 0.9
# For a batch of 256.
RATES = (1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 1e-1, 3e-1)


@lru_cache(maxsize=8)
def compile_sweep(mesh: Any, epochs: int) -> Any:
    """Return a jitted function of (weights, rate, features, labels, mask, order) that gives the weights after `epochs`.

    The weights have a leading dimension `r` like the rates, one classifier for each; all see the same batches.
    `order` is int32 `(epochs, m)`: which batch comes when.
    """

    def sweep(
        weights: Weights,
        rates: jax.Array,
        features: jax.Array,
        labels: jax.Array,
        mask: jax.Array,
        order: jax.Array,
    ) -> Weights:
        steps = order.size

        def loss(weights: Weights, x: jax.Array, y: jax.Array, counts: jax.Array) -> jax.Array:
            return jnp.sum(counts * cross_entropies(weights, x, y)) / jnp.maximum(counts.sum(), 1)

        gradient = jax.vmap(jax.grad(loss), in_axes=(0, None, None, None))

        def step(carry: Any, now: Any) -> tuple[Any, None]:
            weights, velocity = carry
            number, batch = now
            share = 0.5 * (1 + jnp.cos(jnp.pi * number.astype(jnp.float32) / steps))
            found = gradient(weights, features[batch], labels[batch], mask[batch])
            velocity = jax.tree.map(lambda v, g: MOMENTUM * v + g, velocity, found)

            def moved(w: jax.Array, v: jax.Array) -> jax.Array:
                return w - share * rates.reshape(-1, *[1] * (w.ndim - 1)) * v

            return (jax.tree.map(moved, weights, velocity), velocity), None

        start = weights, jax.tree.map(jnp.zeros_like, weights)
        return jax.lax.scan(step, start, (jnp.arange(steps), order.reshape(-1)))[0][0]

    return jax.jit(sweep, out_shardings=NamedSharding(mesh, PartitionSpec()))


def sgd_classes(
    bank: Features,
    queries: Features,
    num_classes: int,
    rows: NamedSharding,
    *,
    rates: Sequence[float] = RATES,
    epochs: int = EPOCHS,
    seed: int = 0,
) -> tuple[np.ndarray, float]:
    """Return the class of each query, int32 `(q,)`, by a linear layer trained with SGD, and the rate chosen for it.

    Conventions: those of DINO's linear evaluation (Caron et al. 2021, arXiv 2104.14294) but for the images: momentum
    0.9, no weight decay, 100 epochs, cosine to zero, batches of 256; and many learning rates at once, as in DINOv2's
    (arXiv 2304.07193). Features are those of one view without augmentation, standardised as in `linear_classes`.
    Batches are drawn once and come in another order every epoch. The rate is chosen by the accuracy on a tenth of the
    training records, the smaller one of equals, and the classifier is the one trained on the other nine.

    Args:
      bank: what is fitted to.
      queries: what is classified.
      num_classes: labels are below.
      rows: how the rows of a batch are divided over the devices.
      rates: learning rates.
      epochs: over the bank.
      seed: of batches and their order.
    """
    mesh, standard, rates = rows.mesh, Standard.of(bank.values), sorted(rates)
    fitted, chooses = held_out(len(bank), seed)
    rng = np.random.default_rng(seed)
    fitted = rng.permutation(fitted)
    train = Batches.of(Features(bank.values[fitted], bank.labels[fitted]), standard, rows, BATCH)
    order = np.stack([rng.permutation(train.features.shape[0]) for _ in range(epochs)]).astype(np.int32)
    start = zero_weights(bank.values.shape[1], num_classes, rows, len(rates))
    sweep, classify = compile_sweep(mesh, epochs), compile_classify(mesh)
    weights = sweep(start, np.asarray(rates, np.float32), *train.arrays, order)

    def classes(which: int, batches: Batches) -> np.ndarray:
        one = {name: stacked[which] for name, stacked in weights.items()}
        return jax.device_get(classify(one, batches.features)).reshape(-1)[: batches.count]

    choosing = Batches.of(Features(bank.values[chooses], bank.labels[chooses]), standard, rows)
    tried = [accuracy(classes(which, choosing), bank.labels[chooses]) for which in range(len(rates))]
    best = int(np.argmax(tried))
    return classes(best, Batches.of(queries, standard, rows)), rates[best]


@dataclass(frozen=True)
class LinearSgd(Probe):
    """Accuracy of a linear layer trained with SGD, see `sgd_classes`."""

    name: ClassVar[str] = "linear_sgd"

    @property
    def metrics(self) -> tuple[str, ...]:
        """The one accuracy."""
        return ("linear_sgd_accuracy",)

    def measure(
        self, bank: Features, queries: Features, num_classes: int, rows: NamedSharding
    ) -> dict[str, float]:
        """Return `linear_sgd_accuracy`."""
        predicted, _ = sgd_classes(bank, queries, num_classes, rows)
        return {"linear_sgd_accuracy": accuracy(predicted, queries.labels)}
