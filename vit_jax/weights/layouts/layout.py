"""What a library's checkpoint turns out to be."""

from collections.abc import Sequence
from dataclasses import dataclass

from vit_jax.models.registry import ModelConfig
from vit_jax.weights.rules import Rule


@dataclass(frozen=True)
class Layout:
    """A model and the names of its parameters in a file.

    Attributes:
      config: the model the file holds.
      rules: where each of its parameters is.
      computed: patterns of arrays in the file that are computed and not learned.
      input_size: of the images that the library feeds the model, if it is not that of the positions.
      class_names: in order of logits, if the file says them.
      others: patterns of arrays in the file that belong to something else than the model.
    """

    config: ModelConfig
    rules: Sequence[Rule]
    computed: Sequence[str] = ()
    input_size: tuple[int, int] | None = None
    class_names: tuple[str, ...] = ()
    others: Sequence[str] = ()
