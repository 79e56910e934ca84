"""What a probe is given and what it answers."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from jax.sharding import NamedSharding

from vit_jax.errors import ConfigError


@dataclass(frozen=True)
class Features:
    """Features of records, whole on every host and without padding, in the order of the records.

    Attributes:
      values: float32 `(n, d)`.
      labels: int32 `(n,)`, -1 where the records have none.
    """

    values: np.ndarray
    labels: np.ndarray

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Records:
    """What is known of the records before their features are computed.

    Attributes:
      train, evaluation: how many there are.
      class_names: in order of label; empty where there are no labels.
      class_counts: training records of each class, or None when unknown.
    """

    train: int
    evaluation: int
    class_names: Sequence[str] = ()
    class_counts: Sequence[int] | None = None


class Probe(ABC):
    """A question to frozen features; frozen dataclasses derive from it.

    Attributes:
      name: as configurations write it.
      labels: whether it needs them.
    """

    name: ClassVar[str]
    labels: ClassVar[bool] = True

    @classmethod
    def configured(cls, section: Any, dtype: str) -> Self:
        """Return the probe as `evaluation` of a configuration has it, of a model that computes in `dtype`."""
        return cls()

    @property
    @abstractmethod
    def metrics(self) -> tuple[str, ...]:
        """Names of what it answers; more is better of every one."""

    def check(self, records: Records) -> None:
        """Raise `ConfigError` if it cannot be asked of these records; called before anything is compiled."""
        if self.labels and not records.class_names:
            raise ConfigError(
                f"evaluation.probes has {self.name!r}, which needs labels, and the records have none; leave it out "
                "('rank' needs none)."
            )

    @abstractmethod
    def measure(
        self, bank: Features, queries: Features, num_classes: int, rows: NamedSharding
    ) -> dict[str, float]:
        """Return the metrics.

        Args:
          bank: features of the training records.
          queries: features of the evaluation records.
          num_classes: labels are below.
          rows: how rows of arrays are divided over devices.
        """

    def alarm(self, metrics: Mapping[str, float], width: int) -> str | None:
        """Return what its metrics say is wrong with a representation of `width` dimensions, in one line, or None."""
        return None


def accuracy(predicted: np.ndarray, labels: np.ndarray) -> float:
    """Return the share of `predicted` `(n,)` that equals `labels` `(n,)`."""
    return float(np.mean(predicted == labels))
