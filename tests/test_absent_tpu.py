"""libtpu without a TPU is quiet, and a TPU, or what somebody chose, stays as it is."""

import os
import subprocess
import sys

import pytest

from tests.libtpu import needs_libtpu
from vit_jax.absent_tpu import ALONE, may_have_tpu, quiet_environment


def yes():
    return True


def no():
    return False


# The last two are what jax and libtpu set themselves when jax is imported.
@pytest.mark.parametrize(
    "environment",
    [{}, {"JAX_PLATFORMS": ""}, {"TPU_SKIP_MDS_QUERY": "1"}, {"TPU_LIBRARY_PATH": "/a/libtpu.so"}],
)
def test_told_that_it_is_alone(environment):
    assert quiet_environment(environment, has_tpu=no, has_library=yes) == ALONE


@pytest.mark.parametrize(
    "environment",
    [
        {"JAX_PLATFORMS": "cpu"},
        {"JAX_PLATFORMS": "tpu,cpu"},
        {"TPU_WORKER_HOSTNAMES": "a,b"},
        {"TPU_ACCELERATOR_TYPE": "v5p-8"},
        {"JAX_FORCE_TPU_INIT": "1"},
    ],
)
def test_what_somebody_chose_stays(environment):
    assert quiet_environment(environment, has_tpu=no, has_library=yes) == {}


def test_a_tpu_stays_and_without_the_library_there_is_nothing_to_say():
    assert quiet_environment({}, has_tpu=yes, has_library=yes) == {}
    assert quiet_environment({}, has_tpu=no, has_library=no) == {}


@pytest.mark.parametrize("device", ["dev/accel0", "dev/vfio/0"])
def test_a_device_is_seen(tmp_path, device):
    (tmp_path / "dev/vfio").mkdir(parents=True)
    (tmp_path / "dev/vfio/vfio").touch()  # the driver alone
    assert not may_have_tpu(str(tmp_path))
    (tmp_path / device).touch()
    assert may_have_tpu(str(tmp_path))


@pytest.mark.parametrize(
    ("vendor", "kind", "there"),
    [
        ("0x1ae0", "0xff0000", True),
        ("0x1ae0", "0x120000", True),
        ("0x1ae0", "0x020000", False),  # the network card of every machine at Google
        ("0x1ae0", "0x010802", False),  # and its disk
        ("0x10de", "0x030200", False),
    ],
)
def test_the_bus_is_seen(tmp_path, vendor, kind, there):
    device = tmp_path / "sys/bus/pci/devices/0000:00:04.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text(f"{vendor}\n")
    (device / "class").write_text(f"{kind}\n")
    assert may_have_tpu(str(tmp_path)) == there


@needs_libtpu
@pytest.mark.skipif(may_have_tpu(), reason="there is a TPU")
@pytest.mark.parametrize("first", ["import vit_jax, jax", "import jax, vit_jax", "import vit_jax.cli, jax"])
def test_nothing_is_printed(first):
    chosen = ("JAX_PLATFORMS", "TPU_", "LIBTPU_")
    environment = {name: value for name, value in os.environ.items() if not name.startswith(chosen)}
    run = subprocess.run(
        [sys.executable, "-c", f"{first}; print(jax.devices()[0].platform)"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr
    assert "tpu" not in run.stderr.lower(), run.stderr
