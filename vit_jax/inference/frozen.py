"""The frozen networks that predictions need: those of training that `predict` asks for, and no others."""

from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np

from vit_jax import trees
from vit_jax.objectives.base import Moment, Objective
from vit_jax.training.parts.constants import open_networks


class _Noted(Mapping[str, Any]):
    """A mapping that remembers what was taken from it."""

    def __init__(self, values: Mapping[str, Any]):
        self.taken: set[str] = set()
        self._values = values

    def __getitem__(self, name: str) -> Any:
        value = self._values[name]
        self.taken.add(name)
        return value

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)


def at_end(objective: Objective, steps: int, frozen: Mapping[str, Any]) -> Objective:
    """Return the objective as it is after its last step.

    Args:
      objective: what was trained.
      steps: how many updates were made.
      frozen: parameters of its frozen networks, by name.
    """
    return objective.at(Moment(np.int32(steps), max(steps, 1), max(steps, 1), frozen))


def frozen_of(objective: Objective, steps: int, shape: tuple[int, ...], seed: int) -> dict[str, Any]:
    """Return the parameters of the frozen networks that an objective's `predict` takes, by name, on one device.

    Args:
      objective: what was trained.
      steps: how many updates were made.
      shape: of an image.
      seed: of the run, for networks that are made and not loaded.

    Raises:
      VitError: a checkpoint of one cannot be read.
    """
    if not objective.constants():
        return {}
    networks = open_networks(objective, seed)
    noted: list[_Noted] = []

    def predict(key: jax.Array, images: jax.Array, frozen: Any) -> Any:
        noted.append(_Noted(frozen))
        return at_end(objective, steps, noted[-1]).predict(*objective.init(key), {"image": images})

    images = jax.ShapeDtypeStruct((1, *shape), "uint8")
    abstract = {name: network.abstract for name, network in networks.items()}
    jax.eval_shape(predict, jax.random.key(0), images, abstract)
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    return {
        name: networks[name].load(dict.fromkeys(trees.flatten(abstract[name]), device))
        for name in sorted(noted[-1].taken)
    }
