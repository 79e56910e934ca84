"""One update: a pure function `(state, batch) -> (state, metrics)`, and where it is compiled."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
import optax
from jax.sharding import NamedSharding

from vit_jax import trees
from vit_jax.compiler_options import Options, jit
from vit_jax.models.draws import SCOPE, choices, drawing
from vit_jax.models.layers.freezing import frozen_below
from vit_jax.models.layers.placement import Placement, gather_beside, gather_rest, placed
from vit_jax.objectives.base import Batch, LossOutput, Moment, Objective
from vit_jax.random import fold, root
from vit_jax.training.guard.spikes import SpikeRule
from vit_jax.training.parts.treatments import NOTHING_FROZEN, Frozen
from vit_jax.training.state import TrainState

T = TypeVar("T")
Metrics = dict[str, jax.Array]
Constants = Mapping[str, Any]  # parameters of frozen networks, by their names
Step = Callable[..., tuple[TrainState, Metrics]]
NO_CONSTANTS: Constants = {}
Augment = Callable[[Batch, jax.Array], Batch]
Gradients = Callable[[Any, Any, Batch, Any], tuple[dict[str, jax.Array], LossOutput]]


def unchanged(batch: Batch, key: jax.Array) -> Batch:
    """Return a batch as it is: what is done to one that was augmented before."""
    return batch


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
    frozen: Frozen = NOTHING_FROZEN,
    augment: Augment = unchanged,
    placement: Placement | None = None,
    gradient_shardings: Mapping[str, NamedSharding] | None = None,
    spikes: SpikeRule | None = None,
    total: int = 0,
    per_epoch: int = 1,
) -> Step:
    """Return the training step: `step(state, batch, constants={}) -> (state, metrics)`.

    An update whose loss, gradient, changed buffers or sums are not finite is not applied: parameters, buffers, moments
    and averages stay as they were, and the metric `finite` is 0. So it is with that of a loss spike, where the metric
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
      frozen: what the optimizer leaves as it is; no gradient of it is computed, and none of blocks below the trained
        ones.
      augment: `augment(batch, key)`, what is done to a batch before the objective prepares it; by default nothing.
      placement: where the step runs; None leaves to the compiler what moves between devices.
      gradient_shardings: where the gradient of each parameter lies, by path; None leaves it to the compiler.
      spikes: what a loss spike is; None looks for none, and there is no such metric.
      total, per_epoch: steps of the run and of an epoch, which the objective is told.
    """

    def update(state: TrainState, batch: Batch, constants: Constants) -> tuple[TrainState, Metrics]:
        now = objective.at(Moment(state.step, total, per_epoch, gather_beside(constants, "constants")))
        compute = partial(gradients_of, now, frozen, gradient_shardings)
        prepare_key, loss_key = step_keys(seed, state.step)
        batch = now.prepare(augment(batch, fold(prepare_key, "augment")), prepare_key)

        def gradients_of_batch() -> tuple[dict[str, jax.Array], LossOutput]:
            if accumulation == 1:
                return compute(state.params, state.buffers, batch, loss_key)
            return _accumulated(compute, state, batch, loss_key, accumulation)

        trained, out = as_drawn(objective, seed, state.step, gradients_of_batch)
        norm = optax.tree.norm(trained)
        # The optimizer wants a whole tree; XLA keeps no zeros for what it does not change.
        gradients = trees.map_named(lambda path, x: trained.get(path, jnp.zeros_like(x)), state.params)
        loss = out.metrics["loss"]
        finite = _finite(loss, norm, (out.buffers, out.sums))
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
            params = now.project(optax.apply_updates(state.params, updates))
            buffers = now.combine({**state.buffers, **out.buffers}, out.sums)
            return replace(
                state,
                params=params,
                buffers=now.after_update(params, buffers, state.step),
                opt_state=opt_state,
                ema=None if ema is None else ema.update(state.ema, params, state.step),
            )

        # Not both states and a choice between their values: parameters and moments would have to be read once more.
        updated = jax.lax.cond(applied, apply, _left_out, replace(state, loss_history=None))
        return replace(updated, step=state.step + 1, loss_history=history), metrics

    def step(
        state: TrainState, batch: Batch, constants: Constants = NO_CONSTANTS
    ) -> tuple[TrainState, Metrics]:
        with placed(placement):
            return update(state, batch, constants)

    return step


def step_keys(seed: int, step: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Return the keys of a step, counted from 0: for preparing its batch, and for its loss."""
    key = fold(fold(root(seed), "train"), step)
    return fold(key, "prepare"), fold(key, "loss")


def as_drawn(objective: Objective, seed: int, step: jax.Array, run: Callable[[], T]) -> T:
    """Return what `run` does with what a step draws of the network's choices, see `models.draws`.

    There is a branch for each, around the gradient: inside of it, all branches' activations would be kept for the
    backward pass.
    """
    found = choices(objective.network)
    if not found:
        return run()

    def branch(choice: Any) -> T:
        with drawing(choice):
            return run()

    key = fold(fold(fold(root(seed), "train"), step), "draw")
    index = jax.random.randint(key, (), 0, len(found))
    with jax.named_scope(SCOPE):
        return jax.lax.switch(index, [partial(branch, choice) for choice in found])


def microbatches(batch: Any, count: int) -> Any:
    """Return a batch with a leading axis of microbatches: number `i` has rows `i, i + count, ...`.

    So every device keeps its own rows.
    """
    return jax.tree.map(lambda x: jnp.swapaxes(x.reshape(-1, count, *x.shape[1:]), 0, 1), batch)


def _finite(loss: jax.Array, norm: jax.Array, made: Any) -> jax.Array:
    """Return whether what a step has made is finite; a norm is, only if all that is in it is."""
    finite = jnp.isfinite(loss) & jnp.isfinite(norm)
    for leaf in jax.tree.leaves(made):
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
    frozen: Frozen,
    shardings: Mapping[str, NamedSharding] | None,
    params: Any,
    buffers: Any,
    batch: Batch,
    key: Any,
) -> tuple[dict[str, jax.Array], LossOutput]:
    """Return the gradient of each parameter that is trained, by path, and what the loss returned beside its value."""
    flat = trees.flatten(params)

    def loss(trained: dict[str, jax.Array]) -> tuple[jax.Array, LossOutput]:
        whole = trees.unflatten(gather_rest(flat | trained))
        return objective.loss(whole, gather_beside(buffers, "buffers"), batch, key)

    trained = {path: leaf for path, leaf in flat.items() if path not in frozen.paths}
    with frozen_below(frozen.depth):
        gradients, out = jax.grad(loss, has_aux=True)(trained)
    for path, rows in frozen.rows.items():
        kept = ~rows.reshape(-1, *[1] * (gradients[path].ndim - 1))
        gradients[path] = jnp.where(kept, gradients[path], jnp.zeros_like(gradients[path]))
    if shardings is not None:
        # Where each device needs its part alone, the sum over devices becomes a reduce-scatter, half an all-reduce.
        gradients = jax.lax.with_sharding_constraint(gradients, {path: shardings[path] for path in trained})
    return gradients, out


def _accumulated(
    compute: Gradients, state: TrainState, batch: Batch, key: Any, count: int
) -> tuple[dict[str, jax.Array], LossOutput]:
    """Return what `gradients_of` returns for the whole batch, holding one microbatch's activations at a time.

    Each microbatch counts by the weight its mean was divided by; sums are added up as they are. Buffers that the loss
    changes go from one to the next, all others are the same for each.
    """
    micro = microbatches(batch, count)

    def one(changed: Any, batch: Batch, index: Any) -> tuple[Any, Any]:
        gradients, out = compute(state.params, {**state.buffers, **changed}, batch, fold(key, index))
        weighted = jax.tree.map(lambda x: x * out.weight.astype(x.dtype), (gradients, out.metrics))
        return (*weighted, out.weight, out.sums), out.buffers

    def body(carry: Any, indexed: Any) -> tuple[Any, None]:
        totals, changed = carry
        more, changed = one(changed, *indexed)
        return (jax.tree.map(jnp.add, totals, more), changed), None

    indexed = (micro, jnp.arange(count))
    shapes, changed = jax.eval_shape(one, {}, *jax.tree.map(lambda x: x[0], indexed))
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
    first = {name: state.buffers[name] for name in changed}
    ((*means, weight, sums), changed), _ = jax.lax.scan(body, (zeros, first), indexed)
    gradients, metrics = jax.tree.map(lambda x: x / weight.astype(x.dtype), means)
    return gradients, LossOutput(metrics, changed, weight, sums)


def compile_step(
    step: Step,
    state_shardings: Any = None,
    batch_sharding: Any = None,
    options: Options | None = None,
    constants: tuple[Any, ...] = (),
) -> Any:
    """Return the step jitted: the state's buffers are reused for the new one, and shardings stay as they are.

    Args:
      step: what `make_step` returned.
      state_shardings: of every array of the state, over devices that need not be here; None: as it lies.
      batch_sharding: of the batch; None: as it lies.
      options: of the compiler.
      constants: the shardings of frozen networks, of which the step takes one tree more; empty where there are none.
    """
    return jit(
        step,
        options,
        in_shardings=(state_shardings, batch_sharding, *constants),
        out_shardings=(state_shardings, None),
        donate_argnums=0,
    )
