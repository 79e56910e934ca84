"""How a process knows that it is one of several, and what it says when it cannot meet the others."""

import sys

import pytest

from tests.multihost.jobs import free_port, run_job
from tests.runs import run
from vit_jax.errors import ConfigError, ResourceError
from vit_jax.training.devices import distributed
from vit_jax.training.devices.distributed import Cluster, find_cluster

SLURM = {"SLURM_STEP_NODELIST": "node[0-3]", "SLURM_NTASKS": "4"}
OPEN_MPI = {"OMPI_MCA_orte_hnp_uri": "1;tcp://10.0.0.1:1", "OMPI_COMM_WORLD_SIZE": "2"}
GIVEN = {"VIT_JAX_COORDINATOR": "a:1", "VIT_JAX_PROCESS_COUNT": "4", "VIT_JAX_PROCESS_INDEX": "3"}


@pytest.fixture
def tpu(monkeypatch):
    """A machine with TPUs, whose metadata server lists these workers."""
    workers = []

    def endpoints():
        assert workers, "nobody is to be asked"
        return workers[0]

    monkeypatch.setattr("jax._src.cloud_tpu_init.running_in_cloud_tpu_vm", True)
    monkeypatch.setattr(distributed, "_endpoints", endpoints)
    return workers


@pytest.mark.parametrize(
    "environment",
    [
        {},
        {"SLURM_NTASKS": "4"},  # a batch script, not yet a step of it
        SLURM | {"SLURM_NTASKS": "1"},
        OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "1"},
        SLURM | {"VIT_JAX_PROCESS_COUNT": "1"},  # independent runs side by side
        {"TPU_WORKER_HOSTNAMES": "a,b"},  # and no TPU here
    ],
)
def test_a_process_alone_waits_for_nobody(environment):
    assert find_cluster(None, None, None, environment) is None


def test_schedulers_are_recognized():
    assert find_cluster(None, None, None, SLURM) == Cluster("SLURM", "slurm")
    assert find_cluster(None, None, None, OPEN_MPI) == Cluster("Open MPI", "ompi")


def test_flags_go_before_variables_and_variables_before_schedulers():
    from_variables = find_cluster(None, None, None, SLURM | GIVEN)
    assert from_variables == Cluster("coordinator a:1", None, "a:1", 4, 3)
    assert find_cluster("b:2", None, 0, GIVEN) == Cluster("coordinator b:2", None, "b:2", 4, 0)


@pytest.mark.parametrize(
    ("environment", "method"),
    [
        ({"TPU_WORKER_HOSTNAMES": "localhost"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "gketpu"),
        ({"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"}, "gketpu"),
        ({"TPU_SKIP_MDS_QUERY": "1"}, None),
        ({"TPU_WORKER_HOSTNAMES": "a,b", "JAX_PLATFORMS": "cpu"}, None),
    ],
)
def test_tpu_pods_of_gke_are_recognized_without_asking_anybody(tpu, environment, method):
    found = find_cluster(None, None, None, environment)
    assert (found and found.method) == method


@pytest.mark.parametrize(("workers", "method"), [("10.0.0.1", None), ("10.0.0.1,10.0.0.2", "gcetpu")])
def test_tpu_machines_ask_their_metadata_server(tpu, workers, method):
    tpu.append(workers)
    found = find_cluster(None, None, None, {})
    assert (found and found.method) == method


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ((None, 2, None), "--process-count 2 needs --coordinator and --process-index as well"),
        (("a:1", None, 0), "needs --process-count as well, or VIT_JAX_PROCESS_COUNT in the environment."),
        (("a:1", 2, 2), "process index is 2; with 2 processes it must be from 0 to 1."),
        (("a:1", 2, -1), "process index is -1; with 2 processes it must be from 0 to 1."),
        (("a:1", 0, 0), "process count is 0; it must be at least 1."),
        (("a", 2, 0), "coordinator is 'a'; it must be HOST:PORT of process 0"),
        (("a:b", 2, 0), "coordinator is 'a:b'; it must be HOST:PORT of process 0"),
        (("a:70000", 2, 0), "coordinator is 'a:70000'; it must be HOST:PORT of process 0"),
    ],
)
def test_what_does_not_go_together_is_refused(given, message):
    with pytest.raises(ConfigError) as error:
        find_cluster(*given, {})
    assert message in str(error.value)


def test_a_variable_that_is_no_number_is_refused():
    with pytest.raises(ConfigError, match="VIT_JAX_PROCESS_COUNT is 'two'; it must be a whole number"):
        find_cluster(None, None, None, {"VIT_JAX_PROCESS_COUNT": "two"})


def test_the_command_refuses_it_before_it_does_anything(tmp_path):
    config = tmp_path / "config.py"
    config.write_text("from vit_jax.training.config import default_config as get_config\n")
    outcome = run("train", "--config", config, "--workdir", tmp_path / "run", "--process-index", 1)
    assert outcome.status == 2
    assert outcome.err == (
        "vit-jax: --process-index 1 needs --coordinator and --process-count as well, or VIT_JAX_COORDINATOR in the "
        "environment.\n"
    )
    assert not (tmp_path / "run").exists()


ALONE = """
import sys
import vit_jax
from vit_jax.errors import PeerError
port = sys.argv[1]
try:
    vit_jax.initialize_distributed(f"localhost:{port}", 2, 1, timeout=2)
except PeerError as error:
    print(error)
"""


def test_a_coordinator_that_is_not_there_is_an_error_in_time():
    port = free_port()
    (ended,) = run_job((sys.executable, "-c", ALONE, port), 1, 1)
    assert (ended.status, ended.err) == (0, "")
    assert ended.out.startswith(
        f"not all processes joined within 2 s (coordinator localhost:{port}): no answer. "
    )
    assert len(ended.out.splitlines()) == 1


def test_devices_in_use_already_are_an_error():
    import jax

    jax.devices()
    with pytest.raises(ConfigError, match="must connect before anything uses a device"):
        distributed.initialize_distributed("localhost:1", 2, 1)


def test_a_failure_elsewhere_is_told_everywhere(monkeypatch):
    from vit_jax import processes

    monkeypatch.setattr(processes.jax, "process_count", lambda: 2)
    monkeypatch.setattr(
        processes, "gather", lambda name, value, timeout: [value, [6, "no space; make room."]]
    )
    with pytest.raises(ResourceError, match=r"^process 1 of 2: no space; make room\.$"):
        processes.together("writing", lambda: "done")

    def fails():
        raise ConfigError("mine")

    with pytest.raises(ConfigError, match=r"^mine$"):
        processes.together("writing", fails)
