"""Memory that is not enough: one line says what takes how much and what to change, and the changes are true."""

import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import jax
import pytest

from tests.training.test_loop import configuration
from vit_jax.errors import ResourceError
from vit_jax.planning import program
from vit_jax.training import loop
from vit_jax.training.config import validate
from vit_jax.training.config.overrides import apply_override
from vit_jax.training.experiment import build
from vit_jax.training.guard import out_of_memory
from vit_jax.training.guard.memory import activation_bytes, state_bytes
from vit_jax.training.guard.out_of_memory import device_memory, host_memory, remedies
from vit_jax.training.run import Run


def estimate(experiment):
    return sum(state_bytes(experiment).values()) + activation_bytes(experiment)


def small(**changes):
    given = dict(data__batch_size=64, data__size=64, accumulation=1, compilation__cache="off", ema__decay=0.0)
    return configuration(**(given | changes))


@pytest.mark.usefixtures("nothing_runs")
def test_a_step_that_does_not_fit_is_refused_before_it_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(out_of_memory, "device_memory", lambda experiment: 100_000)
    message = (
        r"^the step needs [\d.]+ MiB on a device \(cpu, which has 0.1 MiB\): parameters [\d.]+ MiB, optimizer state "
        r"[\d.]+ MiB, gradients [\d.]+ MiB, activations about [\d.]+ MiB\. Any of these helps: accumulation=2 .*; "
        r"model\.remat=full .*; mesh\.data=1 mesh\.fsdp=8 .*\.$"
    )
    with pytest.raises(ResourceError, match=message) as caught:
        loop.train(small(), tmp_path)
    assert caught.value.exit_status == 6


@pytest.fixture
def nothing_runs(monkeypatch):
    def receive(*_):
        raise AssertionError("a step was made")

    monkeypatch.setattr(Run, "receive", receive)


@pytest.mark.parametrize(
    ("changes", "kinds"),
    [
        ({}, ("accumulation", "model.remat", "mesh.data mesh.fsdp")),
        (dict(mesh__fsdp=8), ("accumulation", "model.remat", "data.batch_size")),
        (dict(model__remat="full"), ("accumulation", "mesh.data mesh.fsdp", "data.batch_size")),
        (dict(accumulation=8, data__batch_size=64), ("model.remat", "mesh.data mesh.fsdp", "optimizer.")),
    ],
)
def test_each_remedy_can_be_had_and_needs_less(changes, kinds):
    # Small tensors are divided too, else there is nothing for the mesh to divide.
    config = small(sharding__min_size=1, **changes)
    experiment = build(config)
    lines = remedies(experiment)
    assert len(lines) == 3
    for line, kind in zip(lines, kinds):
        overrides = re.findall(r"[\w.]+=\w+", line)
        assert " ".join(text.partition("=")[0] for text in overrides).startswith(kind)
        changed = small(sharding__min_size=1, **changes)
        for override in overrides:
            apply_override(changed, override)
        validate(changed)
        assert estimate(build(changed)) < estimate(experiment)


def failing(error):
    def receive(*_, **__):
        raise error

    return receive


def test_what_xla_and_python_say_while_training_is_explained(tmp_path, monkeypatch):
    config = small(duration="1 steps", evaluation__every=1, checkpoint__every=1, data__num_threads=2)
    full = jax.errors.JaxRuntimeError(
        "RESOURCE_EXHAUSTED: Out of memory allocating 871444368 bytes.\nmore\nlines"
    )
    monkeypatch.setattr(Run, "receive", failing(full))
    message = (
        r"^memory is not enough \(RESOURCE_EXHAUSTED: Out of memory allocating 871444368 bytes\) on a device"
    )
    with pytest.raises(ResourceError, match=message) as caught:
        loop.train(config, tmp_path / "device")
    assert "\n" not in str(caught.value)
    monkeypatch.setattr(Run, "receive", failing(MemoryError("Unable to allocate 3 GiB")))
    message = r"^this machine's memory, .* GiB, is not enough: Unable to allocate 3 GiB\. Any .*: data\.prefetch=1 .*;"
    with pytest.raises(ResourceError, match=message):
        loop.train(config, tmp_path / "host")
    other = jax.errors.JaxRuntimeError("INTERNAL: a bug")
    monkeypatch.setattr(Run, "receive", failing(other))
    with pytest.raises(jax.errors.JaxRuntimeError, match="INTERNAL: a bug"):
        loop.train(config, tmp_path / "bug")


VMEM = jax.errors.JaxRuntimeError(
    "RESOURCE_EXHAUSTED: E1001: CompileTimeScopedVmemOom:\nRan out of memory in memory space vmem while allocating on "
    "stack for %fusion.1. Used 16.06M of 16.00M vmem. Exceeded vmem capacity by 65.0K."
)


def test_of_a_tpus_fast_memory_something_else_is_said(tmp_path, monkeypatch):
    config = small(duration="1 steps", evaluation__every=1, checkpoint__every=1)
    message = (
        r"^the compiler cannot fit one operation .* \(Used 16.06M of 16.00M vmem\)\. "
        r"Set sharding\.overlap=False, [^\n]*$"
    )
    monkeypatch.setattr(Run, "receive", failing(VMEM))
    with pytest.raises(ResourceError, match=message):
        loop.train(config, tmp_path / "run")
    step = SimpleNamespace(lower=lambda *_: SimpleNamespace(compile=failing(VMEM)))
    monkeypatch.setattr(program, "compile_step", lambda *_: step)
    with pytest.raises(ResourceError, match=message):
        program.compile_program(build(config))


def test_cpu_devices_share_what_this_process_may_have(monkeypatch):
    experiment = build(small())
    assert device_memory(experiment) == host_memory() // 8
    monkeypatch.setattr(resource, "getrlimit", lambda which: (10**9, 10**9))
    assert device_memory(experiment) == 10**9 // 8


CONFIG = """
from vit_jax.training.config import default_config

def get_config():
    config = default_config()
    config.duration = "3 steps"
    config.model.update(name="vit_tiny_patch16_224", depth=1)
    config.data.update(source="synthetic", batch_size=640, size=8, num_threads=1)
    config.log.update(every="1 steps", tensorboard=False, progress=False)
    return config
"""


def test_the_command_with_too_little_memory_ends_with_one_line(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    limit = 3_000_000  # KiB of addresses; importing everything takes 2 million
    command = [sys.executable, "-m", "vit_jax.cli", "train", "--config", tmp_path / "config.py"]
    command += ["--workdir", tmp_path / "run"]
    root = str(Path(__file__).parents[2])
    flags = os.environ.get("XLA_FLAGS", "").replace("device_count=8", "device_count=1")
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags, "PYTHONPATH": root}
    ended = subprocess.run(
        ["bash", "-c", f'ulimit -v {limit} && exec "$@"', "bash", *map(str, command)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 6, ended.stderr
    last = ended.stderr.splitlines()[-1]
    assert re.match(r"vit-jax: the step needs .* GiB on a device \(cpu, which has 2\.86 GiB\)", last)
    assert "Traceback" not in ended.stderr
