"""What is learned: the model, the weights it starts from, its objective, and the metric that judges it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import jax
import numpy as np

from vit_jax import trees
from vit_jax.data.reader import shape_message
from vit_jax.errors import ConfigError, DataError
from vit_jax.evaluation.probes.base import Probe
from vit_jax.models.families import family_of, is_config
from vit_jax.models.layers.lora import ROOT, Lora
from vit_jax.models.registry import model_functions
from vit_jax.objectives.adapted import Adapted
from vit_jax.objectives.base import Field, Objective
from vit_jax.objectives.options import parse_options
from vit_jax.objectives.registry import build_objective
from vit_jax.training.config.defaults import Config
from vit_jax.training.config.model import ALL, open_as, which_weights
from vit_jax.training.parts.constants import Network, open_networks
from vit_jax.training.parts.data import Data
from vit_jax.training.parts.monitor import Monitor, make_monitor
from vit_jax.training.parts.probes import make_probes
from vit_jax.training.parts.records import data_info, first_name
from vit_jax.training.parts.stage import Stage, open_stage

if TYPE_CHECKING:
    from vit_jax.weights.load import Pretrained


@dataclass(frozen=True)
class Task:
    """What is learned; no parameter exists yet.

    Attributes:
      model: the model that is trained.
      pretrained: the checkpoint that its parameters start from, opened but not read; None for fresh ones.
      objective: what it is trained for.
      kind: the name of the objective's class.
      probes: what frozen features of the model are asked.
      monitor: the evaluation metric that decides which checkpoint is best, and when to stop.
      params, buffers: shapes and dtypes of what the objective's `init` returns.
      networks: the frozen networks of the objective, by name; none is loaded yet.
      stage: the earlier run that all of them go on from, or None.
    """

    model: Any
    pretrained: "Pretrained | None"
    objective: Objective
    kind: str
    probes: tuple[Probe, ...]
    monitor: Monitor
    params: Any
    buffers: Any
    networks: Mapping[str, Network]
    stage: Stage | None = None

    def load(self, params: Any, buffers: Any) -> Any:
        """Return what the pretrained weights begin with, at its place among parameters and buffers, a nested dict.

        Args:
          params, buffers: trees of shardings.
        """
        assert self.pretrained is not None
        if self.stage is not None:
            whole = {"params": params, "buffers": buffers}
            return trees.unflatten(self.stage.load(trees.flatten(whole)))
        below = _below(self.objective)
        where = {**trees.flatten(buffers), **trees.flatten(params)}
        own = {
            path.removeprefix(below): sharding for path, sharding in where.items() if path.startswith(below)
        }
        flat = trees.flatten(self.pretrained.params(own))
        return trees.unflatten({below + path: leaf for path, leaf in flat.items()})

    @property
    def fresh(self) -> list[str]:
        """The parts of the parameters that pretrained weights say nothing of, as they stand beside the encoder."""
        if self.stage is not None:
            return []
        paths = [path for path in trees.flatten(self.params) if not path.startswith(_below(self.objective))]
        return list(dict.fromkeys(part for path in paths if (part := path.partition("/")[0]) != ROOT))


def make_task(
    config: Config,
    data: Data,
    model: Any,
    pretrained: "Pretrained | None",
    objective: Callable[..., Objective] | None = None,
    *,
    training: bool = True,
) -> Task:
    """Return what a configuration says is to be learned, by its sections `objective`, `lora` and `evaluation`.

    Args:
      config: checked.
      data: what it is learned from.
      model, pretrained: see `training.config.model`.
      objective, training: see `training.experiment.build`.

    Raises:
      ConfigError: model, objective and data do not go together.
    """
    options = parse_options(config.objective.to_dict())
    shapes = {name: field.shape for name, field in data.made.items()} if training else {}
    info = replace(data_info(data.opened[0]), shapes=shapes, records=len(data.opened[0]) if training else 0)
    learned: Objective = build_objective(options, model, info, objective)
    kind = type(learned).__qualname__
    if config.lora.rank:
        if learned.encoders:
            raise ConfigError(
                f"lora.rank is {config.lora.rank}, but objective {config.objective.name!r} trains its model within "
                "something larger, where low-rank factors cannot be found again; set lora.rank=0."
            )
        learned = Adapted(learned, Lora(**config.lora.to_dict()))
    _check_fields(config.objective.name if objective is None else kind, learned, data, training)
    if training:
        learned.refuses(config)
    params, buffers = jax.eval_shape(learned.init, jax.random.key(0))
    if pretrained is not None:
        pretrained = _fitted(pretrained, config.model, learned, params, buffers)
    stage = None
    if pretrained is not None and config.model.get("weights") == ALL:
        stage = open_stage(config.model, learned, kind, params, buffers)
    networks = open_networks(learned, config.seed)
    rows = data.eval_batch_size
    batch = {
        name: jax.ShapeDtypeStruct((rows, *field.shape), field.dtype)
        for name, field in data.eval_fields.items()
    } | {"mask": jax.ShapeDtypeStruct((rows,), np.bool_)}
    probes = make_probes(config.evaluation, *data.opened, learned.model.dtype)
    frozen = {name: network.abstract for name, network in networks.items()}
    monitor = make_monitor(config.evaluation, learned, batch, probes, frozen, every=objective is not None)
    return Task(learned.model, pretrained, learned, kind, probes, monitor, params, buffers, networks, stage)


def _below(objective: Objective) -> str:
    """Return what stands before the paths of an objective's encoder."""
    return f"{objective.encoder}/" if objective.encoder else ""


def _fitted(
    pretrained: "Pretrained", section: Config, objective: Objective, params: Any, buffers: Any
) -> "Pretrained":
    """Return a checkpoint opened as the model that the objective trains, which may lack a head or have other sizes.

    Raises:
      ConfigError: the objective has no such parameters where it says that they are.
    """

    def shapes(model: Any) -> dict[str, tuple[int, ...]]:
        functions = model_functions(model)
        whole = trees.flatten(functions.abstract) | trees.flatten(functions.abstract_buffers)
        return {path: leaf.shape for path, leaf in whole.items()}

    wanted, source = shapes(objective.model), section.checkpoint
    if shapes(pretrained.config) != wanted:
        pretrained = open_as(source, objective.model, "model.checkpoint", which_weights(section))
    held, below = {**trees.flatten(buffers), **trees.flatten(params)}, _below(objective)
    for path, shape in wanted.items():
        if below + path not in held or held[below + path].shape != shape:
            raise ConfigError(
                f"model.checkpoint is {source!r}, but {type(objective).__name__} has no parameter {below + path} "
                f"{shape} to load it into; its `encoder` must be the path of the whole `model`."
            )
    return pretrained


def _check_fields(name: str, objective: Objective, data: Data, training: bool) -> None:
    """Raise `ConfigError` unless records and transforms leave what the objective needs."""
    whose = f"objective {name!r}"
    model = objective.model
    if not objective.any_shape and is_config(model) and family_of(model).budget(model) is not None:
        raise ConfigError(
            f"{whose} needs images of one shape, but model.max_patches lets them keep their own; set max_patches to 0."
        )
    both = (
        ("train", data.train_source, objective.fields, data.made),
        ("eval", data.eval_source, objective.eval_fields, data.eval_fields),
    )
    for work, source, needed, fields in both if training else both[1:]:
        key = f"data.{work}_transforms"
        size = needed.get("image", Field()).shape or data.input_shape
        if "image" in fields and None not in size and fields["image"].shape != size:
            raise DataError(shape_message(first_name(source), fields["image"].shape, size))
        left = ", ".join(sorted(fields.keys() - {"label"}))
        for wanted, field in needed.items():
            if wanted in fields:
                shape, dtype = fields[wanted].shape, fields[wanted].dtype
                if not field.accepts(shape, dtype):
                    raise ConfigError(
                        f"{key} turn {wanted} of {first_name(source)} into {shape} {dtype}, but {whose} needs "
                        f"{field}; change the transforms."
                    )
            elif wanted in source.fields:
                remedy = "leave out multi_crop" if "global_crops" in fields else "change the transforms"
                raise ConfigError(f"{key} leave {left} but no {wanted}, which {whose} needs; {remedy}.")
            else:
                raise ConfigError(
                    f"the {'training' if work == 'train' else 'evaluation'} data has {left} but no {wanted}, which "
                    f"{whose} needs (its first record: {first_name(source)}); choose data that has it, or {key} "
                    "that create it."
                )
