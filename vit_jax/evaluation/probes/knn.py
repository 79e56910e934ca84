"""Weighted nearest neighbours on frozen features, with a bank that is divided over the devices."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from vit_jax.errors import ConfigError
from vit_jax.evaluation.probes.base import Features, Probe, Records, accuracy
from vit_jax.evaluation.probes.placing import padded_length, place, shards

# Bank rows compared at a time. One number for all banks and meshes, so that every product has the same shape and the
# same last bits however many devices there are; for 1,024 queries a block of similarities takes 16 MiB.
BLOCK = 4096
QUERIES = 1024  # at a time


def unit(values: np.ndarray) -> np.ndarray:
    """Return rows `(n, d)` of length 1 in float32; rows of zeros stay."""
    values = np.asarray(values, np.float32)
    return values / np.maximum(np.linalg.norm(values, axis=1, keepdims=True), 1e-12)


def neighbours(
    bank: jax.Array, valid: jax.Array, queries: jax.Array, k: int, rows: NamedSharding, block: int = BLOCK
) -> tuple[jax.Array, jax.Array]:
    """Return the `k` rows of a bank that are most similar to each query, exactly and best first.

    Every device compares its own rows, a block at a time, and keeps its `k` best; then these are merged. Of equally
    similar rows the first in the bank wins, so the result does not depend on the number of devices.

    Args:
      bank: `(n, d)`, divided as `rows` says; its length divides into blocks on every device.
      valid: bool `(n,)`, divided likewise; the others are padding, which is never more similar than a row.
      queries: `(q, d)` of the bank's dtype, whole on every device.
      k: how many.
      rows: how the bank is divided.
      block: bank rows compared at a time.

    Returns:
      Similarities float32 `(q, k)`, minus infinity where the bank has fewer rows, and indices int32 `(q, k)`.
    """
    axes = rows.spec[0]

    def local(bank: jax.Array, valid: jax.Array, queries: jax.Array) -> tuple[jax.Array, jax.Array]:
        blocks = bank.shape[0] // block
        first = jax.lax.axis_index(axes) * bank.shape[0]

        def compare(best: tuple[jax.Array, jax.Array], part: Any) -> tuple[tuple[jax.Array, jax.Array], None]:
            vectors, counts, start = part
            found = jnp.einsum(
                "qd,nd->qn",
                queries,
                vectors,
                precision=jax.lax.Precision.HIGHEST,
                preferred_element_type=jnp.float32,
            )
            found = jnp.where(counts, found, -jnp.inf)
            values, indices = jax.lax.top_k(found, min(k, block))
            return _best(best, (values, start + indices.astype(jnp.int32)), k), None

        nothing = (
            jnp.full((queries.shape[0], k), -jnp.inf, jnp.float32),
            jnp.zeros((queries.shape[0], k), jnp.int32),
        )
        parts = (
            bank.reshape(blocks, block, -1),
            valid.reshape(blocks, block),
            first + block * jnp.arange(blocks, dtype=jnp.int32),
        )
        own, _ = jax.lax.scan(compare, nothing, parts)
        # In the order of the devices, which is that of the bank's rows.
        gathered = (jax.lax.all_gather(part, axes, axis=1, tiled=True) for part in own)
        none = (jnp.zeros((queries.shape[0], 0), part.dtype) for part in own)
        return _best(tuple(none), tuple(gathered), k)

    whole = PartitionSpec()
    merged = jax.shard_map(
        local,
        mesh=rows.mesh,
        in_specs=(PartitionSpec(axes), PartitionSpec(axes), whole),
        out_specs=(whole, whole),
        check_vma=False,
    )
    return merged(bank, valid, queries)


def _best(first: Any, second: Any, k: int) -> tuple[jax.Array, jax.Array]:
    """Return the `k` best of two lists of similarities and indices; of equal ones those that come first."""
    values, indices = (jnp.concatenate(pair, axis=1) for pair in zip(first, second))
    values, order = jax.lax.top_k(values, k)
    return values, jnp.take_along_axis(indices, order, axis=1)


def votes(similarities: jax.Array, labels: jax.Array, num_classes: int, temperature: float) -> jax.Array:
    """Return the weight of each class, float32 `(q, c)`: each neighbour votes with `exp(similarity / temperature)`.

    Args:
      similarities: float32 `(q, k)`; minus infinity has no vote.
      labels: of the neighbours, int32 `(q, k)`.
      num_classes: labels are below.
      temperature: of the weights.
    """
    weights = jnp.exp(similarities / temperature)
    chosen = jax.nn.one_hot(labels, num_classes, dtype=jnp.float32)
    return jnp.einsum("qk,qkc->qc", weights, chosen, precision=jax.lax.Precision.HIGHEST)


@lru_cache(maxsize=8)
def compile_votes(
    ks: tuple[int, ...], num_classes: int, temperature: float, rows: NamedSharding, block: int = BLOCK
) -> Any:
    """Return a jitted function of (bank, valid, labels, queries) that gives the `votes` for every `k`, `(q, c)` each.

    `labels` are int32 `(n,)` of the bank, whole on every device; see `neighbours` for the others.
    """
    most = max(ks)

    @partial(jax.jit, out_shardings=NamedSharding(rows.mesh, PartitionSpec()))
    def vote(
        bank: jax.Array, valid: jax.Array, labels: jax.Array, queries: jax.Array
    ) -> tuple[jax.Array, ...]:
        similarities, indices = neighbours(bank, valid, queries, most, rows, block)
        of_neighbours = labels[indices]
        return tuple(votes(similarities[:, :k], of_neighbours[:, :k], num_classes, temperature) for k in ks)

    return vote


def knn_scores(
    bank: np.ndarray,
    labels: np.ndarray,
    queries: np.ndarray,
    num_classes: int,
    rows: NamedSharding,
    *,
    ks: Sequence[int] = (10, 20),
    temperature: float = 0.07,
    dtype: str = "float32",
    block: int = BLOCK,
) -> dict[int, np.ndarray]:
    """Return the votes for the class of each query, float32 `(q, c)`, by number of neighbours.

    The protocol of DINO: features of length 1, cosine similarity, the `k` nearest of the whole bank, each with the
    weight `exp(similarity / 0.07)`.

    Args:
      bank: features `(n, d)`.
      labels: int32 `(n,)`.
      queries: features `(q, d)`.
      num_classes: labels are below.
      rows: how the bank is divided over the devices.
      ks: numbers of neighbours.
      temperature: of the weights.
      dtype: of the features when they are compared, `float32` or `bfloat16`; sums are float32.
      block: see `neighbours`.

    Source: Caron et al. 2021, arXiv 2104.14294; Wu et al. 2018, arXiv 1805.01978.
    """
    length = padded_length(len(bank), shards(rows) * block)
    whole = NamedSharding(rows.mesh, PartitionSpec())

    def compared(part: np.ndarray) -> np.ndarray:
        return unit(part).astype(jnp.dtype(dtype))

    vote = compile_votes(tuple(ks), num_classes, temperature, rows, block)
    vectors = place(bank, rows, length, compared)
    valid = place(np.ones(len(bank), np.bool_), rows, length)
    known = place(np.asarray(labels, np.int32), whole, len(labels))
    size = min(QUERIES, max(1, len(queries)))
    found = []
    for start in range(0, len(queries), size):
        asked = place(queries[start : start + size], whole, size, compared)
        found.append(jax.device_get(vote(vectors, valid, known, asked)))
    return {k: np.concatenate([part[i] for part in found])[: len(queries)] for i, k in enumerate(ks)}


@dataclass(frozen=True)
class Knn(Probe):
    """Accuracy of weighted nearest neighbours, see `knn_scores`.

    Attributes:
      ks: numbers of neighbours.
      dtype: in which features are compared.
    """

    name: ClassVar[str] = "knn"
    ks: tuple[int, ...] = (10, 20)
    dtype: str = "float32"

    @classmethod
    def configured(cls, section: Any, dtype: str) -> "Knn":
        """Return the probe with `evaluation.neighbours`."""
        return cls(tuple(section.neighbours), dtype)

    @property
    def metrics(self) -> tuple[str, ...]:
        """One accuracy for each number of neighbours."""
        return tuple(f"knn{k}_accuracy" for k in self.ks)

    def check(self, records: Records) -> None:
        """Raise `ConfigError` if there are fewer training records than neighbours."""
        super().check(records)
        if max(self.ks) > records.train:
            raise ConfigError(
                f"evaluation.neighbours has {max(self.ks)}, but there are only {records.train:,} training records; "
                "lower it."
            )

    def measure(
        self, bank: Features, queries: Features, num_classes: int, rows: NamedSharding
    ) -> dict[str, float]:
        """Return `knn10_accuracy` and so on."""
        scores = knn_scores(
            bank.values, bank.labels, queries.values, num_classes, rows, ks=self.ks, dtype=self.dtype
        )
        return {
            name: accuracy(found.argmax(axis=1), queries.labels)
            for name, found in zip(self.metrics, scores.values())
        }
