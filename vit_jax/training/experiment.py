"""From a configuration to everything a run needs, checked, before anything is compiled or allocated."""

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import jax
import numpy as np
import optax
from jax.sharding import NamedSharding

from vit_jax import trees
from vit_jax.compiler_options import Options, overlap_options, prediction_options, training_options
from vit_jax.data.base import Source, balanced
from vit_jax.data.pipeline import Batches, eval_batches, train_batches
from vit_jax.data.reader import SKIPPED, BatchReader, batch_records
from vit_jax.data.section import mixture_parts
from vit_jax.data.sources import cached, open_mixture, open_source
from vit_jax.data.transforms.base import Transform
from vit_jax.data.transforms.defaults import default_transforms
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError, DataError
from vit_jax.evaluation.baselines import check_baselines
from vit_jax.models.lora import Lora
from vit_jax.models.placement import Placement
from vit_jax.models.vit_config import ViTConfig
from vit_jax.objectives.adapted import Adapted
from vit_jax.objectives.base import Batch, DataInfo, Objective
from vit_jax.objectives.options import parse_options
from vit_jax.objectives.registry import build_objective
from vit_jax.training import durations
from vit_jax.training.defaults import Config
from vit_jax.training.inspection import Inspection, make_inspection
from vit_jax.training.mesh import BATCH, batch_sharding, check_batch, make_mesh, shard_batch
from vit_jax.training.model import resolve_model
from vit_jax.training.optimizer import make_optimizer, treatments
from vit_jax.training.replication import check_replicated, notes
from vit_jax.training.schedule import Schedule, make_schedule
from vit_jax.training.sharding import RULES, divided_specs, parameter_specs, placements, state_shardings
from vit_jax.training.spikes import SpikeRule
from vit_jax.training.state import TrainState, init_state
from vit_jax.training.step import Ema, Step, make_step

if TYPE_CHECKING:
    from vit_jax.weights.load import Pretrained

EVERY = ("evaluation", "checkpoint", "log")
Report = Callable[[str], None]


@dataclass(frozen=True)
class Experiment:
    """What a run is made of; nothing here has been compiled, and no parameter exists yet.

    Attributes:
      config: as given.
      model: the model that is trained.
      pretrained: the checkpoint that its parameters start from, opened but not read; None for fresh ones.
      objective: what it is trained for.
      train_source, eval_source: the records.
      fields: what the training transforms leave of a record, by name, beside the label.
      total_steps: length of the run.
      eval_every, save_every, log_every: steps between evaluations, checkpoints and lines of metrics.
      mesh: the devices.
      placement: what the model is told of them.
      schedule: learning rate by step.
      optimizer: makes updates.
      init: makes the state of step 0.
      step: one update.
      inspection: where in a step the numbers are not finite.
      abstract_state: shapes and dtypes of the state, with their shardings.
      sharding_notes: dimensions of parameters that should have been divided over devices and could not.
    """

    config: Config
    model: ViTConfig
    pretrained: "Pretrained | None"
    objective: Objective
    train_source: Source
    eval_source: Source
    fields: Mapping[str, jax.ShapeDtypeStruct]
    total_steps: int
    eval_every: int
    save_every: int
    log_every: int
    mesh: jax.sharding.Mesh
    placement: Placement
    schedule: Schedule
    optimizer: optax.GradientTransformation
    init: Callable[[], TrainState]
    step: Step
    inspection: Inspection
    abstract_state: TrainState
    sharding_notes: tuple[str, ...]

    @property
    def step_options(self) -> Options:
        """The compiler's options for the step."""
        options = training_options(self._device.platform, self.model.dtype, self.model.mlp_dim)
        if self.config.sharding.overlap and self.mesh.shape["fsdp"] > 1:
            options |= overlap_options(self._device.device_kind)
        return options

    @property
    def evaluation_options(self) -> Options:
        """The compiler's options for evaluation."""
        return prediction_options(self._device.platform, self.model.dtype)

    @property
    def _device(self) -> Any:
        return self.mesh.devices.flat[0]

    def train_batches(self, start_step: int, report: Report | None = None) -> Batches:
        """Return an iterator of this host's training batches from `start_step` on, always the same.

        Its `close()` ends the threads or processes that read ahead. `report` is told of records that are skipped.
        """
        data = self.config.data
        return train_batches(
            self.train_source,
            parse(self.transforms[0]),
            data.batch_size,
            self.config.seed,
            start_step,
            image_shape=self._image_shape(),
            num_classes=self.train_source.num_classes,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_threads=data.num_threads,
            num_workers=data.num_workers,
            prefetch=data.prefetch,
            repeats=data.repeats,
            skip_bad=data.bad_records == "skip",
            max_bad_share=data.max_bad_share,
            report=report,
        )

    def batch_records(self, number: int) -> np.ndarray:
        """Return which records of `train_source` the rows of step `number`, from 1, have over all hosts."""
        data = self.config.data
        return batch_records(self.train_source, number - 1, data.batch_size, self.config.seed, data.repeats)

    def eval_batches(self) -> Generator[Batch, None, None]:
        """Yield the evaluation records as masked global batches on the devices, each record once."""
        batches = eval_batches(
            self.eval_source,
            parse(self.transforms[1]),
            self.eval_batch_size,
            image_shape=self._image_shape(),
            num_classes=self.train_source.num_classes,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
            num_threads=self.config.data.num_threads,
            skip_bad=self.config.data.eval_bad_records == "skip",
            max_bad_share=self.config.data.max_bad_share,
        )
        with closing(batches):
            for batch in batches:
                yield shard_batch(batch, self.mesh)

    @property
    def eval_batch_size(self) -> int:
        """Rows of an evaluation batch over all devices."""
        return self.config.data.eval_batch_size or self.config.data.batch_size

    def abstract_batch(self) -> Any:
        """Return shapes, dtypes and shardings of a training batch."""
        rows, sharding = self.config.data.batch_size, batch_sharding(self.mesh)
        fields = {**self.fields, "label": jax.ShapeDtypeStruct((), np.int32)}
        return {
            name: jax.ShapeDtypeStruct((rows, *field.shape), field.dtype, sharding=sharding)
            for name, field in fields.items()
        }

    @property
    def transforms(self) -> tuple[str, str]:
        """What happens to training and to evaluation images, as configurations write it."""
        return transform_specs(self.config, self.model, self.train_source, self.eval_source)

    def _image_shape(self) -> tuple[int, int, int]:
        return (*self.model.image_size, self.model.in_channels)


def transform_specs(
    config: Config, model: ViTConfig, train_source: Source, eval_source: Source
) -> tuple[str, str]:
    """Return the training and evaluation transforms of a configuration, or what the sources need where it says none.

    `{size}`, `{channels}` and `{interpolation}` in them stand for the model's: so they go with any checkpoint.
    """
    default = partial(default_transforms, model.preprocessing, model.image_size, model.in_channels)
    meanings = {
        "{size}": str(model.image_size),
        "{channels}": str(model.in_channels),
        "{interpolation}": repr(model.preprocessing.interpolation),
    }
    train, evaluation = config.data.train_transforms, config.data.eval_transforms
    for word, meaning in meanings.items():
        train, evaluation = train.replace(word, meaning), evaluation.replace(word, meaning)
    return train or default(train_source)[0], evaluation or default(eval_source)[1]


def build(
    config: Config,
    sources: tuple[Source, Source] | None = None,
    *,
    devices: Sequence[Any] | None = None,
    earlier: Mapping[str, Any] | None = None,
) -> Experiment:
    """Return the experiment of a configuration.

    Args:
      config: a checked configuration, see `training.config`.
      sources: records to train on and to evaluate on, instead of those the configuration names.
      devices: what to run on; all devices by default.
      earlier: the model of the run that is continued or evaluated, see `training.model`.

    Raises:
      VitError: configuration, data and devices do not go together; nothing has been compiled by then.
    """
    devices = jax.devices() if devices is None else devices
    platform = devices[0].platform
    model, pretrained = resolve_model(config, None, earlier, platform)
    train_source, eval_source = sources or _open_sources(config, model)
    _check_sources(train_source, eval_source)
    check_baselines(config.evaluation.baselines, train_source, eval_source)
    info = data_info(train_source)
    if model.num_classes != info.num_classes:
        model, pretrained = resolve_model(config, info.num_classes, earlier, platform)
    objective = build_objective(parse_options(config.objective.to_dict()), model, info)
    if config.lora.rank:
        objective = Adapted(objective, Lora(**config.lora.to_dict()))
    specs = transform_specs(config, model, train_source, eval_source)
    first = partial(_first, model=model, num_classes=info.num_classes)
    example = first(train_source, parse(specs[0], "data.train_transforms"), config.data.bad_records)
    evaluated = first(eval_source, parse(specs[1], "data.eval_transforms"), config.data.eval_bad_records)
    for name, fields in (("data.train_transforms", example), ("data.eval_transforms", evaluated)):
        if "image" not in fields:
            left = ", ".join(sorted(fields.keys() - {"label", "mask", SKIPPED}))
            raise ConfigError(
                f"{name} leave {left} and no image, which objective {config.objective.name!r} needs; leave out "
                "multi_crop."
            )
    if config.data.balanced:
        train_source = balanced(train_source)

    mesh = make_mesh(config.mesh, devices)
    check_batch(config.data.batch_size, config.accumulation, mesh, "data.batch_size")
    check_batch(config.data.eval_batch_size or config.data.batch_size, 1, mesh, "data.eval_batch_size")

    total_steps = _at_least_one(_steps(config, len(train_source), None), config.duration, "duration")
    resolve = _steps(config, len(train_source), total_steps)
    every = {name: _at_least_one(resolve, config[name].every, f"{name}.every") for name in EVERY}
    schedule = make_schedule(config.schedule, config.optimizer.learning_rate, total_steps, resolve)
    abstract_params = jax.eval_shape(objective.init, jax.random.key(0))[0]
    optimizer = make_optimizer(config.optimizer, schedule, abstract_params)
    ema = Ema(config.ema.decay, config.ema.warmup) if config.ema.decay else None

    frozen = {path for path, how in treatments(config.optimizer, abstract_params).items() if how.frozen}
    spikes = None
    if config.divergence.spike_deviations:
        spikes = SpikeRule(config.divergence.spike_deviations, config.divergence.spike_window)
    init = partial(init_state, objective, optimizer, config.seed, ema is not None, spikes=spikes)
    table = abstract_params, mesh, (*config.sharding.rules, *RULES), config.sharding.min_size
    check_replicated(*table, config.sharding.max_replicated)
    divided = divided_specs(*table) if config.sharding.zero1 else None
    param_specs = parameter_specs(*table)
    shardings = state_shardings(jax.eval_shape(init), param_specs, mesh, divided)
    abstract_state = jax.tree.map(
        lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
        jax.eval_shape(init),
        shardings,
    )
    # Each device needs of a gradient what it has of the optimizer's state.
    gradient_shardings = None
    if divided is not None:
        gradient_shardings = {path: NamedSharding(mesh, spec) for path, spec in divided.items()}
    placement = Placement(
        mesh=mesh,
        rows=BATCH[0],
        gathered="fsdp",
        heads="tensor",
        specs=trees.flatten(param_specs),
        shapes={path: leaf.shape for path, leaf in trees.flatten(abstract_params).items()},
    )
    step = make_step(
        objective,
        optimizer,
        schedule,
        seed=config.seed,
        accumulation=config.accumulation,
        ema=ema,
        frozen=frozen,
        placement=placement,
        gradient_shardings=gradient_shardings,
        spikes=spikes,
    )
    inspection = make_inspection(
        objective, seed=config.seed, accumulation=config.accumulation, frozen=frozen, placement=placement
    )
    # Run once: optimizing the machine code of random numbers takes far longer than drawing them.
    quick = {"xla_backend_optimization_level": 0}
    start = jax.jit(init, out_shardings=shardings, compiler_options=quick)

    def first_state() -> TrainState:
        where = trees.flatten(shardings.params)
        return start() if pretrained is None else start(loaded=pretrained.params(where))

    return Experiment(
        config=config,
        model=objective.model,
        pretrained=pretrained,
        objective=objective,
        train_source=train_source,
        eval_source=eval_source,
        fields={
            name: jax.ShapeDtypeStruct(rows.shape[1:], rows.dtype)
            for name, rows in example.items()
            if name not in ("label", "mask", SKIPPED)
        },
        total_steps=total_steps,
        eval_every=every["evaluation"],
        save_every=every["checkpoint"],
        log_every=every["log"],
        mesh=mesh,
        placement=placement,
        schedule=schedule,
        optimizer=optimizer,
        init=first_state,
        step=step,
        inspection=inspection,
        abstract_state=abstract_state,
        sharding_notes=tuple(notes(abstract_params, placements(*table))),
    )


def data_info(source: Source) -> DataInfo:
    """Return what an objective may know about a source."""
    counts = None
    if source.labels is not None:
        counts = tuple(np.bincount(source.labels, minlength=source.num_classes).tolist())
    return DataInfo(source.num_classes, tuple(source.class_names), counts)


def _open_sources(config: Config, model: ViTConfig) -> tuple[Source, Source]:
    data, channels = config.data, model.in_channels
    shape = {"image_size": model.image_size, "channels": channels, "num_classes": model.num_classes}
    if data.mixture:
        train = open_mixture(mixture_parts(data.mixture), **shape)
    else:
        train = open_source(data, data.train_split, **shape)
    evaluation = open_source(data, data.eval_split, **shape)
    return cached(train, data.cache, channels), cached(evaluation, data.cache, channels)


def _check_sources(train_source: Source, eval_source: Source) -> None:
    for source, split in ((train_source, "train"), (eval_source, "eval")):
        if not len(source):
            raise DataError(f"the data to {split} on has no records; check data.{split}_split.")
    names, known = eval_source.class_names, train_source.class_names
    if names != known[: len(names)]:
        odd = next(name for i, name in enumerate(names) if known[i : i + 1] != (name,))
        raise DataError(
            f"class {names.index(odd)} of the data to evaluate on is {odd!r}, but training has "
            f"{', '.join(known[:5])}{', ...' * (len(known) > 5)}; both need the same classes in the same order."
        )


def _first(
    source: Source, transforms: Sequence[Transform], policy: str, model: ViTConfig, num_classes: int
) -> dict[str, np.ndarray]:
    """Return a batch of the first records alone: so mistakes in transforms and images show at once."""
    rows = min(8, len(source)) if policy == "skip" else 1  # one of which can be read
    shape = (*model.image_size, model.in_channels)
    reader = BatchReader(
        source, transforms, rows, image_shape=shape, num_classes=num_classes, skip_bad=policy == "skip"
    )
    return reader(0)


def _at_least_one(resolve: Callable[..., int], value: Any, name: str) -> int:
    steps = resolve(value, name=name)
    if not steps:
        raise ConfigError(f"{name} is {value!r}; it must be at least one step.")
    return steps


def _steps(config: Config, examples: int, total_steps: int | None) -> Callable[..., int]:
    return partial(
        durations.steps, batch_size=config.data.batch_size, examples=examples, total_steps=total_steps
    )
