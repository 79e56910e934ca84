"""How it is learned: how long and how often, learning rate, optimizer, what stays frozen, averages, loss spikes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import optax

from vit_jax.errors import ConfigError
from vit_jax.evaluation.probes.names import parse_probes
from vit_jax.training.config import durations
from vit_jax.training.config.defaults import Config
from vit_jax.training.guard.spikes import SpikeRule
from vit_jax.training.optimizer import make_optimizer
from vit_jax.training.parts.treatments import Frozen, frozen_of, treatments
from vit_jax.training.schedule import Schedule, late_schedules, make_schedule
from vit_jax.training.step import Ema


@dataclass(frozen=True)
class Optimisation:
    """How a run updates its parameters.

    Attributes:
      section: `optimizer` of the configuration.
      total_steps, epoch_steps: length of the run and of an epoch, at least one.
      eval_every, save_every, log_every: steps between evaluations, checkpoints and lines of metrics.
      probe_every: steps between two measurements of each probe, by name.
      accumulation: microbatches in a step.
      schedule: learning rate by step.
      optimizer: makes updates.
      frozen: what it leaves as it is.
      ema: the moving average of parameters, or None.
      spikes: what a loss spike is, or None if they are not looked for.
    """

    section: Config
    total_steps: int
    epoch_steps: int
    eval_every: int
    save_every: int
    log_every: int
    probe_every: Mapping[str, int]
    accumulation: int
    schedule: Schedule
    optimizer: optax.GradientTransformation
    frozen: Frozen
    ema: Ema | None
    spikes: SpikeRule | None


def make_optimisation(config: Config, examples: int, params: Any, network: Any) -> Optimisation:
    """Return how a configuration trains, by its durations and its sections `optimizer`, `schedule`, `ema` and
    `divergence`.

    Args:
      config: checked.
      examples: records in an epoch.
      params: shapes of the parameters, a nested dict.
      network: the configuration of the model that they belong to.

    Raises:
      ConfigError: durations, patterns and parameters do not go together.
    """
    steps = partial(durations.steps, batch_size=config.data.batch_size, examples=examples)
    total_steps = _at_least_one(steps, config.duration, "duration")
    resolve = partial(steps, total_steps=total_steps)
    every = {
        name: _at_least_one(resolve, config[name].every, f"{name}.every")
        for name in ("evaluation", "checkpoint", "log")
    }
    section, divergence = config.optimizer, config.divergence
    rates = config.schedule, section.learning_rate, total_steps, resolve
    schedule, late = make_schedule(*rates), late_schedules(section.delay, *rates)
    return Optimisation(
        section=section,
        total_steps=total_steps,
        epoch_steps=steps("1 epoch", name="duration"),
        eval_every=every["evaluation"],
        save_every=every["checkpoint"],
        log_every=every["log"],
        probe_every={
            name: _at_least_one(
                resolve, interval or config.evaluation.every, "an interval in evaluation.probes"
            )
            for name, interval in parse_probes(config.evaluation.probes, "evaluation.probes").items()
        },
        accumulation=config.accumulation,
        schedule=schedule,
        optimizer=make_optimizer(section, schedule, params, network, total_steps, late),
        frozen=frozen_of(treatments(section, params, network)),
        ema=Ema(config.ema.decay, config.ema.warmup) if config.ema.decay else None,
        spikes=(
            SpikeRule(divergence.spike_deviations, divergence.spike_window)
            if divergence.spike_deviations
            else None
        ),
    )


def _at_least_one(resolve: Callable[..., int], value: Any, name: str) -> int:
    steps = resolve(value, name=name)
    if not steps:
        raise ConfigError(f"{name} is {value!r}; it must be at least one step.")
    return steps
