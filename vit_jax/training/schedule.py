"""Learning rate as a function of the step: warmup, one of four shapes, cooldown.

Written for a peak `p`, `w` steps of warmup, `c` of cooldown, `T` in all, at step `t`:

- `cosine`: `f p + (1 - f) p (1 + cos(pi (t - w) / (T - w))) / 2` (Loshchilov and Hutter 2016,
  arXiv 1608.03983);
- `linear`: `f p + (1 - f) p (T - t) / (T - w)`;
- `rsqrt`: `p sqrt(s / (s + t - w))` with a timescale `s`, as in big_vision; endless until a cooldown ends it
  (Zhai et al. 2021, arXiv 2106.04560);
- `constant`: `p`.

`f` is `schedule.final`, a share of the peak. During warmup the rate grows linearly from `warmup_start * p` to
`p`; during the last `c` steps its distance to `f p` is multiplied by `(T - t) / c`. The rate changes with
every step, not with every epoch as in timm, and the shape begins after the warmup (timm's `warmup_prefix`).
"""

from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from vit_jax.errors import ConfigError, choose

Schedule = Callable[[jax.typing.ArrayLike], jax.Array]

NAMES = ("cosine", "linear", "rsqrt", "constant")


def make_schedule(
    section: Mapping[str, Any], peak: float, total_steps: int, resolve: Callable[..., int]
) -> Schedule:
    """Return the learning rate as a function of the step, as optax wants it.

    Args:
      section: the `schedule` section of a configuration.
      peak: learning rate at the end of the warmup.
      total_steps: steps of the run.
      resolve: `resolve(duration, name=key)` returns a duration in steps, see `durations.steps`.

    Returns:
      A function of the step (int32, may be traced) that returns the learning rate (float32).

    Raises:
      ConfigError: unknown shape, warmup and cooldown longer than the run, or a final share never reached.
    """
    name = section["name"]
    choose(name, NAMES, "schedule.name")
    warmup = resolve(section["warmup"], name="schedule.warmup")
    cooldown = resolve(section["cooldown"], name="schedule.cooldown")
    timescale = resolve(section["timescale"], name="schedule.timescale")
    start, final = section["warmup_start"], section["final"]
    if warmup + cooldown > total_steps:
        raise ConfigError(
            f"schedule.warmup is {warmup} steps and schedule.cooldown {cooldown}, but the run has only "
            f"{total_steps}; shorten them or train longer."
        )
    if name == "rsqrt" and timescale < 1:
        raise ConfigError(f"schedule.timescale is {section['timescale']!r}; rsqrt needs at least one step.")
    if name in ("rsqrt", "constant") and final and not cooldown:
        raise ConfigError(
            f"schedule.final is {final}, but {name} comes there only by a cooldown; set schedule.cooldown."
        )

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        decayed = jnp.maximum(step - warmup, 0.0)  # steps since the warmup
        left = jnp.maximum(total_steps - step, 0.0)
        progress = jnp.minimum(decayed / max(total_steps - warmup, 1), 1.0)
        if name == "cosine":
            share = final + (1.0 - final) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        elif name == "linear":
            share = final + (1.0 - final) * (1.0 - progress)
        elif name == "rsqrt":
            share = jnp.sqrt(timescale / (timescale + decayed))
        else:
            share = jnp.ones_like(step)
        if warmup:
            share *= start + (1.0 - start) * jnp.minimum(step / warmup, 1.0)
        if cooldown:
            share = final + (share - final) * jnp.minimum(left / cooldown, 1.0)
        return peak * share

    return schedule
