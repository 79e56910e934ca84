"""What all heads of semantic segmentation say. Needs no jax."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

from vit_jax.errors import choose
from vit_jax.models.heads.linear.config import NORMS
from vit_jax.objectives.option_checks import check_ranges, integers


@dataclass(frozen=True)
class Head(ABC):
    """A head on the maps of a backbone.

    Attributes:
      taps: the maps of the backbone that the head takes: of a ViT how many blocks stand before each, of a backbone with
        maps of several sizes their numbers; empty for what suits the head.
      norm: of the head, `batch` or `layer`; batch norm needs the whole batch at once.
      dropout: share of the head's channels that are dropped in training.
    """

    taps: tuple[int, ...] = ()
    norm: str = "batch"
    dropout: float = 0.1

    def __post_init__(self) -> None:
        choose(self.norm, NORMS, "objective.norm")
        check_ranges(self, ("dropout",), 0, 0.999)
        object.__setattr__(self, "taps", integers(self, "taps"))

    @property
    def weights(self) -> tuple[float, ...]:
        """Weights of the losses of heads that are used in training alone, in their order."""
        return ()

    @abstractmethod
    def network(self, encoder: Any, num_classes: int) -> Any:
        """Return the configuration of a backbone with this head.

        Raises:
          ConfigError: the head does not go with such a backbone.
        """
