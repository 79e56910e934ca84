"""The mesh of devices and how batches lie on it.

Axes: `data` and `fsdp` both divide the batch; `fsdp` also divides parameters and optimizer state; `tensor`
divides heads and hidden units. See `training.devices.sharding` for the parameters.

`data` is the outermost axis and speaks least: once a step. So it lies across what is connected slowly, the slices of
several TPU pods, and `fsdp` and `tensor` inside, as inside one process's devices elsewhere where they fit.
"""

import itertools
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental.mesh_utils import create_device_mesh, create_hybrid_device_mesh
from jax.sharding import AbstractMesh, AxisType, Mesh, NamedSharding, PartitionSpec

from vit_jax.errors import ConfigError

AXES = ("data", "fsdp", "tensor")
BATCH = PartitionSpec(("data", "fsdp"))


def make_mesh(section: Mapping[str, int], devices: Sequence[Any] | None = None) -> Mesh:
    """Return the mesh of a configuration's `mesh` section.

    Args:
      section: sizes of the axes `data`, `fsdp`, `tensor`; at most one is -1 and takes what is left.
      devices: devices to use; all of them by default.

    Raises:
      ConfigError: a size is not possible, the sizes do not multiply to the number of devices, or slices cannot be
        kept apart.
    """
    devices = jax.devices() if devices is None else devices
    sizes = tuple(section[axis] for axis in AXES)
    for axis, size in zip(AXES, sizes):
        if size != -1 and size < 1:
            raise ConfigError(
                f"mesh.{axis} is {size}; it must be at least 1, or -1 for the remaining devices."
            )
    if sizes.count(-1) > 1:
        raise ConfigError(f"mesh is {_show(sizes)}; only one axis can be -1.")
    left, rest = divmod(len(devices), math.prod(size for size in sizes if size != -1))
    sizes = tuple(left if size == -1 and not rest else size for size in sizes)
    slices = _slices(devices)
    near = "; ".join(_show(near) for near in _nearest(sizes, len(devices), slices))
    if math.prod(sizes) != len(devices):
        raise ConfigError(
            f"mesh is {_show(sizes)}, which does not multiply to {len(devices)} devices; possible are {near}."
        )
    if sizes[0] % slices:
        raise ConfigError(
            f"mesh is {_show(sizes)}, but the {len(devices)} devices are in {slices} slices, and mesh.data must "
            f"be a multiple of that; possible are {near}."
        )
    # Explicit axes, the default, would make every operation of a model state its sharding.
    return Mesh(_arrange(devices, sizes, slices), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def check_batch(batch_size: int, accumulation: int, mesh: Mesh | AbstractMesh, name: str) -> None:
    """Raise `ConfigError` unless a batch divides into microbatches, devices and hosts.

    Args:
      batch_size: examples in a step, over all devices and hosts.
      accumulation: microbatches in a step.
      mesh: the mesh.
      name: the configuration key of the batch size, for the message.
    """
    if accumulation < 1:
        raise ConfigError(f"accumulation is {accumulation}; it must be at least 1.")
    shards = mesh.shape["data"] * mesh.shape["fsdp"]
    if shards % jax.process_count():
        raise ConfigError(
            f"mesh.data * mesh.fsdp is {shards}, not a multiple of the {jax.process_count()} hosts, but each host "
            "reads its own rows; lower mesh.tensor."
        )
    unit = shards * accumulation
    if batch_size < 1 or batch_size % unit:
        below, above = batch_size // unit * unit, (batch_size // unit + 1) * unit
        near = f"{below} or {above}" if below > 0 else f"{above}"
        raise ConfigError(
            f"{name} is {batch_size}; it must be a multiple of {unit} (mesh.data {mesh.shape['data']} * "
            f"mesh.fsdp {mesh.shape['fsdp']} * accumulation {accumulation}), for example {near}."
        )


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Return the sharding of a batch: rows divided over `data` and `fsdp`."""
    return NamedSharding(mesh, BATCH)


def replicated(mesh: Mesh) -> NamedSharding:
    """Return the sharding of what every device holds whole."""
    return NamedSharding(mesh, PartitionSpec())


def shard_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Return a global batch made of what each host has read.

    Args:
      batch: this host's rows, `(b / hosts, ...)` each.
      mesh: the mesh.
    """
    sharding = batch_sharding(mesh)
    # The one transfer that is meant. With several processes, jax does not count it as an explicit one.
    with jax.transfer_guard_host_to_device("allow"):
        return {name: jax.make_array_from_process_local_data(sharding, rows) for name, rows in batch.items()}


def _slices(devices: Sequence[Any]) -> int:
    """Return of how many TPU slices the devices are; other devices have hosts instead, which need not be kept apart."""
    if devices[0].platform != "tpu":
        return 1
    sizes = Counter(getattr(device, "slice_index", 0) for device in devices)
    if len(set(sizes.values())) > 1:
        raise ConfigError(
            f"the {len(devices)} devices are slices of {', '.join(map(str, sizes.values()))} devices; all slices "
            "must have the same size."
        )
    return len(sizes)


def _arrange(devices: Sequence[Any], sizes: tuple[int, ...], slices: int) -> np.ndarray:
    """Return the devices in the mesh's shape, neighbours in the network being neighbours in it."""
    if slices > 1:
        inside = (sizes[0] // slices, *sizes[1:])
        across = (slices, 1, 1)
        return create_hybrid_device_mesh(inside, across, devices, allow_split_physical_axes=True)
    if devices[0].platform == "tpu":
        return create_device_mesh(sizes, devices, allow_split_physical_axes=True)
    by_process = sorted(devices, key=lambda device: device.process_index)
    arranged = np.empty(len(by_process), object)
    arranged[:] = by_process
    return arranged.reshape(sizes)


def _nearest(sizes: tuple[int, ...], devices: int, slices: int, count: int = 4) -> list[tuple[Any, ...]]:
    """Return the factorizations of the number of devices that change least of what was asked."""
    divisors = [size for size in range(1, devices + 1) if devices % size == 0]
    possible = [
        (devices // (fsdp * tensor), fsdp, tensor)
        for fsdp, tensor in itertools.product(divisors, divisors)
        if devices % (fsdp * tensor * slices) == 0
    ]

    def distance(other: tuple[int, ...]) -> tuple[int, float]:
        pairs = [(a, b) for a, b in zip(sizes, other) if a != -1]
        return sum(a != b for a, b in pairs), sum(abs(math.log(a / b)) for a, b in pairs)

    return sorted(possible, key=distance)[:count]


def _show(sizes: Sequence[int]) -> str:
    return " ".join(f"{axis}={size}" for axis, size in zip(AXES, sizes))
