"""Low-rank adaptation of dense layers (Hu et al. 2021, arXiv 2106.09685).

A kernel `W` becomes `W + alpha / rank * a @ b`. `b` starts at zero, so an adapted model starts as the model it
adapts; only `a` and `b` are trained. Layers that can be adapted are those of the blocks, under the names people
use for them: `blocks/attn/query`, `key`, `value` (slices of one kernel here) and `out`; `blocks/mlp/fc1`, `fc2`,
or `gate`, `up`, `down`. Factors lie beside the parameters they adapt, stacked as they are:

    lora/blocks/attn/query/{a (l, d, r), b (l, r, h, k)}
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.errors import ConfigError, nearest
from vit_jax.models.families import kernels
from vit_jax.models.functional import Params
from vit_jax.random import fold
from vit_jax.trees import flatten, unflatten

ROOT = "lora"


@dataclass(frozen=True)
class Lora:
    """Low-rank adaptation of some layers.

    Attributes:
      rank: width `r` of the factors.
      alpha: the product of the factors counts `alpha / rank`.
      targets: patterns of the layers' names, for example `query` or `blocks/mlp/`.
    """

    rank: int
    alpha: float
    targets: tuple[str, ...]

    def init(self, key: jax.Array, params: Params) -> Params:
        """Return the factors of a model's parameters, `{"blocks": {"attn": {"query": {"a": ..., "b": ...}}}}`.

        `a` is uniform, as in the authors' code, `b` is zero.

        Args:
          key: randomness.
          params: the model's parameters, or their shapes.

        Raises:
          ConfigError: a target that no layer has, or a rank larger than a layer's.
        """
        factors = {}
        for name, slot in self._chosen(params).items():
            a_shape, b_shape = slot.factor_shapes(self.rank)
            if self.rank > min(math.prod(slot.inputs), math.prod(slot.outputs)):
                raise ConfigError(
                    f"lora.rank is {self.rank}, more than {name} has: it maps {math.prod(slot.inputs)} to "
                    f"{math.prod(slot.outputs)}; choose a smaller one (4 to 32 is usual)."
                )
            limit = 1 / math.sqrt(math.prod(slot.inputs))
            a = jax.random.uniform(fold(key, name), a_shape, jnp.float32, -limit, limit)
            factors |= {f"{name}/a": a, f"{name}/b": jnp.zeros(b_shape, jnp.float32)}
        return unflatten(factors)

    def merge(self, params: Params) -> Params:
        """Return the parameters of a plain model that computes the same.

        Args:
          params: parameters of a model with the factors of `init` under `lora`.
        """
        plain = {path: leaf for path, leaf in flatten(params).items() if not path.startswith(f"{ROOT}/")}
        factors = flatten(params[ROOT])
        for name, slot in _slots(plain).items():
            if f"{name}/a" not in factors:
                continue
            a, b = factors[f"{name}/a"], factors[f"{name}/b"]
            shape = (slot.stack, *slot.inputs, *slot.outputs)
            # Exact: a merged model predicts what the adapted one did, on accelerators too.
            product = jnp.einsum(
                "lir,lro->lio",
                a.reshape(slot.stack, -1, self.rank),
                b.reshape(slot.stack, self.rank, -1),
                precision=jax.lax.Precision.HIGHEST,
            )
            change = (self.alpha / self.rank) * product.reshape(shape)
            kernel = plain[slot.path]
            plain[slot.path] = (
                kernel + change if slot.index is None else kernel.at[:, :, slot.index].add(change)
            )
        return unflatten(plain)

    def _chosen(self, params: Params) -> dict[str, "_Slot"]:
        slots, chosen = _slots(flatten(params)), {}
        for target in self.targets:
            found = {name: slot for name, slot in slots.items() if re.search(target, name)}
            if not found:
                raise ConfigError(
                    f"lora.targets has {target!r}, which matches no layer; layers are {', '.join(slots)}."
                    f"{nearest(target, {name.rpartition('/')[2] for name in slots})}"
                )
            chosen |= found
        return chosen


@dataclass(frozen=True)
class _Slot:
    """One layer in a stacked kernel: where it is and what it maps."""

    path: str
    index: int | None
    stack: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]

    def factor_shapes(self, rank: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return (self.stack, *self.inputs, rank), (self.stack, rank, *self.outputs)


def _slots(params: Mapping[str, Any]) -> dict[str, _Slot]:
    """Return every layer that can be adapted, by name."""
    slots, known = {}, kernels()
    for path, leaf in params.items():
        match = re.fullmatch(r"((?:.*/)?blocks/)(.+)/kernel", path)
        if match is None or match[2] not in known:
            continue
        names, inputs = known[match[2]].layers, known[match[2]].inputs
        several = len(names) > 1
        stack, *dims = leaf.shape
        for index, name in enumerate(names):
            slots[match[1] + name] = _Slot(
                path,
                index if several else None,
                stack,
                tuple(dims[:inputs]),
                tuple(dims[inputs + several :]),
            )
    return slots
