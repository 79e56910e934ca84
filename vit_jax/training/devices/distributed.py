"""Which processes make a run, and how they find each other: flags, SLURM, Open MPI, TPU pods on GKE and Compute Engine.

`jax.distributed` does the work. What is decided here, from the environment, is whether there is more than one
process at all, so that a single machine never waits for anybody. Needs no jax before there are several.
"""

import os
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from queue import Empty, Queue

from vit_jax.errors import ConfigError, PeerError, ResourceError

VARIABLES = {
    "coordinator": "VIT_JAX_COORDINATOR",
    "process_count": "VIT_JAX_PROCESS_COUNT",
    "process_index": "VIT_JAX_PROCESS_INDEX",
}
CONNECT_TIMEOUT = 120  # seconds, for all processes to come
HEARTBEAT_TIMEOUT = 30  # seconds until a process that has gone silent counts as lost
SHUTDOWN_TIMEOUT = 15  # seconds that those who are done wait for the others
METADATA = "http://metadata.google.internal/computeMetadata/v1/instance/attributes/worker-network-endpoints"
METADATA_TIMEOUT = 3  # seconds; the server is on the same machine


@dataclass(frozen=True)
class Cluster:
    """Several processes, and who knows about them.

    Attributes:
      source: where the numbers come from, for messages.
      method: how jax finds the others, a `cluster_detection_method`; None when everything is given here.
      coordinator, count, index: address of process 0, number of processes, and which this one is; None for what jax
        finds out.
    """

    source: str
    method: str | None = None
    coordinator: str | None = None
    count: int | None = None
    index: int | None = None


def initialize_distributed(
    coordinator: str | None = None,
    process_count: int | None = None,
    process_index: int | None = None,
    *,
    timeout: int = CONNECT_TIMEOUT,
) -> None:
    """Join the other processes of this run, if there are any; to be called before anything uses a device.

    Arguments that are not given come from `VIT_JAX_COORDINATOR`, `VIT_JAX_PROCESS_COUNT` and
    `VIT_JAX_PROCESS_INDEX`; where those are not set either, from SLURM, Open MPI or the TPU pod this runs on.
    With a single process it does nothing; a count of 1 keeps the processes of a job apart.

    Args:
      coordinator: `HOST:PORT` of process 0, a free port there.
      process_count: how many processes there are.
      process_index: which this is, from 0.
      timeout: seconds to wait for all processes to come.

    Raises:
      ConfigError: the arguments do not go together, or devices are in use already.
      PeerError: not all processes came in time.
    """
    cluster = find_cluster(coordinator, process_count, process_index, os.environ)
    if cluster is None:
        return
    import jax

    if jax.distributed.is_initialized():
        return
    # In time jax would abort the whole process without an exception. So it gets more time than is waited for it here.
    connect = partial(
        jax.distributed.initialize,
        coordinator_address=cluster.coordinator,
        num_processes=cluster.count,
        process_id=cluster.index,
        cluster_detection_method=cluster.method or "deactivate",
        initialization_timeout=3 * timeout,
        heartbeat_timeout_seconds=HEARTBEAT_TIMEOUT,
        shutdown_timeout_seconds=SHUTDOWN_TIMEOUT,
    )
    try:
        _within(timeout, connect)
    except (RuntimeError, ValueError, TimeoutError) as error:
        reason = " ".join(str(error).split())
        if "must be called before" in reason:
            raise ConfigError(
                "the processes of a run must connect before anything uses a device; call "
                "vit_jax.initialize_distributed() first."
            ) from error
        raise PeerError(
            f"not all processes joined within {timeout} s ({cluster.source}): {reason[:200]}. Start all of them "
            "at the same time, and make sure that the coordinator's port is free on its host and reachable from "
            "the others."
        ) from error
    # What jax's own functions would say, without starting the devices for it.
    from jax._src.distributed import global_state

    print(
        f"vit-jax: process {global_state.process_id} of {global_state.num_processes} ({cluster.source})",
        file=sys.stderr,
    )


def _within(timeout: int, action: Callable[[], None]) -> None:
    """Run an action that cannot be interrupted; raise what it raises, or TimeoutError."""
    outcome: Queue[BaseException | None] = Queue()

    def run() -> None:
        try:
            action()
        except BaseException as error:
            outcome.put(error)
        else:
            outcome.put(None)

    threading.Thread(target=run, daemon=True).start()
    try:
        error = outcome.get(timeout=timeout)
    except Empty:
        raise TimeoutError("no answer") from None
    if error is not None:
        raise error


def find_cluster(
    coordinator: str | None, count: int | None, index: int | None, environment: Mapping[str, str]
) -> Cluster | None:
    """Return the cluster this process belongs to, or None when it is alone; see `initialize_distributed`.

    Raises:
      ConfigError: what is given does not go together.
    """
    given = {"coordinator": coordinator, "process_count": count, "process_index": index}
    for name, variable in VARIABLES.items():
        if given[name] is None and environment.get(variable):
            given[name] = environment[variable]
    if any(value is not None for value in given.values()):
        return _explicit(given)
    # As jax detects them, and in its order.
    if environment.get("OMPI_MCA_orte_hnp_uri") and _several(environment, "OMPI_COMM_WORLD_SIZE"):
        return Cluster("Open MPI", "ompi")
    if environment.get("SLURM_STEP_NODELIST") and _several(environment, "SLURM_NTASKS"):
        return Cluster("SLURM", "slurm")
    return _tpu_pod(environment)


def _explicit(given: Mapping[str, str | int | None]) -> Cluster | None:
    """Return the cluster that flags or our own variables describe."""
    count = _whole_number(given, "process_count")
    if count is not None and count < 1:
        raise ConfigError(f"process count is {count}; it must be at least 1.")
    if count == 1:
        return None
    missing = [name for name, value in given.items() if value is None]
    if missing:
        known = ", ".join(f"{_flag(name)} {value}" for name, value in given.items() if value is not None)
        raise ConfigError(
            f"{known} needs {' and '.join(map(_flag, missing))} as well, or {VARIABLES[missing[0]]} in the "
            "environment."
        )
    index, coordinator = _whole_number(given, "process_index"), str(given["coordinator"])
    assert count is not None
    assert index is not None
    if not 0 <= index < count:
        raise ConfigError(
            f"process index is {index}; with {count} processes it must be from 0 to {count - 1}."
        )
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise ConfigError(
            f"coordinator is {coordinator!r}; it must be HOST:PORT of process 0, for example node0:8476."
        )
    return Cluster(f"coordinator {coordinator}", None, coordinator, count, index)


def _tpu_pod(environment: Mapping[str, str]) -> Cluster | None:
    if environment.get("JAX_PLATFORMS", "tpu").split(",")[0] != "tpu":
        return None
    # jax's own flag: it has looked for chips in this machine, not only for the library.
    from jax._src.cloud_tpu_init import running_in_cloud_tpu_vm

    if not running_in_cloud_tpu_vm:
        return None
    workers = environment.get("TPU_PROCESS_ADDRESSES", environment.get("TPU_WORKER_HOSTNAMES"))
    several_slices = _several(environment, "MEGASCALE_NUM_SLICES")
    if workers is not None:
        return Cluster("TPU pod on GKE", "gketpu") if several_slices or "," in workers else None
    if environment.get("TPU_SKIP_MDS_QUERY"):
        return None
    return Cluster("TPU pod", "gcetpu") if several_slices or "," in _endpoints() else None


def _endpoints() -> str:
    """Return the workers of this TPU slice as the machine's own metadata server lists them."""
    request = urllib.request.Request(METADATA, headers={"Metadata-Flavor": "Google"})
    try:
        with urllib.request.urlopen(request, timeout=METADATA_TIMEOUT) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError:
        return ""  # The server knows no workers: a machine of its own.
    except OSError as error:
        raise ResourceError(
            f"this machine has TPUs, but its metadata server does not say whether it is part of a pod: {error}. Set "
            f"{VARIABLES['process_count']}=1 if it is not."
        ) from error


def _several(environment: Mapping[str, str], variable: str) -> bool:
    value = environment.get(variable, "")
    return value.isdecimal() and int(value) > 1


def _whole_number(given: Mapping[str, str | int | None], name: str) -> int | None:
    value = given[name]
    try:
        return None if value is None else int(value)
    except ValueError:
        raise ConfigError(f"{VARIABLES[name]} is {value!r}; it must be a whole number.") from None


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
