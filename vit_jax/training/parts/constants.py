"""The frozen networks of an objective: teachers and tokenizers, loaded beside the state and never stored with it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
from jax.sharding import Mesh, NamedSharding

from vit_jax import trees
from vit_jax.checkpoints.fingerprint import fingerprint
from vit_jax.errors import ConfigError, argument
from vit_jax.models.registry import model_functions
from vit_jax.objectives.base import Constant, Objective
from vit_jax.random import fold, root
from vit_jax.training.config.model import open_as
from vit_jax.training.devices.sharding import Rules, beside_specs

Load = Callable[[Mapping[str, Any]], Any]  # of shardings by path


@dataclass(frozen=True)
class Network:
    """A frozen network, opened but not loaded.

    Attributes:
      abstract: shapes and dtypes of its parameters, a nested dict.
      load: makes them, given their shardings by path.
      lines: what is told of it.
      config: of its model, which knows how parameters of its own lie on a mesh; None where it is of no family.
    """

    abstract: Any
    load: Load
    lines: tuple[str, ...] = ()
    config: Any = None


@dataclass(frozen=True)
class Constants:
    """The frozen networks of a run on its devices; they are loaded when they are asked for first.

    Attributes:
      networks: by name.
      specs: how each parameter is divided, by path, `NAME/...`.
      mesh: the devices.
    """

    networks: Mapping[str, Network]
    specs: Mapping[str, Any]
    mesh: Mesh

    @cached_property
    def abstract(self) -> dict[str, Any]:
        """Shapes, dtypes and shardings of all parameters, nested by name."""
        whole = {name: network.abstract for name, network in self.networks.items()}
        return trees.map_named(
            lambda path, leaf: jax.ShapeDtypeStruct(
                leaf.shape, leaf.dtype, sharding=NamedSharding(self.mesh, self.specs[path])
            ),
            whole,
        )

    @cached_property
    def values(self) -> dict[str, Any]:
        """Their parameters, nested by name."""
        return {
            name: network.load(
                {path: leaf.sharding for path, leaf in trees.flatten(self.abstract[name]).items()}
            )
            for name, network in self.networks.items()
        }

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """The fingerprint of each; it is kept with every state, and compared when a run goes on."""
        return {name: fingerprint(params) for name, params in self.values.items()}

    @property
    def abstract_arguments(self) -> tuple[Any, ...]:
        """What a step is lowered with after state and batch; nothing where there are no frozen networks."""
        return (self.abstract,) if self.networks else ()

    @property
    def arguments(self) -> tuple[Any, ...]:
        """What a step takes after state and batch."""
        return (self.values,) if self.networks else ()

    @property
    def shardings(self) -> tuple[Any, ...]:
        """Of `arguments`."""
        return jax.tree.map(lambda leaf: leaf.sharding, self.abstract_arguments)

    @property
    def lines(self) -> list[str]:
        """What is told of them at the beginning of a run."""
        return [f"frozen {name}: {line}" for name, network in self.networks.items() for line in network.lines]


def open_networks(objective: Objective, seed: int) -> dict[str, Network]:
    """Return the frozen networks that an objective asks for, by name; none of them is loaded yet.

    Args:
      objective: names them.
      seed: of the run, for those that are made and not loaded.

    Raises:
      VitError: a checkpoint cannot be opened, or holds another model than the objective says.
    """
    return {
        name: _from_checkpoint(name, constant) if constant.source else _made(name, constant, seed)
        for name, constant in objective.constants().items()
    }


def place_networks(networks: Mapping[str, Network], mesh: Mesh, rules: Rules, min_size: int) -> Constants:
    """Return frozen networks where they lie on a mesh, by the same rules as parameters.

    Raises:
      ConfigError: a parameter matches no rule.
    """
    whole = {name: network.abstract for name, network in networks.items()}
    specs = beside_specs(whole, mesh, rules, min_size)
    for path in trees.flatten(whole):
        if path not in specs:
            raise ConfigError(
                f"parameter {path} of a frozen network matches no sharding rule; add (pattern, tactic) to "
                f"sharding.rules, for example ({path + '$'!r}, 'fsdp')."
            )
    return Constants(networks, specs, mesh)


def check_same_networks(before: Mapping[str, str] | None, now: Mapping[str, str]) -> None:
    """Raise `ConfigError` for the first frozen network that is another than the run was trained with.

    Args:
      before: the fingerprints that were saved; None if an earlier version did not.
      now: those of the networks that were loaded.
    """
    for name in {**(before or {}), **now} if before is not None else ():
        old, new = (before or {}).get(name, "none"), now.get(name, "none")
        if old != new:
            raise ConfigError(
                f"frozen network {name!r} differs from the one the run was trained with (fingerprint {old}, now "
                f"{new}); give the original one, or use another {argument('workdir')}."
            )


def _from_checkpoint(name: str, constant: Constant) -> Network:
    pretrained = open_as(constant.source, constant.config, f"frozen network {name!r}", constant.options)
    functions = model_functions(pretrained.config)  # batch statistics are frozen with the parameters
    abstract = trees.flatten(functions.abstract) | trees.flatten(functions.abstract_buffers)
    lines = tuple(pretrained.report.lines())
    return Network(trees.unflatten(abstract), pretrained.params, lines, pretrained.config)


def _made(name: str, constant: Constant, seed: int) -> Network:
    init = constant.init or model_functions(constant.config).init
    key = fold(root(seed), f"constant {name}")

    def load(shardings: Mapping[str, Any]) -> Any:
        return jax.jit(init, out_shardings=trees.unflatten(shardings))(key)

    return Network(jax.eval_shape(partial(init, key)), load, config=constant.config)
