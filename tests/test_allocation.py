"""The command starts itself again with other settings of the allocator, once, and only where these help."""

import contextlib
import subprocess
import sys

import pytest

from tests.runs import CONFIG
from vit_jax import allocation, cli
from vit_jax.allocation import SETTINGS, TUNABLES, start_tuned, tuned


@pytest.fixture(autouse=True)
def a_cpu_with_glibc(monkeypatch):
    monkeypatch.setattr(allocation.os, "confstr", lambda name: "glibc 2.36")
    monkeypatch.setattr(allocation.glob, "glob", lambda pattern: [])


def test_settings_are_what_glibc_calls_them():
    environment = tuned({"HOME": "/root"})
    assert environment == {"HOME": "/root", TUNABLES: ":".join(f"{n}={v}" for n, v in SETTINGS.items())}
    assert tuned(environment) is None  # once


@pytest.mark.parametrize("value", ["", "glibc.malloc.check=3"])
def test_who_has_settings_keeps_them(value):
    assert tuned({TUNABLES: value}) is None


@pytest.mark.parametrize("libc", ["glibc 2.34", "musl 1.2", "", None, "glibc x.y"])
def test_not_without_a_glibc_that_knows_them(monkeypatch, libc):
    monkeypatch.setattr(allocation.os, "confstr", lambda name: libc)
    assert tuned({}) is None


def test_not_where_there_is_no_such_question(monkeypatch):
    def confstr(name):
        raise ValueError("unrecognized configuration name")

    monkeypatch.setattr(allocation.os, "confstr", confstr)
    assert tuned({}) is None


@pytest.mark.parametrize(
    ("platforms", "applies"), [("cpu", True), ("cpu,cuda", True), ("cuda,cpu", False), ("tpu", False)]
)
def test_jaxs_own_choice_of_the_device_counts(platforms, applies):
    assert (tuned({"JAX_PLATFORMS": platforms}) is not None) == applies


@pytest.mark.parametrize("device", ["/dev/nvidia[0-9]*", "/dev/accel[0-9]*", "/dev/vfio/[0-9]*", "/dev/kfd"])
def test_not_beside_an_accelerator(monkeypatch, device):
    monkeypatch.setattr(allocation.glob, "glob", lambda pattern: ["x"] if pattern == device else [])
    assert tuned({}) is None
    assert tuned({"JAX_PLATFORMS": "cpu"}) is not None


def test_the_same_command_is_started(monkeypatch):
    started = []
    monkeypatch.setattr(allocation.os, "execve", lambda *given: started.append(given))
    monkeypatch.delenv(TUNABLES, raising=False)
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setattr(sys, "orig_argv", ["python", "-u", "-m", "vit_jax.cli", "train"])
    start_tuned()
    ((program, arguments, environment),) = started
    assert (program, arguments) == (sys.executable, [sys.executable, "-u", "-m", "vit_jax.cli", "train"])
    assert environment[TUNABLES].startswith("glibc.malloc.")
    monkeypatch.setenv(TUNABLES, "")
    start_tuned()
    assert len(started) == 1


@pytest.mark.parametrize(("command", "restarts"), [("train", 1), ("models", 0), ("--help", 0)])
def test_only_commands_that_compute_are_started_again(monkeypatch, capsys, command, restarts):
    calls = []
    monkeypatch.setattr(cli, "start_tuned", lambda: calls.append(1))
    monkeypatch.setattr(sys, "argv", ["vit-jax", command])
    with contextlib.suppress(SystemExit):
        cli.main()
    assert len(calls) == restarts
    cli.main(["train"])  # called from Python, a process is what it is
    assert len(calls) == restarts


@pytest.mark.skipif(sys.platform != "linux", reason="glibc")
def test_a_mistake_is_told_once(tmp_path, monkeypatch):
    monkeypatch.delenv(TUNABLES, raising=False)
    (tmp_path / "tiny.py").write_text(CONFIG)
    command = [
        sys.executable,
        "-m",
        "vit_jax.cli",
        "train",
        "--config",
        "tiny.py",
        "--workdir",
        "x",
        "--frob",
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "vit-jax: unknown argument '--frob'; see vit-jax train --help\n"
