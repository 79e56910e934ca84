"""Runs of several processes on this machine: started together, bounded in time, never left behind."""

import os
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.compiling import quickly
from tests.runs import keeping

TIMEOUT = 240  # seconds: a job takes about ten, and more on a loaded machine
ROOT = Path(__file__).parents[2]
DRIVER = (sys.executable, "-m", "tests.multihost.driver")
TRAIN = (sys.executable, "-m", "vit_jax.cli", "train")


@dataclass(frozen=True)
class Ended:
    """How one process of a job ended."""

    status: int
    out: str
    err: str


def run_job(command, processes, devices, *, each=(), cache=None):
    """What every process of a job said, started with the flags that tell it which it is.

    Args:
      command: the same for all.
      processes, devices: how many processes, and simulated devices of each.
      each: further arguments for each process, in order.
      cache: folder for compiled programs, if equal ones are needed again.
    """
    with job(command, processes, devices, each=each, cache=cache) as running:
        return outcomes(running)


@contextmanager
def job(command, processes, devices, *, each=(), cache=None):
    """The processes of a job; those that still run at the end are killed."""
    address = f"localhost:{free_port()}"
    running = []
    try:
        for index in range(processes):
            flags = [f"--process-count={processes}"]
            if processes > 1:
                flags += [f"--coordinator={address}", f"--process-index={index}"]
            own = each[index] if each else ()
            running.append(
                subprocess.Popen(
                    [*map(str, command), *flags, *own],
                    cwd=ROOT,
                    env=environment(devices, cache),
                    text=True,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                )
            )
        yield running
    finally:
        for process in running:
            process.kill()
            process.communicate()


def outcomes(running):
    """How each process ended, all within the time of one."""
    until = time.monotonic() + TIMEOUT
    ended = []
    for process in running:
        out, err = process.communicate(timeout=max(1, until - time.monotonic()))
        ended.append(Ended(process.returncode, out, err))
    return ended


def environment(devices, cache):
    """As for the tests themselves, but with another number of devices."""
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    ours = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": quickly(devices), "PYTHONPATH": path}
    return {**os.environ, **ours, **(keeping(cache) if cache else {})}


def free_port():
    """A port that nobody listens on now."""
    with socket.socket() as taken:
        taken.bind(("localhost", 0))
        return taken.getsockname()[1]
