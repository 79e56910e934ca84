"""A phase that takes too long ends the process; one that begins anew does not."""

import os
import subprocess
import sys
import time

import pytest

from vit_jax.training.guard import watchdog
from vit_jax.training.guard.watchdog import Watchdog

STUCK = """
import time
from vit_jax.training.guard.watchdog import Watchdog
with Watchdog(0.2, 60.0) as dog:
    dog.step = 7
    dog.enter("step")
    while True:  # the place that the stack must show
        time.sleep(0.1)
"""


def test_a_phase_that_takes_too_long_ends_the_process_with_a_stack_and_a_line():
    ended = subprocess.run(
        [sys.executable, "-c", STUCK], capture_output=True, text=True, check=False, timeout=60
    )
    assert ended.returncode == 75
    *stack, line = ended.stderr.splitlines()
    assert 'File "<string>", line 8 in <module>' in "\n".join(stack)
    assert line.startswith("vit-jax: stuck for ")
    assert "s in step (running a step) at step 7; watchdog.step_limit allows 0.2." in line


@pytest.fixture
def dog(monkeypatch):
    """A watchdog that looks often, and the lines that it would have ended the process with."""
    monkeypatch.setattr(watchdog, "TICK", 0.02)
    dog, lines = Watchdog(0.2, 60.0), []
    dog.stalled = lines.append
    with dog:
        yield dog, lines


def test_steps_that_begin_anew_and_long_phases_are_let_go_on(dog):
    dog, lines = dog
    for _ in range(8):  # twice the limit in all
        dog.enter("data_wait")
        time.sleep(0.05)
    dog.enter("evaluation")
    time.sleep(0.4)
    assert lines == []
    dog.enter("data_wait")
    time.sleep(1)
    assert len(lines) == 1


def test_the_limit_is_that_of_the_phase(dog):
    dog, _ = dog
    limits = {}
    for phase in ("startup", "restore", "compile", "data_wait", "step", "evaluation", "checkpoint", "other"):
        dog.enter(phase)
        limits[phase] = dog.limit()
    assert {phase for phase, limit in limits.items() if limit == 0.2} == {"data_wait", "step"}
    assert set(limits.values()) == {0.2, 60.0}


def test_it_tells_its_parent_how_long_silence_is_meant_to_last(monkeypatch):
    reader, writer = os.pipe()
    monkeypatch.setenv(watchdog.BEATS, str(writer))
    monkeypatch.setattr(watchdog, "TICK", 0.02)
    with Watchdog(5.0, 60.0) as dog:
        assert os.read(reader, 5) == b"60.0\n"
        dog.silence = 30.0
        while os.read(reader, 5) != b"30.0\n":
            pass
    os.close(writer)
    os.close(reader)


def test_entering_a_phase_costs_nothing_beside_a_step():
    dog = Watchdog(1.0, 1.0)
    began = time.perf_counter()
    for _ in range(10_000):
        dog.enter("step")
    # 0.5 % of a step of 10 ms; measured: a fiftieth of that.
    assert (time.perf_counter() - began) / 10_000 < 50e-6
