"""Learning rate as a function of the step: warmup, one of six shapes, cooldown.

Written for a peak `p`, `w` steps of warmup, `c` of cooldown, `T` in all, at step `t`:

- `cosine`: `f p + (1 - f) p (1 + cos(pi (t - w) / (T - w))) / 2` (Loshchilov and Hutter 2016,
  arXiv 1608.03983);
- `linear`: `f p + (1 - f) p (T - t) / (T - w)`;
- `rsqrt`: `p sqrt(s / (s + t - w))` with a timescale `s`, as in big_vision; endless until a cooldown ends it
  (Zhai et al. 2021, arXiv 2106.04560);
- `poly`: `f p + (1 - f) p ((T - t) / (T - w)) ** power` (Liu et al. 2015, arXiv 1506.04579);
- `steps`: `p factor ** n` after `n` of the milestones, in their own step already;
- `constant`: `p`.

`f` is `schedule.final`, a share of the peak. During warmup the rate grows linearly from `warmup_start * p` to
`p`; during the last `c` steps its distance to `f p` is multiplied by `(T - t) / c`. The rate changes with
every step, not with every epoch as in timm, and the shape begins after the warmup (timm's `warmup_prefix`).

Parameters that start later (`optimizer.delay`) have a schedule of their own: it is 0 before their start, then they warm
up, and the shape takes what is left of the run (as EoMT's backbone, Kerssies et al. 2025, arXiv 2503.19108); or, with
None for their warmup, they join the others (as DINO's last layer).
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.errors import ConfigError, choose

Schedule = Callable[[jax.typing.ArrayLike], jax.Array]

NAMES = ("cosine", "linear", "rsqrt", "poly", "steps", "constant")


def make_schedule(
    section: Mapping[str, Any],
    peak: float,
    total_steps: int,
    resolve: Callable[..., int],
    start: int = 0,
    warmup: int | None = None,
) -> Schedule:
    """Return the learning rate as a function of the step, as optax wants it.

    Args:
      section: the `schedule` section of a configuration.
      peak: learning rate at the end of the warmup.
      total_steps: steps of the run.
      resolve: `resolve(duration, name=key)` returns a duration in steps, see `durations.steps`.
      start: the step before which it is 0.
      warmup: steps from there on; None for those of the section.

    Returns:
      A function of the step (int32, may be traced) that returns the learning rate (float32).

    Raises:
      ConfigError: unknown shape, warmup and cooldown longer than the run, milestones out of order or beyond it, or a
        final share never reached.
    """
    name = section["name"]
    choose(name, NAMES, "schedule.name")
    warmup = resolve(section["warmup"], name="schedule.warmup") if warmup is None else warmup
    cooldown = resolve(section["cooldown"], name="schedule.cooldown")
    timescale = resolve(section["timescale"], name="schedule.timescale")
    low, final = section["warmup_start"], section["final"]
    milestones = _milestones(section, total_steps, resolve)
    if start + warmup + cooldown > total_steps:
        late = f" after the first {start}" if start else ""
        raise ConfigError(
            f"schedule.warmup is {warmup} steps{late} and schedule.cooldown {cooldown}, but the run has only "
            f"{total_steps} steps; shorten them or train longer."
        )
    if name == "rsqrt" and timescale < 1:
        raise ConfigError(f"schedule.timescale is {section['timescale']!r}; rsqrt needs at least one step.")
    if name in ("rsqrt", "steps", "constant") and final and not cooldown:
        raise ConfigError(
            f"schedule.final is {final}, but {name} reaches it only in a cooldown; set schedule.cooldown."
        )

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        decayed = jnp.maximum(step - (start + warmup), 0.0)  # steps since the warmup
        left = jnp.maximum(total_steps - step, 0.0)
        progress = jnp.minimum(decayed / max(total_steps - start - warmup, 1), 1.0)
        if name == "cosine":
            share = final + (1.0 - final) * 0.5 * (1.0 + jnp.cos(jnp.pi * progress))
        elif name == "linear":
            share = final + (1.0 - final) * (1.0 - progress)
        elif name == "rsqrt":
            share = jnp.sqrt(timescale / (timescale + decayed))
        elif name == "poly":
            share = final + (1.0 - final) * (1.0 - progress) ** section["power"]
        elif name == "steps":
            share = section["factor"] ** (step[..., None] >= milestones).sum(-1).astype(jnp.float32)
        else:
            share = jnp.ones_like(step)
        if warmup:
            share *= low + (1.0 - low) * jnp.minimum((step - start if start else step) / warmup, 1.0)
        if cooldown:
            share = final + (share - final) * jnp.minimum(left / cooldown, 1.0)
        if start:
            share = jnp.where(step < start, 0.0, share)
        return peak * share

    return schedule


def late_schedules(
    delay: Sequence[tuple[Any, ...]],
    section: Mapping[str, Any],
    peak: float,
    total_steps: int,
    resolve: Callable[..., int],
) -> list[tuple[str, Schedule]]:
    """Return the schedules of parameters that start later.

    Args:
      delay: `optimizer.delay` of a configuration: a pattern, when its parameters start, and, where it is another than
        `schedule.warmup`, how long they warm up, or None for the rate of all others from then on.
      section, peak, total_steps, resolve: see `make_schedule`.

    Raises:
      ConfigError: as `make_schedule`.
    """
    late = []
    for pattern, *durations in delay:
        joins = durations[1:] == [None]
        start, *warmup = (
            resolve(value, name="optimizer.delay") for value in durations[: 1 if joins else None]
        )
        schedule = make_schedule(section, peak, total_steps, resolve, 0 if joins else start, *warmup)
        late.append((pattern, _from(start, schedule) if joins else schedule))
    return late


def _from(start: int, schedule: Schedule) -> Schedule:
    return lambda step: jnp.where(jnp.asarray(step) < start, 0.0, schedule(step))


def _milestones(section: Mapping[str, Any], total_steps: int, resolve: Callable[..., int]) -> np.ndarray:
    """Return the steps at which a rate of `steps` falls, ascending float32."""
    given = section["milestones"]
    if (section["name"] == "steps") != bool(given):
        wanted = (
            "name them"
            if section["name"] == "steps"
            else "milestones are for schedule.name 'steps'; leave them out"
        )
        raise ConfigError(
            f"schedule.milestones is {given!r} and schedule.name {section['name']!r}; {wanted}."
        )
    steps = [resolve(value, name="schedule.milestones") for value in given]
    if any(later <= earlier for earlier, later in pairwise(steps)) or steps[-1:] > [total_steps]:
        raise ConfigError(
            f"schedule.milestones is {given!r}, steps {', '.join(map(str, steps))}; they must be in ascending "
            f"order, within the {total_steps} steps of the run."
        )
    return np.asarray(steps, np.float32)
