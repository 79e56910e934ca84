"""Programs for TPUs that are not here: libtpu knows their topologies and compiles for them."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest

from vit_jax.planning.topology import ENVIRONMENT

needs_libtpu = pytest.mark.skipif(
    find_spec("libtpu") is None, reason="needs libtpu, which knows the topologies of TPUs"
)


def printed_with_libtpu(program):
    """What a Python program prints as JSON, run where libtpu was told what it wants before jax is imported."""
    run = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env={**os.environ, **ENVIRONMENT}
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)
