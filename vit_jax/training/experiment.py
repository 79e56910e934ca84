"""From a configuration to everything a run needs, checked, before anything is compiled or allocated."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import numpy as np

from vit_jax.evaluation.baselines import check_baselines
from vit_jax.objectives.base import Batch, Moment, Objective
from vit_jax.training.config.checks import checked
from vit_jax.training.config.defaults import Config
from vit_jax.training.config.model import resolve_model
from vit_jax.training.devices.mesh import batch_sharding, check_batch, make_mesh
from vit_jax.training.guard.inspection import Inspection, make_inspection
from vit_jax.training.parts.data import Data, make_data
from vit_jax.training.parts.devices import Devices, make_devices
from vit_jax.training.parts.optimisation import Optimisation, make_optimisation
from vit_jax.training.parts.records import data_classes, open_records
from vit_jax.training.parts.task import Task, make_task
from vit_jax.training.state import TrainState, init_state
from vit_jax.training.step import Augment, Step, make_step


@dataclass(frozen=True)
class Experiment:
    """What a run is made of; nothing here has been compiled, and no parameter exists yet.

    Attributes:
      config: as given.
      data: the records, what happens to them, and their batches.
      task: model, pretrained weights, objective and monitor.
      optimisation: durations, learning rate, optimizer and what goes with it.
      devices: the mesh and how everything lies on it.
      init: makes the state of step 0.
      step: one update.
      inspection: where in a step the numbers are not finite.
      abstract_state: shapes and dtypes of the state, with their shardings.
    """

    config: Config
    data: Data
    task: Task
    optimisation: Optimisation
    devices: Devices
    init: Callable[[], TrainState]
    step: Step
    inspection: Inspection
    abstract_state: TrainState

    @property
    def end(self) -> Moment:
        """The moment that a state is evaluated at, with frozen networks loaded: that after the last step."""
        total, epoch = self.optimisation.total_steps, self.optimisation.epoch_steps
        return Moment(np.int32(total), total, epoch, self.devices.constants.values)

    def abstract_batch(self) -> Any:
        """Return shapes, dtypes and shardings of a training batch."""
        rows, sharding = self.data.batch_size, batch_sharding(self.devices.mesh)
        return {
            name: jax.ShapeDtypeStruct((rows, *field.shape), field.dtype, sharding=sharding)
            for name, field in self.data.fields.items()
        }

    def eval_batches(self, *, numbered: bool = False) -> Generator[Batch, None, None]:
        """Yield the evaluation records as masked global batches on the devices, each record once.

        `numbered` adds the `index` in the evaluation source of each row.
        """
        return self._placed(self.data.eval_batches(numbered=numbered))

    def bank_batches(self) -> Generator[Batch, None, None]:
        """Yield the training records under evaluation transforms likewise, numbered."""
        return self._placed(self.data.bank_batches())

    def _placed(self, batches: Generator[Any, None, None]) -> Generator[Batch, None, None]:
        with closing(batches):
            for batch in batches:
                yield self.devices.put(batch)


def build(
    config: Config,
    sources: tuple[Any, Any] | None = None,
    *,
    devices: Sequence[Any] | None = None,
    earlier: Mapping[str, Any] | None = None,
    objective: Callable[..., Objective] | None = None,
    training: bool = True,
) -> Experiment:
    """Return the experiment of a configuration.

    Args:
      config: see `training.config.load`.
      sources: records to train on and to evaluate on, instead of those the configuration names, see `as_sources`.
      devices: what to run on; all devices by default.
      earlier: the model of the run that is continued or evaluated, see `training.config.model`.
      objective: what to train for, instead of what the configuration names: a class or function of model, options and
        `DataInfo`; the options are those of the configuration.
      training: False for one that only evaluates: what is trained on need not be there.

    Raises:
      VitError: configuration, data and devices do not go together; nothing has been compiled by then.
    """
    config = checked(config)
    devices = jax.devices() if devices is None else devices
    platform = devices[0].platform
    which = partial(resolve_model, config.model, config.compute_dtype, earlier=earlier, platform=platform)
    records = open_records(config.data, which()[0], sources)
    check_baselines(config.evaluation.baselines, records.train, records.evaluation)
    classes = data_classes(config.model, records.train)
    model, pretrained = which(num_classes=records.train.num_classes, classes=classes)

    data = make_data(config.data, config.seed, records, model)
    task = make_task(config, data, model, pretrained, objective, training=training)
    mesh = make_mesh(config.mesh, devices)
    check_batch(data.batch_size, config.accumulation, mesh, "data.batch_size")
    check_batch(data.eval_batch_size, 1, mesh, "data.eval_batch_size")
    optimisation = make_optimisation(config, len(data.train_source), task.params, task.objective.network)
    init = _init(config.seed, task, optimisation)
    state = jax.eval_shape(init)
    placed = make_devices(mesh, config.sharding, task.objective, task.params, state, task.networks)
    return Experiment(
        config=config,
        data=data,
        task=task,
        optimisation=optimisation,
        devices=placed,
        init=partial(_first_state, init, task, placed.state_shardings),
        step=_step(config.seed, task, optimisation, placed, data.augment),
        inspection=_inspection(config.seed, task, optimisation, placed, data.augment),
        abstract_state=jax.tree.map(_with_sharding, state, placed.state_shardings),
    )


def _init(seed: int, task: Task, optimisation: Optimisation) -> Callable[..., TrainState]:
    averaged = optimisation.ema is not None
    return partial(
        init_state,
        task.objective,
        optimisation.optimizer,
        seed,
        averaged,
        spikes=optimisation.spikes,
        begun=task.stage is not None,
    )


def _first_state(init: Callable[..., TrainState], task: Task, shardings: TrainState) -> TrainState:
    """Return the state of step 0, on the devices."""
    # Run once: optimizing the machine code of random numbers takes far longer than drawing them.
    quick = {"xla_backend_optimization_level": 0}
    start = jax.jit(init, out_shardings=shardings, compiler_options=quick)
    if task.pretrained is None:
        return start()
    return start(loaded=task.load(shardings.params, shardings.buffers))


def _step(seed: int, task: Task, optimisation: Optimisation, devices: Devices, augment: Augment) -> Step:
    return make_step(
        task.objective,
        optimisation.optimizer,
        optimisation.schedule,
        seed=seed,
        accumulation=optimisation.accumulation,
        total=optimisation.total_steps,
        per_epoch=optimisation.epoch_steps,
        ema=optimisation.ema,
        frozen=optimisation.frozen,
        augment=augment,
        placement=devices.placement,
        gradient_shardings=devices.gradient_shardings,
        spikes=optimisation.spikes,
    )


def _inspection(
    seed: int, task: Task, optimisation: Optimisation, devices: Devices, augment: Augment
) -> Inspection:
    return make_inspection(
        task.objective,
        seed=seed,
        accumulation=optimisation.accumulation,
        total=optimisation.total_steps,
        per_epoch=optimisation.epoch_steps,
        frozen=optimisation.frozen,
        augment=augment,
        placement=devices.placement,
    )


def _with_sharding(leaf: Any, sharding: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)
