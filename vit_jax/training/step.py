"""One update: a pure function `(state, batch) -> (state, metrics)`, and where it is compiled."""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from vit_jax import trees
from vit_jax.compiler_options import Options, jit
from vit_jax.models.placement import Placement, gather_rest, placed
from vit_jax.objectives.base import Batch, LossOutput, Objective
from vit_jax.random import fold, root
from vit_jax.training.spikes import SpikeRule
from vit_jax.training.state import TrainState

Metrics = dict[str, jax.Array]
Step = Callable[[TrainState, Batch], tuple[TrainState, Metrics]]
Gradients = Callable[[Any, Any, Batch, Any], tuple[dict[str, jax.Array], LossOutput]]


@dataclass(frozen=True)
class Ema:
    """Exponential moving average of parameters (Polyak & Juditsky 1992).

    Attributes:
      decay: share that stays per step; 0 is off.
      warmup: start with smaller decays, `min(decay, (1 + step) / (10 + step))`, so that the random
        initialisation is forgotten at once.
    """

    decay: float = 0.0
    warmup: bool = True

    def update(self, ema: Any, params: Any, step: jax.Array) -> Any:
        """Return the average after `step` (counted from 0) made `params`."""
        if ema is None:
            return None
        decay = jnp.float32(self.decay)
        if self.warmup:
            count = step.astype(jnp.float32)
            decay = jnp.minimum(decay, (1 + count) / (10 + count))
        return jax.tree.map(lambda old, new: old + (1 - decay) * (new - old), ema, params)


def make_step(
    objective: Objective,
    optimizer: optax.GradientTransformation,
    schedule: Callable[[jax.Array], jax.Array],
    *,
    seed: int,
    accumulation: int = 1,
    ema: Ema | None = None,
    frozen: Collection[str] = (),
    placement: Placement | None = None,
    gradient_shardings: Mapping[str, NamedSharding] | None = None,
    spikes: SpikeRule | None = None,
) -> Step:
    """Return the training step.

    An update whose loss, gradient or new buffers are not finite is not applied: parameters, buffers, moments and
    averages stay as they were, and the metric `finite` is 0. So it is with that of a loss spike, where the metric
    `spike` is 1. Such a step counts all the same: its batch and its keys are never used again, and the learning rate
    goes on. What an optimizer would make infinite of a finite gradient, with a learning rate of 1e38, is not looked
    for here, because all parameters and moments would be read twice: it is found in the next step, or when it is
    saved.

    Args:
      objective: the loss.
      optimizer: makes updates of gradients.
      schedule: the learning rate of a step, for the metrics.
      seed: of the run; the step's key is `fold_in(key(seed), step)`.
      accumulation: microbatches that the batch is divided into, one after the other.
      ema: the moving average, if any.
      frozen: paths of parameters that the optimizer leaves as they are; no gradient of them is computed.
      placement: where the step runs; None leaves to the compiler what moves between devices.
      gradient_shardings: where the gradient of each parameter lies, by path; None leaves it to the compiler.
      spikes: what a loss spike is; None looks for none, and there is no such metric.
    """
    compute = partial(gradients_of, objective, frozen, gradient_shardings)

    def update(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        prepare_key, loss_key = step_keys(seed, state.step)
        batch = objective.prepare(batch, prepare_key)
        if accumulation == 1:
            trained, out = compute(state.params, state.buffers, batch, loss_key)
        else:
            trained, out = _accumulated(compute, state, batch, loss_key, accumulation)
        norm = optax.tree.norm(trained)
        # The optimizer wants a whole tree; XLA keeps no zeros for what it does not change.
        gradients = trees.map_named(lambda path, x: trained.get(path, jnp.zeros_like(x)), state.params)
        loss = out.metrics["loss"]
        finite = _finite(loss, norm, out.buffers)
        metrics = out.metrics | {
            "gradient_norm": norm,
            "learning_rate": jnp.asarray(schedule(state.step), jnp.float32),
            "finite": finite.astype(jnp.float32),
        }
        applied, history = finite, state.loss_history
        if spikes is not None:
            assert history is not None
            spike, history = spikes.judge(history, loss)
            applied &= ~spike
            metrics["spike"] = spike.astype(jnp.float32)

        def apply(state: TrainState) -> TrainState:
            updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
            params = optax.apply_updates(state.params, updates)
            return replace(
                state,
                params=params,
                buffers=objective.after_update(params, out.buffers, state.step),
                opt_state=opt_state,
                ema=None if ema is None else ema.update(state.ema, params, state.step),
            )

        # Not both states and a choice between their values: parameters and moments would have to be read once more.
        updated = jax.lax.cond(applied, apply, _left_out, replace(state, loss_history=None))
        return replace(updated, step=state.step + 1, loss_history=history), metrics

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        with placed(placement):
            return update(state, batch)

    return step


def step_keys(seed: int, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the keys of a step, counted from 0: for preparing its batch, and for its loss."""
    key = fold(fold(root(seed), "train"), step)
    return fold(key, "prepare"), fold(key, "loss")


def microbatches(batch: Any, count: int) -> Any:
    """Return a batch with a leading axis of microbatches: number `i` has rows `i, i + count, ...`.

    So every device keeps its own rows.
    """
    return jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, count, *x.shape[1:]), 0, 1), batch)


def _finite(loss: jax.Array, norm: jax.Array, buffers: Any) -> jax.Array:
    """Return whether what a step has made is finite; a norm is, only if all that is in it is."""
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    for leaf in jax.tree.leaves(buffers):
        if jnp.issubdtype(leaf.dtype, jnp.inexact):
            finite &= jnp.isfinite(leaf).all()
    return finite


def _left_out(state: TrainState) -> TrainState:
    """Return the state as it was, but for the learning rate's own count, which stays that of the step."""

    def counted(part: Any) -> Any:
        return part._replace(count=optax.safe_increment(part.count)) if _is_schedule(part) else part

    return replace(state, opt_state=jax.tree.map(counted, state.opt_state, is_leaf=_is_schedule))


def _is_schedule(part: Any) -> bool:
    return isinstance(part, optax.ScaleByScheduleState)


def gradients_of(
    objective: Objective,
    frozen: Collection[str],
    shardings: Mapping[str, NamedSharding] | None,
    params: Any,
    buffers: Any,
    batch: Batch,
    key: Any,
) -> tuple[dict[str, jax.Array], LossOutput]:
    """Return the gradient of each parameter that is trained, by path, and what the loss returned beside its value."""
    flat = trees.flatten(params)

    def loss(trained: dict[str, jax.Array]) -> tuple[jax.Array, LossOutput]:
        return objective.loss(trees.unflatten(gather_rest(flat | trained)), buffers, batch, key)

    trained = {path: leaf for path, leaf in flat.items() if path not in frozen}
    gradients, out = jax.grad(loss, has_aux=True)(trained)
    if shardings is not None:
        # Where each device needs its part alone, the sum over devices becomes a reduce-scatter, half an all-reduce.
        gradients = jax.lax.with_sharding_constraint(gradients, {path: shardings[path] for path in trained})
    return gradients, out


def _accumulated(
    compute: Gradients, state: TrainState, batch: Batch, key: Any, count: int
) -> tuple[dict[str, jax.Array], LossOutput]:
    """Return what `gradients_of` returns for the whole batch, holding one microbatch's activations at a time.

    Each microbatch counts by the weight its mean was divided by.
    """
    micro = microbatches(batch, count)

    def one(buffers: Any, batch: Batch, index: Any) -> tuple[Any, Any]:
        gradients, out = compute(state.params, buffers, batch, fold(key, index))
        weighted = jax.tree.map(lambda x: x * out.weight.astype(x.dtype), (gradients, out.metrics))
        return (*weighted, out.weight), out.buffers

    def body(carry: Any, indexed: Any) -> tuple[Any, None]:
        sums, buffers = carry
        more, buffers = one(buffers, *indexed)
        return (jax.tree.map(jnp.add, sums, more), buffers), None

    indexed = (micro, jnp.arange(count))
    shapes, _ = jax.eval_shape(one, state.buffers, *jax.tree.map(lambda x: x[0], indexed))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    ((*sums, weight), buffers), _ = jax.lax.scan(body, (zeros, state.buffers), indexed)
    gradients, metrics = jax.tree.map(lambda x: x / weight.astype(x.dtype), sums)
    return gradients, LossOutput(metrics, buffers, weight)


def compile_step(
    step: Step, state_shardings: Any = None, batch_sharding: Any = None, options: Options | None = None
) -> Any:
    """Return the step jitted: the state's buffers are reused for the new one, and shardings stay as they are.

    Args:
      step: what `make_step` returned.
      state_shardings: of every array of the state, over devices that need not be here; None: as it lies.
      batch_sharding: of the batch; None: as it lies.
      options: of the compiler.
    """
    return jit(
        step,
        options,
        in_shardings=(state_shardings, batch_sharding),
        out_shardings=(state_shardings, None),
        donate_argnums=0,
    )
