"""How parameters are stored for prediction: whole, their kernels in half the bytes, or in a quarter.

Only storage changes. A kernel is made whole again in the compute dtype where a layer uses it, one block at a time, so
activations and sums are as precise as before. Eight bits are weight-only quantisation by the largest magnitude of
each output (one of the baselines of Dettmers et al. 2022, arXiv 2208.07339).
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax import trees
from vit_jax.errors import choose
from vit_jax.models.families import kernels
from vit_jax.models.layers.encoder_config import STORAGES

_LARGEST = 127


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class Int8Kernel:
    """A kernel in eight bits; layers use it like the array it stands for.

    Attributes:
      values: int8 from -127 to 127.
      scales: float32, what 1 in `values` is worth; of as many axes, with sizes of 1 for those summed over.
    """

    values: jax.Array
    scales: jax.Array

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return self.values.shape

    def __getitem__(self, index: Any) -> "Int8Kernel":
        """Return a part, cut along axes that are not summed over."""
        return Int8Kernel(self.values[index], self.scales[index])

    def astype(self, dtype: Any) -> jax.Array:
        """Return the array."""
        return (self.values.astype(jnp.float32) * self.scales).astype(dtype)


def stored(params: Any, storage: str) -> Any:
    """Return parameters, a nested dict of float32 arrays, with their kernels stored in fewer bytes.

    Args:
      params: of any model.
      storage: `float32` changes nothing; `bfloat16` halves all kernels; `int8` quarters those of transformer blocks.
        Everything else, norms, biases, embeddings, and of `int8` heads too, is a few percent of a model and stays.

    Raises:
      ConfigError: there is no such storage.
    """
    choose(storage, STORAGES, "storage of parameters")

    def changed(path: str, leaf: jax.Array) -> Any:
        if storage == "bfloat16" and path.endswith("kernel"):
            return leaf.astype(jnp.bfloat16)
        return _quantised(path, leaf) if storage == "int8" and _is_of_a_block(path) else leaf

    return trees.map_named(changed, params)


def _is_of_a_block(path: str) -> bool:
    return "blocks/" in path and path.endswith("/kernel")


def _quantised(path: str, kernel: jax.Array) -> Int8Kernel:
    # (blocks, *inputs, *outputs)
    known = kernels().get(path.rpartition("blocks/")[2].removesuffix("/kernel"))
    inputs = tuple(range(1, 2 if known is None else 1 + known.inputs))
    largest = jnp.max(jnp.abs(kernel), axis=inputs, keepdims=True).astype(jnp.float32)
    scales = jnp.where(largest > 0, largest / _LARGEST, 1.0)
    return Int8Kernel(jnp.round(kernel / scales).astype(jnp.int8), scales)
