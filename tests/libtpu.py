"""Programs for TPUs that are not here: libtpu knows their topologies and compiles for them."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

needs_libtpu = pytest.mark.skipif(
    find_spec("libtpu") is None, reason="needs libtpu, which knows the topologies of TPUs"
)
VARIABLES = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-8",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}


def printed_with_libtpu(program):
    """What a Python program prints as JSON, run where libtpu was told what it wants before jax is imported."""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **VARIABLES}
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)
