"""What would make a run fit: each remedy tried on its own, by the bytes that can be counted without compiling."""

import math
from collections.abc import Callable, Iterator
from typing import Any

from ml_collections import ConfigDict

from vit_jax.errors import VitError
from vit_jax.planning.chips import FRACTION_VARIABLES, GIB, Hardware
from vit_jax.training.config.defaults import Config
from vit_jax.training.config.load import validate
from vit_jax.training.experiment import Experiment
from vit_jax.training.guard.memory import activation_bytes, state_bytes

Build = Callable[[Config], Experiment]
# As much of a GPU's memory as jax can take: 6 GiB of 79 stay for CUDA itself, NCCL's buffers and libraries.
LARGEST_FRACTION = 0.92


def estimated_bytes(experiment: Experiment) -> int:
    """Return the bytes that a step needs on one chip: state, gradients and what the backward pass keeps.

    An estimate: the compiler may keep less, and needs buffers that are not counted.
    """
    parts = state_bytes(experiment)
    return sum(parts.values()) + parts["params"] + activation_bytes(experiment)


def advise(config: Config, hardware: Hardware, build: Build) -> list[str]:
    """Return one line for each single change with which the run would fit, the cheapest in time first.

    Args:
      config: of the run that does not fit.
      hardware: that it does not fit.
      build: makes the experiment of a changed configuration.
    """
    lines = []
    for kind in (_remats, _accumulations, _meshes, _batches):
        for words, changed in kind(config, hardware):
            try:
                validate(changed)
                needed = estimated_bytes(build(changed))
            except VitError:
                continue  # the change does not go with the configuration
            if needed <= hardware.chip.memory:
                lines.append(f"{words} (about {needed / GIB:.1f} GiB)")
                break
    return lines or ["no single change of remat, accumulation, mesh or batch is enough; use more chips"]


def more_of_the_card(needed: int, hardware: Hardware) -> list[str]:
    """Return the line for a run that would fit if jax took more of a GPU's memory, or nothing.

    Args:
      needed: bytes on one GPU.
      hardware: that they do not fit.
    """
    most = int(LARGEST_FRACTION * hardware.chip.card)
    if not hardware.chip.memory < needed <= most:
        return []
    return [f"{FRACTION_VARIABLES[0]}={LARGEST_FRACTION} in the run's environment ({most / GIB:.1f} GiB)"]


def meshes(config: Config, chips: int) -> list[tuple[int, int, int]]:
    """Return meshes to compare: data and fsdp in powers of 4, without and with a little tensor parallelism."""
    found = []
    for tensor in (1, 4):
        fsdp = 1
        while fsdp * tensor <= chips:
            if chips % (fsdp * tensor) == 0 and config.data.batch_size % (chips // tensor) == 0:
                found.append((chips // (fsdp * tensor), fsdp, tensor))
            fsdp *= 4
    return found


def variants(config: Config, chips: int) -> Iterator[Config]:
    """Yield the configuration with every mesh of `meshes` and every remat policy that is worth comparing."""
    for data, fsdp, tensor in meshes(config, chips):
        for policy in ("none", "dots", "full"):
            mesh = {"data": data, "fsdp": fsdp, "tensor": tensor}
            yield _changed(config, mesh=mesh, model={"remat": policy})


def _changed(config: Config, **changes: Any) -> Config:
    """Return a copy with keys changed; sections are given as dicts of the keys that change."""
    copy: Any = ConfigDict(config.to_dict(), type_safe=False)
    for name, value in changes.items():
        if isinstance(value, dict):
            copy[name].update(value)
        else:
            copy[name] = value
    return copy


def _remats(config: Config, hardware: Hardware) -> Iterator[tuple[str, Config]]:
    for policy in ("attention", "dots", "full"):
        yield f"model.remat={policy}", _changed(config, model={"remat": policy})


def _accumulations(config: Config, hardware: Hardware) -> Iterator[tuple[str, Config]]:
    for count in (2, 4, 8, 16, 32):
        if count > config.accumulation:
            yield f"accumulation={count}", _changed(config, accumulation=count)


def _meshes(config: Config, hardware: Hardware) -> Iterator[tuple[str, Config]]:
    chips = hardware.slices * math.prod(hardware.sides)
    for data, fsdp, tensor in meshes(config, chips):
        words = f"mesh.data={data} mesh.fsdp={fsdp} mesh.tensor={tensor}"
        yield words, _changed(config, mesh={"data": data, "fsdp": fsdp, "tensor": tensor})


def _batches(config: Config, hardware: Hardware) -> Iterator[tuple[str, Config]]:
    size = config.data.batch_size
    while size > 1:
        size //= 2
        yield f"data.batch_size={size}", _changed(config, data={"batch_size": size})
