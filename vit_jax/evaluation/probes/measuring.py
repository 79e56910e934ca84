"""Probes by name, and all of them asked of a model."""

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from jax.sharding import NamedSharding

from vit_jax.evaluation.probes.base import Features, Probe
from vit_jax.evaluation.probes.features import features_of_all
from vit_jax.evaluation.probes.names import PROBES
from vit_jax.objectives.base import Batch


def make_probe(name: str, section: Any, dtype: str) -> Probe:
    """Return a probe.

    Args:
      name: one of `PROBES`.
      section: `evaluation` of the configuration.
      dtype: that the model computes in.
    """
    module, _, attribute = PROBES[name].partition(":")
    return getattr(importlib.import_module(module), attribute).configured(section, dtype)


@dataclass(frozen=True)
class Bench:
    """Where features are computed and probed.

    Attributes:
      compute: the result of `compile_features`.
      bank_batches, query_batches: give the training and the evaluation records under evaluation transforms, as global
        batches with `mask` and `index` on the devices.
      num_classes: labels are below.
      rows: how rows are divided over devices.
      report: told what is wrong with a representation.
    """

    compute: Callable[..., Any]
    bank_batches: Callable[[], Iterable[Batch]]
    query_batches: Callable[[], Iterable[Batch]]
    num_classes: int
    rows: NamedSharding
    report: Callable[[str], None]

    def measure(self, probes: Sequence[Probe], params: Any, buffers: Any) -> dict[str, float]:
        """Return the metrics of all probes of a model; its features are computed once."""
        return self.of_features(probes, *self.features(params, buffers))

    def features(self, params: Any, buffers: Any) -> tuple[Features, Features]:
        """Return the features of the training and of the evaluation records."""
        bank, queries = (
            features_of_all(self.compute, params, buffers, batches(), what)
            for batches, what in (
                (self.bank_batches, "the training records"),
                (self.query_batches, "the evaluation records"),
            )
        )
        return bank, queries

    def of_features(self, probes: Sequence[Probe], bank: Features, queries: Features) -> dict[str, float]:
        """Return the metrics of all probes."""
        metrics: dict[str, float] = {}
        for probe in probes:
            found = probe.measure(bank, queries, self.num_classes, self.rows)
            wrong = probe.alarm(found, bank.values.shape[1])
            if wrong is not None:
                self.report(wrong)
            metrics |= found
        return metrics
