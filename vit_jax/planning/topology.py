"""Devices that are not here: TPU slices as Google's compiler library describes them (`pip install vit-jax[plan]`), and
GPUs as a target that jax's CUDA plugin compiles for (`pip install vit-jax[plan-gpu]`)."""

import importlib.util
import os
from importlib import resources
from importlib.metadata import version
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
# So that the plugin neither looks for a GPU nor says that there is none.
GPU_ENVIRONMENT = {"JAX_PLATFORMS": "cpu", "TF_CPP_MIN_LOG_LEVEL": "1"}
_PLUGINS = ("jax_cuda13_plugin", "jax_cuda12_plugin")  # in jax's own order
# The version that the target description names, as cuDNN counts: 9.10.0.
_CUDNN = 91000


def prepare_environment(hardware: Hardware) -> None:
    """Set the environment that planning needs; to be called before jax is imported.

    Args:
      hardware: that is planned for.

    Raises:
      ConfigError: the compiler library is not installed.
    """
    if hardware.chip.gpu:
        _check_plugin(hardware.chip.name)
        os.environ.update(GPU_ENVIRONMENT)
        return
    if importlib.util.find_spec("libtpu") is None:
        raise ConfigError(
            "vit-jax plan compiles with libtpu, which is not installed; run pip install 'vit-jax[plan]' (no TPU "
            "is needed)."
        )
    os.environ.update(ENVIRONMENT)


def _check_plugin(name: str) -> None:
    plugin = next((plugin for plugin in _PLUGINS if importlib.util.find_spec(plugin)), None)
    if plugin is None:
        raise ConfigError(
            f"vit-jax plan compiles for {name} with jax's CUDA plugin, which is not installed; run pip install "
            "'vit-jax[plan-gpu]' (no GPU is needed)."
        )
    wanted, found = version("jaxlib"), version(plugin)
    if wanted != found:
        raise ConfigError(
            f"vit-jax plan compiles for {name} with {plugin}, which is {found} but must be {wanted}, like jaxlib; "
            "run pip install --upgrade 'vit-jax[plan-gpu]'."
        )


def absent_devices(hardware: Hardware) -> list[Any]:
    """Return the devices of hardware that is not here, as a true torus where the real slice is one.

    Raises:
      ConfigError: the installed compiler library does not know the hardware.
    """
    from jax.experimental.topologies import get_topology_desc

    platform, library, name = "tpu", "libtpu", hardware.topology
    if hardware.chip.gpu:
        platform, library, name = "cuda", "CUDA plugin", hardware.chip.name
        options: dict[str, Any] = {
            "topology": hardware.topology,
            "target_config": resources.files("vit_jax.planning").joinpath(f"{name}.pbtxt").read_text(),
        }
        _assume_cudnn()
    else:
        options = {
            "chip_config_name": "megacore" if hardware.chip.cores == 2 else "default",
            "chips_per_host_bounds": (1, 1, 1) if hardware.sides == (1, 1) else (2, 2, 1),
            "num_slices": hardware.slices,
            # Left out, the slice would have no links between its ends, and other collectives than the real one.
            "wrap": (*hardware.wraps, False)[:3],
        }
    try:
        topology = get_topology_desc(platform=platform, topology_name=name, **options)
    except Exception as error:  # jax raises whatever the library returns, as errors of many kinds
        raise ConfigError(
            f"--hardware {hardware.name}: the installed {library} does not know {hardware.topology}: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    return list(topology.devices)


def _assume_cudnn() -> None:
    """Let jax trace attention for cuDNN where that library, of 0.7 GB, is not installed.

    Tracing asks it for nothing but its version, and compiling for a GPU that is not here does not call it at all: the
    compiled programs are the same with it and without.
    """
    for plugin in _PLUGINS:
        if importlib.util.find_spec(plugin):
            versions: Any = importlib.import_module(f"{plugin}._versions")
            try:
                versions.cudnn_get_version()
            except RuntimeError:
                versions.cudnn_get_version = lambda: _CUDNN
