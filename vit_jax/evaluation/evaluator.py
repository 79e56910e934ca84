"""Exact evaluation: sums and counts over every record once, divided at the end."""

from collections.abc import Callable, Iterable
from typing import Any

import jax

from vit_jax import trees
from vit_jax.compiler_options import Options, jit
from vit_jax.errors import DataError
from vit_jax.models.placement import Placement, gather_rest, placed
from vit_jax.objectives.base import Batch, Objective


def compile_evaluation(
    objective: Objective, sharding: Any, placement: Placement | None = None, options: Options | None = None
) -> Callable[..., Any]:
    """Return `objective.evaluate` jitted, its sums whole on every device.

    Args:
      objective: what to evaluate.
      sharding: the sharding of a result that every device holds.
      placement: where it runs; None leaves to the compiler what moves between devices.
      options: of the compiler.
    """

    def evaluate_batch(params: Any, buffers: Any, batch: Batch) -> Any:
        with placed(placement):
            whole = params if placement is None else trees.unflatten(gather_rest(trees.flatten(params)))
            return objective.evaluate(whole, buffers, batch)

    return jit(evaluate_batch, options, out_shardings=sharding)


def evaluate(
    step: Callable[..., Any], params: Any, buffers: Any, batches: Iterable[Batch]
) -> dict[str, float]:
    """Return the mean of every metric over all rows that count.

    Args:
      step: the result of `compile_evaluation`.
      params, buffers: of the model.
      batches: global batches with a `mask`, on the devices.

    Returns:
      `{metric: mean}`.

    Raises:
      DataError: there is no record to evaluate.
    """
    total = None
    for batch in batches:
        sums = step(params, buffers, batch)
        # Work for the device is always queued, but no more than that: batches are large.
        jax.block_until_ready(total)
        total = sums if total is None else jax.tree.map(jax.numpy.add, total, sums)
    sums = {} if total is None else {name: float(value) for name, value in jax.device_get(total).items()}
    count = sums.pop("count", 0.0)
    if not count:
        raise DataError("the evaluation split has no records; check data.eval_split.")
    return {name: value / count for name, value in sums.items()}
