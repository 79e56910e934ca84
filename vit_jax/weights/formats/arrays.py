"""The arrays of another library's file, made of our parameters."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from vit_jax.errors import ConfigError
from vit_jax.weights.formats.tensors import Tensor
from vit_jax.weights.rules import Rule


class Arrays:
    """Their arrays, made one at a time from our parameters.

    Args:
      params: ours by path, all of which the rules mention.
      rules: what theirs are made of.
      dtype: of theirs.
      constants: further arrays of theirs, which hold nothing of ours, by name; numbers that count keep their dtype.

    Raises:
      ConfigError: the parameters lie on several hosts.
    """

    def __init__(
        self,
        params: Mapping[str, Any],
        rules: Sequence[Rule],
        dtype: np.dtype,
        constants: Mapping[str, np.ndarray] | None = None,
    ):
        self.dtype = dtype
        if not all(getattr(leaf, "is_fully_addressable", True) for leaf in params.values()):
            raise ConfigError(
                "the model lies on several hosts; save it with format='orbax', and convert that."
            )
        # On CPU these are views; from an accelerator each parameter comes over once.
        hosted = {path: np.asarray(leaf) for path, leaf in params.items()}
        self.names: dict[str, Callable[[], np.ndarray]] = {
            name: make for rule in rules for name, make in rule.write(hosted)
        }
        # Shapes are found by the same functions on arrays that take no memory.
        empty = {path: np.broadcast_to(np.float32(0), np.shape(leaf)) for path, leaf in params.items()}
        self.shapes = {name: make().shape for rule in rules for name, make in rule.write(empty)}
        self.dtypes = {
            name: array.dtype for name, array in (constants or {}).items() if array.dtype.kind == "i"
        }
        for name, array in (constants or {}).items():
            self.names[name], self.shapes[name] = (lambda array=array: array), array.shape

    def specs(self) -> Iterator[tuple[str, tuple[int, ...], np.dtype]]:
        """Yield name, shape and dtype of each array."""
        yield from ((name, shape, self.dtypes.get(name, self.dtype)) for name, shape in self.shapes.items())

    def read(self, name: str) -> np.ndarray:
        """Return an array."""
        return np.asarray(self.names[name](), self.dtypes.get(name, self.dtype), order="C")

    def tensors(self) -> dict[str, Tensor]:
        """Return the arrays as if they had been written."""
        return {
            name: Tensor(shape, dtype, lambda name=name: self.read(name))
            for name, shape, dtype in self.specs()
        }
