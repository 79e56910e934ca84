"""Devices that are not here: TPU slices as Google's compiler library describes them (`pip install vit-jax[plan]`)."""

import importlib.util
import os
from typing import Any

from vit_jax.errors import ConfigError
from vit_jax.planning.chips import Hardware

# Read when jax and the compiler library are loaded: so that neither looks for a TPU or its metadata server.
ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def prepare_environment() -> None:
    """Set the environment that planning needs; to be called before jax is imported.

    Raises:
      ConfigError: the compiler library is not installed.
    """
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            "vit-jax plan compiles with libtpu, which is not installed; pip install 'vit-jax[plan]' (no TPU is needed)."
        )
    os.environ.update(ENVIRONMENT)


def absent_devices(hardware: Hardware) -> list[Any]:
    """Return the devices of hardware that is not here, as a true torus where the real slice is one.

    Raises:
      ConfigError: the installed compiler library does not know the hardware.
    """
    from jax.experimental.topologies import get_topology_desc

    sides = hardware.sides
    bounds = (1, 1, 1) if sides == (1, 1) else (2, 2, 1)
    options: dict[str, Any] = {
        "chip_config_name": "megacore" if hardware.chip.cores == 2 else "default",
        "chips_per_host_bounds": bounds,
        "num_slices": hardware.slices,
        # Left out, the slice would have no links between its ends, and other collectives than the real one.
        "wrap": (*hardware.wraps, False)[:3],
    }
    try:
        topology = get_topology_desc(platform="tpu", topology_name=hardware.topology, **options)
    except Exception as error:  # jax raises whatever the library returns, as errors of many kinds
        raise ConfigError(
            f"--hardware {hardware.name}: the installed libtpu knows no {hardware.topology}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    return list(topology.devices)
