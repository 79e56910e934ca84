"""Everything that changes while training, as one pytree."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import optax

from vit_jax import trees
from vit_jax.objectives.base import Objective
from vit_jax.random import fold, root
from vit_jax.training.guard.spikes import LossHistory, SpikeRule


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class TrainState:
    """The state of a run; randomness is not part of it, since every key follows from seed and step.

    Attributes:
      step: number of steps made, those included whose update was left out, int32 scalar.
      params: nested dict of float32 arrays.
      buffers: what changes without a gradient, e.g. a teacher.
      opt_state: the optimizer's state.
      ema: exponential moving average of `params`, or None.
      loss_history: what a loss is compared with to tell a spike, or None.
    """

    step: jax.Array
    params: Any
    buffers: Any
    opt_state: Any
    ema: Any
    loss_history: LossHistory | None = None


def init_state(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    seed: int,
    with_ema: bool,
    loaded: Any = None,
    spikes: SpikeRule | None = None,
    *,
    begun: bool = False,
) -> TrainState:
    """Return the state before the first step; meant to be jitted with output shardings.

    Args:
      objective: builds parameters and buffers.
      optimizer: builds its own state.
      seed: of the run.
      with_ema: whether a moving average is kept.
      loaded: nested dict of parameters and buffers that are not to start fresh, or None.
      spikes: what a loss spike is, if they are looked for.
      begun: whether what is loaded has its buffers already, of an earlier run.
    """
    key = fold(root(seed), "init")
    params, buffers = objective.init(key)
    if loaded is not None:
        params, buffers = _with(params, loaded), _with(buffers, loaded)
    if loaded is None or not begun:
        buffers = objective.begin(params, buffers)
    # Copies: two names of one buffer could not both be donated.
    ema = jax.tree.map(jnp.copy, params) if with_ema else None
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        buffers=jax.tree.map(jnp.copy, buffers),
        opt_state=optimizer.init(params),
        ema=ema,
        loss_history=None if spikes is None else spikes.init(),
    )


def _with(tree: Any, loaded: Any) -> Any:
    """Return a nested dict with what was loaded of it."""
    found = trees.flatten(loaded)
    return trees.map_named(lambda path, leaf: found.get(path, leaf), tree)
