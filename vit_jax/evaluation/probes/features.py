"""Features of every record of a source, computed on all devices."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from vit_jax import trees
from vit_jax.compiler_options import Options, jit
from vit_jax.errors import DataError, DivergedError
from vit_jax.evaluation.evaluator import that_count
from vit_jax.evaluation.probes.base import Features
from vit_jax.models.layers.placement import Placement, gather_rest, placed
from vit_jax.objectives.base import Batch

# Of parameters, buffers and a batch of raw images: float32 (b, d).
Embed = Callable[[Any, Any, Batch], jax.Array]


def compile_features(
    embed: Embed, sharding: Any, placement: Placement | None = None, options: Options | None = None
) -> Callable[..., Any]:
    """Return a jitted function of (parameters, buffers, batch) that gives the features of each row, whole everywhere.

    Args:
      embed: for example `objective.features`.
      sharding: of a result that every device holds.
      placement: where it runs; None leaves to the compiler what moves between devices.
      options: of the compiler.
    """

    def features_of(params: Any, buffers: Any, batch: Batch) -> dict[str, jax.Array]:
        with placed(placement):
            whole = params if placement is None else trees.unflatten(gather_rest(trees.flatten(params)))
            known = {name: batch[name] for name in ("mask", "index", "label") if name in batch}
            return known | {"features": embed(whole, buffers, batch)}

    return jit(features_of, options, out_shardings=sharding)


def features_of_all(
    step: Callable[..., Any], params: Any, buffers: Any, batches: Iterable[Batch], what: str
) -> Features:
    """Return the features of every record that could be read, on every host and in the order of the records.

    A bank of 1.28 million times 384 takes 2 GB of each host's memory.

    Args:
      step: the result of `compile_features`.
      params, buffers: of the model.
      batches: global batches with a `mask` and the `index` of each record, on the devices; `label` where there is one.
      what: what the records are, for messages.

    Raises:
      DataError: none could be read.
      DivergedError: a feature is not a finite number.
    """
    found: list[dict[str, np.ndarray]] = []
    waiting = None
    for batch in batches:
        now = step(params, buffers, batch)
        if waiting is not None:  # fetched while the device computes this one
            found.append(that_count(waiting))
        waiting = now
    if waiting is not None:
        found.append(that_count(waiting))
    if not sum(len(rows["index"]) for rows in found):
        raise DataError(f"no record of {what} could be read, so there is nothing to probe.")
    rows = {name: np.concatenate([part[name] for part in found]) for name in found[0]}
    order = np.argsort(rows["index"], kind="stable")
    values = rows["features"][order]
    finite = np.isfinite(values).all(axis=1)
    if not finite.all():
        raise DivergedError(
            f"the features of {int((~finite).sum()):,} of {len(values):,} records ({what}) are not finite numbers; "
            "probe an earlier checkpoint, or compute in float32."
        )
    labels = rows.get("label")
    return Features(values, np.full(len(values), -1, np.int32) if labels is None else labels[order])
