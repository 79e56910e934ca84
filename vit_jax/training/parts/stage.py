"""A stage goes on from all that an earlier run has learned: heads, teachers and centres beside its networks."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import jax

from vit_jax import trees
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.files import locate, read_state, some
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.objectives.base import Objective
from vit_jax.training.config.defaults import Config
from vit_jax.training.config.model import ALL, open_as

if TYPE_CHECKING:
    from vit_jax.weights.load import Pretrained


@dataclass(frozen=True)
class Stage:
    """What a run begins with that goes on from another, opened but not read.

    Attributes:
      networks: of each of the objective's encoders, by where it lies in a state; of another size it is adapted.
      checkpoint: the folder of the step that the rest comes from.
      metadata: of that step.
      rest: paths of everything else, in the state.
    """

    networks: Mapping[str, "Pretrained"]
    checkpoint: Path
    metadata: dict[str, Any]
    rest: tuple[str, ...]

    def load(self, shardings: Mapping[str, Any]) -> dict[str, Any]:
        """Return parameters and buffers by path, as they lie in their trees.

        Args:
          shardings: of all of them, by their paths in the state.
        """
        stored = {name: self.metadata["arrays"][name] for name in self.rest}
        wanted = {
            name: jax.ShapeDtypeStruct(tuple(shape), dtype, sharding=shardings[name])
            for name, (dtype, shape, _) in stored.items()
        }
        some_of_it = {**self.metadata, "arrays": stored}
        found = trees.flatten(read_state(self.checkpoint, "", trees.unflatten(wanted), some_of_it))
        for place, network in self.networks.items():
            below = f"{place}/"
            own = {
                path.removeprefix(below): sharding
                for path, sharding in shardings.items()
                if path.startswith(below)
            }
            found |= {below + path: leaf for path, leaf in trees.flatten(network.params(own)).items()}
        return {path.partition("/")[2]: leaf for path, leaf in found.items()}


def open_stage(section: Config, objective: Objective, kind: str, params: Any, buffers: Any) -> Stage:
    """Return what `model.checkpoint`, a run of the same objective, has learned.

    Args:
      section: `model` of the configuration.
      objective: what is trained.
      kind: the name of its class.
      params, buffers: shapes of what its `init` returns.

    Raises:
      ConfigError: it is no such run, or has other heads.
      CheckpointError: it has no checkpoint.
    """
    from vit_jax.weights.native import is_native
    from vit_jax.weights.remote.fetch import fetch

    source, whose = section.checkpoint, f"model.weights is {ALL!r}"
    path = fetch(source)
    folder, step = locate(path)
    checkpoints = Checkpoints(folder, read_only=True) if is_native(path) else None
    metadata = None if checkpoints is None else _metadata(checkpoints, step, source)
    if checkpoints is None or metadata is None or metadata.get("objective") is None:
        raise ConfigError(
            f"{whose}, but model.checkpoint {source!r} is no training run, which alone has heads and teachers; "
            "leave weights out."
        )
    if metadata["objective"] != kind or not objective.encoders:
        raise ConfigError(
            f"{whose}, but the run {source!r} was trained as {metadata['objective']} and this is {kind}; leave weights "
            "out, so that the model alone is taken."
        )
    state = trees.flatten({"params": params, "buffers": buffers})
    below = tuple(f"{place}/" for place in objective.encoders.values())
    rest = [path for path in state if not path.startswith(below)]
    there = metadata["arrays"]
    other = [path for path in rest if path not in there or tuple(there[path][1]) != state[path].shape]
    if other:
        raise ConfigError(
            f"{whose}, but the run {source!r} has not, or of another shape: {some(other)}; give the objective the "
            "heads of that run, or leave weights out."
        )
    networks = {
        place: open_as(
            source,
            objective.model,
            "model.checkpoint",
            {"ignore": section.get("ignore", ()), "weights": name},
        )
        for name, place in objective.encoders.items()
    }
    return Stage(networks, checkpoints.directory / str(metadata["step"]), metadata, tuple(rest))


def _metadata(checkpoints: Checkpoints, step: int | None, source: str) -> dict[str, Any]:
    found = checkpoints.newest_metadata() if step is None else checkpoints.metadata(step)
    if found is None:
        raise CheckpointError(f"{source} holds no checkpoint yet; train the earlier stage first.")
    return found
