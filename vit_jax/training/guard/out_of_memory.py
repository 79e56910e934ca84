"""Memory that is not enough, in one line: what takes how much, and what would make the run fit."""

import os
import re
import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jax

from vit_jax.errors import ResourceError
from vit_jax.training.experiment import Experiment
from vit_jax.training.guard.memory import activation_bytes, peak_bytes, state_bytes

GIB = 2**30
REMEDIES = 3
WORDS = {
    "params": "parameters",
    "opt_state": "optimizer state",
    "ema": "moving average",
    "buffers": "buffers",
}
_CGROUP = Path("/sys/fs/cgroup/memory.max")


@contextmanager
def memory_errors_explained(experiment: Experiment) -> Iterator[None]:
    """Raise `ResourceError` for what Python, NumPy or XLA say when memory is not enough."""
    try:
        yield
    except MemoryError as error:
        reason = " ".join(str(error).split()) or "an allocation failed"
        raise ResourceError(
            f"this machine's memory, {_size(host_memory())}, is not enough: {reason}. "
            f"{_sentence(_host_remedies(experiment))}"
        ) from error
    except jax.errors.JaxRuntimeError as error:
        text = str(error)
        if "RESOURCE_EXHAUSTED" not in text and "out of memory" not in text.lower():
            raise
        if is_of_fast_memory(text):
            raise fast_memory_error(text) from error
        reason = text.partition("\n")[0].rstrip(".")[:200]
        raise ResourceError(_explanation(experiment, f"memory is not enough ({reason})")) from error


def is_of_fast_memory(text: str) -> bool:
    """Return whether a compiler's error is about the fast memory beside a TPU's units, not about its large one."""
    return "memory space vmem" in text


def fast_memory_error(text: str) -> ResourceError:
    """Return the error for an operation that has no room in a TPU's fast memory, which smaller batches do not help.

    Args:
      text: the compiler's.
    """
    used = re.search(r"Used \S+ of \S+ vmem", text)
    return ResourceError(
        f"the compiler cannot fit one operation into the TPU's fast memory ({used[0] if used else 'vmem'}). "
        "Set sharding.overlap=False, which does not rearrange operations, or model.attention=explicit."
    )


def check_memory(experiment: Experiment, compiled: Any) -> None:
    """Raise `ResourceError` if a compiled step needs more than a device has, as far as that is known.

    Args:
      experiment: that the step is of.
      compiled: the step.
    """
    limit, peak = device_memory(experiment), peak_bytes(compiled)
    if limit is not None and peak > limit:
        raise ResourceError(_explanation(experiment, f"the step needs {_size(peak)}"))


def device_memory(experiment: Experiment) -> int | None:
    """Return the bytes that a device has for us, None where they are not known.

    CPU devices, real or simulated, have the same share of the machine's memory each.
    """
    device = jax.local_devices()[0]
    if device.platform == "cpu":
        here = [
            one for one in experiment.devices.mesh.devices.flat if one.process_index == device.process_index
        ]
        return host_memory() // max(1, len(here))
    stats = device.memory_stats() or {}
    return stats.get("bytes_limit")


def host_memory() -> int:
    """Return the bytes that this process may have: of the machine, of its container, of its own limit."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    own = resource.getrlimit(resource.RLIMIT_AS)[0]
    if own != resource.RLIM_INFINITY:
        limits.append(own)
    if _CGROUP.is_file():
        text = _CGROUP.read_text().strip()
        if text.isdecimal():
            limits.append(int(text))
    return min(limits)


def remedies(experiment: Experiment) -> list[str]:
    """Return changes of the configuration that need less memory on a device, those that cost least first."""
    optimisation, mesh = experiment.optimisation, experiment.devices.mesh.shape
    size, accumulation = experiment.data.batch_size, optimisation.accumulation
    shards = mesh["data"] * mesh["fsdp"]
    found = []
    more = next((n for n in (2, 3, 4, 5, 6, 7, 8) if size % (shards * accumulation * n) == 0), None)
    if more:
        found.append(f"accumulation={accumulation * more} stores 1/{more} of the activations")
    if experiment.task.model.remat != "full":
        found.append("model.remat=full recomputes activations instead of storing them")
    if mesh["data"] > 1:
        found.append(f"mesh.data=1 mesh.fsdp={shards} shards parameters and optimizer state over all devices")
    if more:
        found.append(f"data.batch_size={size // more} needs proportionally less, but changes the training")
    if experiment.devices.mesh.size == 1:
        found.append("more devices with mesh.fsdp shard everything further")
    section = optimisation.section
    if section.first_moment_dtype != "bfloat16" and section.name != "adafactor":
        found.append("optimizer.first_moment_dtype=bfloat16 halves the first moments")
    return found[:REMEDIES]


def _explanation(experiment: Experiment, what: str) -> str:
    """Return in one line what happened on a device, what takes how much of it, and the remedies."""
    with jax.transfer_guard("allow"):
        parts = {
            WORDS[name]: size for name, size in state_bytes(experiment).items() if name in WORDS and size
        }
        parts |= {"gradients": parts["parameters"], "activations about": activation_bytes(experiment)}
    limit = device_memory(experiment)
    has = "whose capacity is not known" if limit is None else f"which has {_size(limit)}"
    kind = experiment.devices.first.device_kind
    shares = ", ".join(f"{name} {_size(size)}" for name, size in parts.items())
    return f"{what} on a device ({kind}, {has}): {shares}. {_sentence(remedies(experiment))}"


def _host_remedies(experiment: Experiment) -> list[str]:
    data = experiment.data.section
    found = []
    if data.cache != "none":
        found.append("data.cache=none keeps no records in memory")
    if data.num_workers:
        found.append(f"data.num_workers={data.num_workers // 2} needs fewer copies of the pipeline")
    if data.prefetch > 1:
        found.append("data.prefetch=1 keeps fewer batches in the queue")
    if data.num_threads > 1:
        found.append(f"data.num_threads={max(1, data.num_threads // 2)} prepares fewer batches at once")
    if experiment.devices.first.platform == "cpu":
        found += remedies(experiment)
    if data.batch_size > 1:
        found.append("a smaller data.batch_size needs proportionally less, but changes the training")
    return found[:REMEDIES]


def _sentence(remedies: list[str]) -> str:
    return f"Any of these helps: {'; '.join(remedies)}."


def _size(size: float) -> str:
    return f"{size / GIB:.2f} GiB" if size >= GIB else f"{size / 2**20:.1f} MiB"
