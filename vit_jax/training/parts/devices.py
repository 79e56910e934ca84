"""What it runs on: the mesh, where every array lies on it, and what the compiler is told."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding

from vit_jax import trees
from vit_jax.compiler_options import Options, overlap_options, prediction_options, training_options
from vit_jax.models.families import family_of, sharding_rules
from vit_jax.models.layers.placement import Placement
from vit_jax.objectives.base import Objective
from vit_jax.training.config.defaults import Config
from vit_jax.training.devices.mesh import BATCH, replicated, shard_batch
from vit_jax.training.devices.replication import check_replicated, notes
from vit_jax.training.devices.sharding import (
    RULES,
    beside_specs,
    divided_specs,
    parameter_specs,
    placements,
    state_shardings,
)
from vit_jax.training.parts.constants import Constants, Network, place_networks
from vit_jax.training.state import TrainState


@dataclass(frozen=True)
class Devices:
    """Where a run lies.

    Attributes:
      mesh: the devices.
      placement: what the model is told of them.
      state_shardings: of every array of the state.
      gradient_shardings: of the gradient of each parameter, by path; None leaves it to the compiler.
      step_options: the compiler's options for the step.
      evaluation_options: the compiler's options for evaluation.
      constants: the frozen networks of the objective.
      notes: dimensions of parameters that should have been divided over devices and could not.
    """

    mesh: jax.sharding.Mesh
    placement: Placement
    state_shardings: TrainState
    gradient_shardings: Mapping[str, NamedSharding] | None
    step_options: Options
    evaluation_options: Options
    constants: Constants
    notes: tuple[str, ...]

    @property
    def first(self) -> Any:
        """One of the devices; all are of one kind."""
        return self.mesh.devices.flat[0]

    @property
    def replicated(self) -> NamedSharding:
        """The sharding of what every device holds whole."""
        return replicated(self.mesh)

    def put(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
        """Return a global batch made of what each host has read, on the devices."""
        return shard_batch(batch, self.mesh)


def make_devices(
    mesh: jax.sharding.Mesh,
    section: Config,
    objective: Objective,
    params: Any,
    state: TrainState,
    networks: Mapping[str, Network],
) -> Devices:
    """Return where the arrays of a run lie on a mesh.

    Args:
      mesh: the devices.
      section: `sharding` of the configuration.
      objective: what is trained.
      params: shapes of the parameters, a nested dict.
      state: shapes of the whole state.
      networks: the frozen networks of the objective, by name.

    Raises:
      ConfigError: a parameter matches no rule, or too much would lie whole on every device.
    """
    model = objective.model
    configs = objective.network, *(network.config for network in networks.values())
    own = dict.fromkeys(rule for config in configs for rule in sharding_rules(config))
    rules = mesh, (*section.rules, *own, *RULES), section.min_size
    table = params, *rules
    constants, buffers = place_networks(networks, *rules), beside_specs(state.buffers, *rules)
    check_replicated(*table, section.max_replicated)
    divided = divided_specs(*table) if section.zero1 else None
    specs = parameter_specs(*table)
    device = mesh.devices.flat[0]
    options = training_options(device.platform, model.dtype, family_of(model).widest(model))
    if section.overlap and mesh.shape["fsdp"] > 1:
        options |= overlap_options(device.device_kind)
    placement = Placement(
        mesh=mesh,
        rows=BATCH[0],
        gathered="fsdp",
        heads="tensor",
        specs={
            **trees.flatten(specs),
            **{f"buffers/{path}": spec for path, spec in buffers.items()},
            **{f"constants/{path}": spec for path, spec in constants.specs.items()},
        },
        shapes={
            path: leaf.shape
            for tree in (params, {"buffers": state.buffers, "constants": constants.abstract})
            for path, leaf in trees.flatten(tree).items()
        },
    )
    return Devices(
        mesh=mesh,
        placement=placement,
        state_shardings=state_shardings(state, specs, mesh, divided, buffers),
        # Each device needs of a gradient what it has of the optimizer's state.
        gradient_shardings=(
            None if divided is None else {path: NamedSharding(mesh, spec) for path, spec in divided.items()}
        ),
        step_options=options,
        evaluation_options=prediction_options(device.platform, model.dtype),
        constants=constants,
        notes=tuple(notes(params, placements(*table))),
    )
