"""Loss spikes: a loss far above those of the last steps, seen on the device in the very step that has it."""

from dataclasses import dataclass

import jax
import jax.numpy as jnp


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class LossHistory:
    """The losses of the last steps; part of the state, so that a resumed run goes on with them.

    Attributes:
      losses: float32 `(window,)`, a ring.
      count: how many were noted in all, int32 scalar.
    """

    losses: jax.Array
    count: jax.Array


@dataclass(frozen=True)
class SpikeRule:
    """What a spike is: a loss above the mean of the last `window` by so many of their standard deviations.

    Of a spike the bound is noted in its place: one of them hides no second one, and a loss that has risen for good
    is a spike no longer after some steps.

    Attributes:
      deviations: how many.
      window: steps looked back; before there are so many, nothing is a spike.
    """

    deviations: float
    window: int

    def init(self) -> LossHistory:
        """Return the history of a new run."""
        return LossHistory(jnp.zeros(self.window, jnp.float32), jnp.zeros((), jnp.int32))

    def judge(self, history: LossHistory, loss: jax.Array) -> tuple[jax.Array, LossHistory]:
        """Return whether a loss is a spike, and the history with it; a loss that is not finite is left out."""
        bound = history.losses.mean() + self.deviations * history.losses.std()
        spike = (history.count >= self.window) & (loss > bound)
        noted = history.losses.at[history.count % self.window].set(jnp.where(spike, bound, loss))
        finite = jnp.isfinite(loss)
        return finite & spike, LossHistory(
            jnp.where(finite, noted, history.losses), history.count + finite.astype(jnp.int32)
        )
