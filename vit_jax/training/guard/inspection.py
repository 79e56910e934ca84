"""Where in a step the numbers are not finite: which rows, microbatches, layers, activations and gradients.

It computes a step's gradient once more and keeps nothing of it but whether it is finite, so it needs hardly more
memory than a step.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax import trees
from vit_jax.models.layers.placement import Placement, gather_beside, placed
from vit_jax.objectives.base import Batch, Moment, Objective
from vit_jax.random import fold
from vit_jax.training.parts.treatments import NOTHING_FROZEN, Frozen
from vit_jax.training.state import TrainState
from vit_jax.training.step import (
    NO_CONSTANTS,
    Augment,
    Constants,
    as_drawn,
    gradients_of,
    microbatches,
    step_keys,
    unchanged,
)

Inspection = Callable[..., dict[str, Any]]


def make_inspection(
    objective: Objective,
    *,
    seed: int,
    accumulation: int = 1,
    frozen: Frozen = NOTHING_FROZEN,
    augment: Augment = unchanged,
    placement: Placement | None = None,
    total: int = 0,
    per_epoch: int = 1,
) -> Inspection:
    """Return a function of a state, of the batch of the next step and of frozen networks; meant to be jitted.

    It returns, all of it booleans that say "finite":

    - `params`, `buffers`: by path;
    - `batch`, `prepared`: by name, `(b,)`, as read and after `Objective.prepare`;
    - `loss`: `(m,)`, by microbatch;
    - `activations`: by number and name, `00/embedded`: `(m, b / m)`, or `(m, l, b / m)` for what each layer has; empty
      if the objective does not say;
    - `gradients`: by path, `(m,)`, or `(m, l)` for stacked blocks.

    Args:
      objective, seed, accumulation, frozen, augment, placement, total, per_epoch: as in `make_step`.
    """

    def inspect(state: TrainState, batch: Batch, constants: Constants) -> dict[str, Any]:
        now = objective.at(Moment(state.step, total, per_epoch, gather_beside(constants, "constants")))
        prepare_key, loss_key = step_keys(seed, state.step)
        prepared = now.prepare(augment(batch, fold(prepare_key, "augment")), prepare_key)

        def look(indexed: tuple[Batch, jax.Array]) -> dict[str, Any]:
            micro, index = indexed
            key = loss_key if accumulation == 1 else fold(loss_key, index)
            gradients, out = gradients_of(now, frozen, None, state.params, state.buffers, micro, key)
            activations = now.activations(state.params, state.buffers, micro, key)
            return {
                "loss": jnp.isfinite(out.metrics["loss"]),
                "gradients": {
                    path: _finite(x, 1 if "blocks" in path.split("/") else 0) for path, x in gradients.items()
                },
                # Numbered, for jit returns dicts in alphabetical order.
                "activations": {
                    f"{number:02}/{name}": _finite(x, 2 if name == "blocks" else 1)
                    for number, (name, x) in enumerate(activations.items())
                },
            }

        return {
            "params": _by_path(state.params),
            "buffers": _by_path(state.buffers),
            "batch": {name: _finite(rows, 1) for name, rows in batch.items()},
            "prepared": {name: _finite(rows, 1) for name, rows in prepared.items()},
            **as_drawn(
                objective,
                seed,
                state.step,
                lambda: jax.lax.map(look, (microbatches(prepared, accumulation), jnp.arange(accumulation))),
            ),
        }

    def inspection(state: TrainState, batch: Batch, constants: Constants = NO_CONSTANTS) -> dict[str, Any]:
        with placed(placement):
            return inspect(state, batch, constants)

    return inspection


def compile_inspection(inspection: Inspection, where: jax.sharding.Sharding) -> Inspection:
    """Return the inspection jitted, with results that every host has."""
    return jax.jit(inspection, out_shardings=where)


def _finite(x: jax.Array, axes: int) -> jax.Array:
    """Return whether an array is finite, for each index of its first axes."""
    if not jnp.issubdtype(x.dtype, jnp.inexact):
        return jnp.ones(x.shape[:axes], jnp.bool_)
    return jnp.isfinite(x).all(tuple(range(axes, x.ndim)))


def _by_path(tree: Any) -> dict[str, jax.Array]:
    return {path: _finite(leaf, 0) for path, leaf in trees.flatten(tree).items()}
