"""Exact evaluation: sums over every record once, rows to a scorer on the host, metrics at the end."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from vit_jax import trees
from vit_jax.compiler_options import Options, jit
from vit_jax.errors import ConfigError, DataError
from vit_jax.models.layers.placement import Placement, gather_beside, gather_rest, placed
from vit_jax.objectives.base import Batch, Moment, Objective

See = Callable[[dict[str, np.ndarray]], None]
# Of a batch, what goes with the rows of an evaluation, where it is there.
_WITH_ROWS = ("mask", "index", "label", "id", "size", "geometry")


@dataclass(frozen=True)
class Compiled:
    """What `compile_evaluation` returns: a function of parameters, buffers and a batch.

    Attributes:
      objective: what is evaluated.
      rows: whether it returns, beside sums, what is said of each row; its batches must have an `index`.
      program: the jitted function.
      constants: arguments that it takes after the batch.
    """

    objective: Objective
    rows: bool
    program: Callable[..., Any]
    constants: tuple[Any, ...] = ()

    def __call__(self, params: Any, buffers: Any, batch: Batch) -> Any:
        """Return the sums of a batch, or sums and rows."""
        return self.program(params, buffers, batch, *self.constants)


def compile_evaluation(
    objective: Objective,
    sharding: Any,
    placement: Placement | None = None,
    options: Options | None = None,
    *,
    rows: bool = False,
    end: Moment | None = None,
) -> Compiled:
    """Return `objective.evaluate` jitted, its sums whole on every device.

    Args:
      objective: what to evaluate.
      sharding: the sharding of a result that every device holds.
      placement: where it runs; None leaves to the compiler what moves between devices.
      options: of the compiler.
      rows: return those of `objective.evaluate_rows` too, whole as well, with what is known of each row; an objective
        with a scorer has them in any case.
      end: the moment that the objective is evaluated at; None for one that needs neither progress nor frozen networks.
    """
    rows = rows or objective.scorer() is not None

    def evaluate_batch(params: Any, buffers: Any, batch: Batch, constants: Any = None) -> Any:
        with placed(placement):
            whole = params if placement is None else trees.unflatten(gather_rest(trees.flatten(params)))
            beside, now = gather_beside(buffers, "buffers"), objective
            if end is not None:
                frozen = gather_beside(constants or {}, "constants")
                now = objective.at(Moment(end.step, end.total, end.per_epoch, frozen))
            if not rows:
                return now.evaluate(whole, beside, batch)
            sums, said = now.evaluate_rows(whole, beside, batch)
            return sums, {name: batch[name] for name in _WITH_ROWS if name in batch} | said

    if rows:  # in what the compiler is asked for
        evaluate_batch.__name__ = "evaluate_rows"
    constants = (end.constants,) if end is not None and end.constants else ()
    return Compiled(objective, rows, jit(evaluate_batch, options, out_shardings=sharding), constants)


def evaluate(
    step: Compiled, params: Any, buffers: Any, batches: Iterable[Batch], see: See | None = None
) -> dict[str, float]:
    """Return the metrics over all rows that count.

    Args:
      step: the result of `compile_evaluation`.
      params, buffers: of the model.
      batches: global batches with a `mask`, on the devices; where the step has rows, with the `index` of each record.
      see: is called with `index` `(b,)`, `label` `(b,)` if there is one and what the objective says of each record that
        counts, batch by batch and in order, on every host; the step must have rows.

    Returns:
      `{metric: value}`: those of `Objective.summarise` and of its scorer.

    Raises:
      DataError: there is no record to evaluate.
      ConfigError: a metric that the objective's `metric_modes` does not have.
    """
    scorer = step.objective.scorer()
    seers = [*([] if scorer is None else [scorer.see]), *([] if see is None else [see])]

    def show(rows: Any) -> None:
        found = None if rows is None else that_count(rows)
        for seer in seers if found is not None else ():
            seer(found)

    total, waiting = None, None
    for batch in batches:
        sums, rows = step(params, buffers, batch) if step.rows else (step(params, buffers, batch), None)
        # Work for the device is always queued, but no more than that, batches are large: what the batch before gave is
        # looked at while the device computes this one.
        if rows is None:
            jax.block_until_ready(total)
        show(waiting)
        waiting = rows
        total = sums if total is None else jax.tree.map(jax.numpy.add, total, sums)
    show(waiting)
    sums = {} if total is None else jax.device_get(total)
    if not sums.get("count", 0):
        raise DataError("the evaluation split has no records; choose another data.eval_split.")
    return declared(step.objective, summarised(step.objective, sums, scorer))


def summarised(objective: Objective, sums: Mapping[str, np.ndarray], scorer: Any = None) -> dict[str, float]:
    """Return the metrics of sums over the whole set, with those of a scorer that has seen it."""
    return objective.summarise(sums) | ({} if scorer is None else scorer.metrics())


def declared(objective: Objective, metrics: dict[str, float]) -> dict[str, float]:
    """Return metrics of which is known whether more is better.

    Raises:
      ConfigError: there is another.
    """
    for name in metrics:
        if name not in objective.metric_modes:
            raise ConfigError(
                f"{type(objective).__name__} measures {name!r}, which is missing from its metric_modes; state "
                "there whether 'max' or 'min' is better."
            )
    return metrics


def metric_names(objective: Objective, abstract_batch: Mapping[str, Any], end: Moment) -> set[str]:
    """Return what an evaluation would measure; nothing is compiled.

    Args:
      objective: what would be evaluated.
      abstract_batch: shapes and dtypes of a batch.
      end: the moment of it, with shapes for frozen networks.

    Raises:
      ConfigError: a metric that the objective's `metric_modes` does not have.
    """

    def sums(key: jax.Array, batch: Batch, constants: Any) -> Any:
        now = objective.at(Moment(end.step, end.total, end.per_epoch, constants))
        return now.evaluate(*objective.init(key), batch)

    shapes = jax.eval_shape(sums, jax.random.key(0), dict(abstract_batch), dict(end.constants))
    ones = {name: np.ones(leaf.shape, leaf.dtype) for name, leaf in shapes.items()}
    found = declared(objective, objective.summarise(ones))
    return {*found, *(objective.metric_modes if objective.scorer() is not None else ())}


def that_count(rows: Any) -> dict[str, np.ndarray]:
    """Return the rows of a batch whose `mask` is true, on the host and in the order of their `index`."""
    found = jax.device_get(rows)
    mask = found.pop("mask")
    # On some meshes the rows of several hosts are interleaved.
    order = np.argsort(found["index"][mask], kind="stable")
    return {name: values[mask][order] for name, values in found.items()}
