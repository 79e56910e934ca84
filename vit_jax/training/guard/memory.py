"""Bytes on one device: of the state exactly and of activations from above, before compiling; of a program, after."""

import math
from typing import Any

import jax

from vit_jax import trees
from vit_jax.random import root
from vit_jax.training.experiment import Experiment


def state_bytes(experiment: Experiment) -> dict[str, int]:
    """Return the bytes on one device of each part of the state: `params`, `opt_state`, `ema`, `buffers`, `step`."""
    totals: dict[str, int] = {"params": 0, "opt_state": 0, "ema": 0, "buffers": 0, "step": 0}
    for path, leaf in trees.flatten(experiment.abstract_state).items():
        part = path.partition("/")[0]
        totals[part if part in totals else "buffers"] += _bytes(leaf)
    return totals


def largest_tensors(experiment: Experiment, count: int = 3) -> list[tuple[str, tuple[int, ...], int]]:
    """Return path, shape and bytes on one device of the largest tensors of the state."""
    flat = trees.flatten(experiment.abstract_state)
    sized = sorted(((_bytes(leaf), path) for path, leaf in flat.items()), reverse=True)[:count]
    return [(path, tuple(flat[path].shape), size) for size, path in sized]


def activation_bytes(experiment: Experiment) -> int:
    """Return the bytes on one device that automatic differentiation keeps for the backward pass.

    What XLA computes again or never writes is counted too, so less may be needed; buffers of the passes
    themselves are not counted, so more may be.
    """
    objective, accumulation = experiment.task.objective, experiment.optimisation.accumulation
    state, key = experiment.abstract_state, root(0)
    rows = experiment.data.batch_size // accumulation
    batch = {
        name: jax.ShapeDtypeStruct((rows, *leaf.shape[1:]), leaf.dtype)
        for name, leaf in experiment.abstract_batch().items()
    }

    def kept(params: Any, buffers: Any, batch: Any) -> Any:
        prepared = objective.prepare(batch, key)
        return jax.vjp(lambda params: objective.loss(params, buffers, prepared, key)[0], params)[1]

    residuals = jax.tree.leaves(jax.eval_shape(kept, state.params, state.buffers, batch))
    divided = math.prod(experiment.devices.mesh.shape[axis] for axis in ("data", "fsdp"))
    parameters = {(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state.params)}
    total = 0
    for leaf in residuals:
        if rows in leaf.shape:
            total += leaf.size * leaf.dtype.itemsize // divided
        elif (leaf.shape, leaf.dtype) not in parameters:
            total += leaf.size * leaf.dtype.itemsize
    return total


def peak_bytes(compiled: Any) -> int:
    """Return the bytes of a compiled program on one device: arguments, results not written over them, and the rest."""
    memory = compiled.memory_analysis()
    return (
        memory.argument_size_in_bytes
        + memory.output_size_in_bytes
        - memory.alias_size_in_bytes
        + memory.temp_size_in_bytes
        + memory.generated_code_size_in_bytes
    )


def _bytes(leaf: Any) -> int:
    return math.prod(leaf.sharding.shard_shape(leaf.shape)) * leaf.dtype.itemsize
