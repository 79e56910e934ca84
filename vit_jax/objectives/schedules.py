"""Numbers that change while a run goes on: a teacher's momentum, a temperature, weight decay.

Pure functions of the step, which may be traced; `objectives.protocol.Moment` has it, with the steps of the run and
those of an epoch. A teacher's momentum is `cosine(moment.step, 0.996, 1.0, moment.total)`; a temperature that warms up
for 30 epochs and then stays is `linear(moment.step, 0.04, 0.07, 30 * moment.per_epoch)` (Caron et al. 2021, arXiv
2104.14294).
"""

import jax
import jax.numpy as jnp


def progress(step: jax.typing.ArrayLike, steps: int, after: int = 0) -> jax.Array:
    """Return how far a change is that begins at `after` and takes `steps`: float32 from 0 to 1, where it stays."""
    return jnp.clip((jnp.asarray(step, jnp.float32) - after) / max(steps, 1), 0.0, 1.0)


def linear(step: jax.typing.ArrayLike, first: float, last: float, steps: int, after: int = 0) -> jax.Array:
    """Return a number that goes evenly from `first` to `last`, and stays there.

    Args:
      step: updates made so far.
      first, last: the numbers.
      steps: that the change takes.
      after: the step at which it begins.

    Returns:
      A float32 scalar.
    """
    return first + (last - first) * progress(step, steps, after)


def cosine(step: jax.typing.ArrayLike, first: float, last: float, steps: int, after: int = 0) -> jax.Array:
    """Return a number that goes along half a cosine from `first` to `last`, and stays there; see `linear`."""
    return last + (first - last) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress(step, steps, after)))


SCHEDULES = {"linear": linear, "cosine": cosine}
