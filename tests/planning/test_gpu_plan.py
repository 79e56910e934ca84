"""Plans for GPUs that are not here; the compiler is jax's CUDA plugin, without CUDA and without a card."""

import json
import re
from importlib.util import find_spec

import pytest

from tests.planning.test_plan import config_file, plan  # noqa: F401 - a fixture

pytestmark = pytest.mark.skipif(
    not (find_spec("jax_cuda12_plugin") or find_spec("jax_cuda13_plugin")),
    reason="needs jax's CUDA plugin, pip install 'vit-jax[plan-gpu]'",
)


@pytest.mark.parametrize("class_token", [False, True])  # an even number of tokens, and one more
def test_gpus_that_are_not_here(config_file, class_token):  # noqa: F811
    process = plan("--config", config_file, "--hardware", "h100-2", "--json", "--config.mesh.fsdp=2",
                   "--config.sharding.min_size=16", "--config.model.depth=2", "--config.model.pool=mean",
                   f"--config.model.class_token={class_token}")  # fmt: skip
    assert process.returncode == 0, process.stderr
    found = json.loads(process.stdout)
    assert found["fits"]
    assert found["memory"]["params"] < found["memory"]["peak"] < found["memory"]["capacity"]
    assert found["memory"]["capacity"] == int(0.75 * 84929347584)
    assert {one["kind"] for one in found["traffic"]} >= {"all-gather", "reduce-scatter"}
    assert found["kernels"] == 4  # cuDNN's attention, in both passes of two blocks
    # No estimates of time, only bounds, and no bytes between hosts where there is one.
    assert found["step_seconds"] is found["hours"] is found["mfu"] is None
    assert found["least_seconds"] == max(found["floors"].values()) > 0
    assert found["floors"]["network"] == 0 < found["floors"]["links"]
    assert found["total_steps"] == 6


def test_what_does_not_fit_gpus_is_refused_with_what_would(config_file):  # noqa: F811
    process = plan("--config", config_file, "--hardware", "h100-1", "--config.data.batch_size=4194304",
                   "--config.model.width=256")  # fmt: skip
    assert process.returncode == 6, process.stderr
    assert "DOES NOT FIT" in process.stdout
    line = process.stderr.splitlines()[-1]
    assert re.search(
        r"does not fit h100-1: a GPU would need [\d.]+ GiB of 59\.32, [\d.]+ of it for \w+\[[\d,]+\]", line
    )
    assert re.search(r"would help: .*(model\.remat=|accumulation=)", line)


def test_a_sweep_compares_bounds(config_file):  # noqa: F811
    process = plan("--config", config_file, "--hardware", "h100-1", "--sweep")
    assert process.returncode == 0, process.stderr
    lines = process.stdout.splitlines()
    assert lines[0].split() == ["mesh", "remat", "GiB", "ms", "at", "least", "bound", "by"]
    assert [line.split()[3] for line in lines[1:]] == ["none", "dots", "full"]
    assert all(re.search(r" \d+\.\d\d  (arithmetic|memory|links|network)$", line) for line in lines[1:])
