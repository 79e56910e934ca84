"""Google's compiler library, installed on a machine without a TPU, says nothing about what is not there.

jax tries every platform whose library is installed. libtpu, which `vit-jax[plan]` installs to plan runs, then looks for
the workers of a TPU pod, finds none, and prints errors before jax goes on with what there is. Told that it is alone, it
fails as quietly as jax expects. Which devices jax finds stays as it is, on every machine.
"""

import glob
import importlib.util
import os
from collections.abc import Callable, Mapping
from pathlib import Path

ALONE = {"TPU_ACCELERATOR_TYPE": "v5litepod-1", "TPU_WORKER_HOSTNAMES": "localhost"}
_DEVICES = ("/dev/accel[0-9]*", "/dev/vfio/[0-9]*")  # what the drivers of TPUs make
_PCI = "/sys/bus/pci/devices"
_GOOGLE = "0x1ae0"
_OTHER_GOOGLE = ("0x01", "0x02")  # PCI classes of the virtual disks and networks of Google's machines


def quiet_environment(
    environment: Mapping[str, str], has_tpu: Callable[[], bool], has_library: Callable[[], bool]
) -> dict[str, str]:
    """Return variables to set before jax looks for devices; none where a TPU may be, or where somebody chose already.

    Args:
      environment: of this process.
      has_tpu: says whether this machine may have a TPU.
      has_library: says whether libtpu is installed.
    """
    chosen = any(environment.get(name) for name in ("JAX_PLATFORMS", "JAX_FORCE_TPU_INIT", *ALONE))
    if chosen or not has_library() or has_tpu():
        return {}
    return ALONE


def may_have_tpu(root: str = "/") -> bool:
    """Return whether this machine has a TPU, or something that could be one; a GPU or a network card is none.

    Args:
      root: of the file system.
    """
    if any(glob.glob(root.rstrip("/") + pattern) for pattern in _DEVICES):
        return True
    for device in glob.glob(f"{root.rstrip('/')}{_PCI}/*"):
        try:
            vendor, kind = ((Path(device) / name).read_text().strip() for name in ("vendor", "class"))
        except OSError:  # removed in between, or not for us to see
            continue
        if vendor == _GOOGLE and not kind.startswith(_OTHER_GOOGLE):
            return True
    return False


def silence() -> None:
    """Set the variables for this process and those it starts."""
    os.environ.update(
        quiet_environment(os.environ, may_have_tpu, lambda: importlib.util.find_spec("libtpu") is not None)
    )
