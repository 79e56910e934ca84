"""How a process that computes on CPUs gets its memory; set by `vit-jax` before anything else is done.

XLA takes the temporary arrays of a program as one block and gives it back after every run. glibc maps such a block anew
each time, so that the kernel has to hand out and clear every page of it again: of a training step on two cores that
was a fifth of the time (docs/performance.md). With these settings freed memory stays with the process, all threads
take from one heap, and the heap consists of huge pages where the kernel offers them on request. glibc reads them when
a process starts, so the command starts itself again, before it has imported anything.
"""

import glob
import os
import sys
from collections.abc import Mapping

TUNABLES = "GLIBC_TUNABLES"
SETTINGS = {
    "glibc.malloc.mmap_max": "0",
    "glibc.malloc.trim_threshold": str(2**40),
    "glibc.malloc.arena_max": "1",
    "glibc.malloc.hugetlb": "1",
}
_ACCELERATORS = ("/dev/nvidia[0-9]*", "/dev/kfd", "/dev/accel[0-9]*", "/dev/vfio/[0-9]*")
_OLDEST = (2, 35)  # the first glibc that knows huge pages


def tuned(environment: Mapping[str, str]) -> dict[str, str] | None:
    """Return the environment to start this process again with, or None if it is to stay as it is.

    It stays where these settings are not known to help or to be understood: with an accelerator, without glibc, and
    where `GLIBC_TUNABLES` says something already, also nothing: set to nothing, it turns all this off.

    Args:
      environment: of this process.
    """
    if TUNABLES in environment or not _is_glibc() or not _on_cpu(environment):
        return None
    return {**environment, TUNABLES: ":".join(f"{name}={value}" for name, value in SETTINGS.items())}


def start_tuned() -> None:
    """Start this process again with the settings, if they help and it was started as a command; else do nothing."""
    environment = tuned(os.environ)
    if environment is not None and sys.orig_argv:
        sys.stdout.flush()
        sys.stderr.flush()
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def _is_glibc() -> bool:
    try:
        name, _, version = (os.confstr("CS_GNU_LIBC_VERSION") or "").partition(" ")
        return name == "glibc" and tuple(map(int, version.split(".")[:2])) >= _OLDEST
    except (AttributeError, ValueError, OSError):  # not on this system
        return False


def _on_cpu(environment: Mapping[str, str]) -> bool:
    platforms = environment.get("JAX_PLATFORMS", "")
    if platforms:
        return platforms.split(",")[0] == "cpu"
    return not any(glob.glob(pattern) for pattern in _ACCELERATORS)
