"""A profile of some steps: there, of these steps, and without effect on training."""

import os
import subprocess
import sys

import jax
import pytest

from tests.runs import keeping, on_one_device
from tests.training.test_loop import configuration, loop
from vit_jax.errors import ConfigError
from vit_jax.training.report.profiling import Profile, parse_steps

# The profiler is one for a process, and what thousands of tests leave in this one is not its business.
PROFILED = """
import sys
from pathlib import Path

import jax

from tests.training.test_loop import configuration
from vit_jax.checkpoints.fingerprint import fingerprint
from vit_jax.training import loop

seen = []
start, stop, annotation = (
    jax.profiler.start_trace, jax.profiler.stop_trace, jax.profiler.StepTraceAnnotation
)
jax.profiler.start_trace = lambda *args, **options: (seen.append("start"), start(*args, **options))
jax.profiler.stop_trace = lambda: (seen.append("stop"), stop())
jax.profiler.StepTraceAnnotation = lambda name, step_num: (
    seen.append(step_num), annotation(name, step_num=step_num)
)[1]

folder = Path(sys.argv[1])
plain = loop.train(configuration(), folder / "plain")
assert seen == [], seen
profiled = loop.train(configuration(), folder / "run", profile=(3, 5))
assert seen == ["start", 3, 4, 5, "stop"], seen
assert fingerprint(profiled.state) == fingerprint(plain.state)  # every bit
# Started again, the same command has nothing left to trace and says so.
loop.train(configuration(), folder / "run", profile=(3, 5))
assert seen == ["start", 3, 4, 5, "stop"], seen
"""


@pytest.mark.parametrize(("text", "steps"), [("10:20", (10, 20)), ("7", (7, 7)), ("7:7", (7, 7))])
def test_what_the_flag_may_say(text, steps):
    assert parse_steps(text) == steps


@pytest.mark.parametrize("text", ["", "5:", ":5", "1.5", "-3", "a:b", "1:2:3", "٣"])
def test_what_is_no_range_of_steps(text):
    with pytest.raises(ConfigError, match="it must be FIRST:LAST or one step, for example 10:20") as caught:
        parse_steps(text)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["0", "0:5", "6:5"])
def test_steps_out_of_order(text):
    with pytest.raises(ConfigError, match="FIRST must be at least 1 and not above LAST"):
        parse_steps(text)


@pytest.mark.usefixtures("nothing_compiled")
def test_steps_that_the_run_does_not_have_are_refused_before_compiling(tmp_path):
    with pytest.raises(
        ConfigError, match=r"--profile 9:11: the run has 10 steps; choose a range within them."
    ):
        loop.train(configuration(), tmp_path / "run", profile=(9, 11))
    assert not (tmp_path / "run").exists()


def test_a_trace_is_there_and_changes_nothing(tmp_path):
    command = [sys.executable, "-X", "faulthandler", "-c", PROFILED, str(tmp_path)]
    environment = os.environ | on_one_device() | keeping(tmp_path / "compiled")
    process = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert process.returncode == 0, process.stderr
    traces = list((tmp_path / "run" / "profile").rglob("*.xplane.pb"))
    assert len(traces) == 1
    assert b"jit_step" in traces[0].read_bytes()
    assert f"profile of steps 3 to 5: {tmp_path}/run/profile\n" in process.stderr
    written = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("run", "plain")]
    assert written[0] == written[1]
    assert "nothing was profiled; step 5 was already done" in process.stderr


@pytest.fixture
def pretended(monkeypatch):
    """The profiler, doing nothing but telling."""
    seen = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder, **_: seen.append("start"))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: seen.append("stop"))
    return seen


def make_steps(profile, numbers, report):
    with profile.open(report):
        for number in numbers:
            with profile.step(number):
                pass
            profile.end_step(number, ())


def test_a_resumed_run_traces_what_is_left(pretended, tmp_path):
    told = []
    make_steps(Profile((2, 4), tmp_path, 9), range(4, 10), told.append)
    assert pretended == ["start", "stop"]
    assert told == [f"profile of steps 4 to 4: {tmp_path}"]


def test_processes_on_one_machine_do_not_write_the_same_files(monkeypatch, tmp_path):
    folders = []
    monkeypatch.setattr(jax.profiler, "start_trace", lambda folder, **_: folders.append(folder))
    monkeypatch.setattr(jax.profiler, "stop_trace", lambda: None)
    for count, index in ((1, 0), (4, 0), (4, 3)):
        monkeypatch.setattr(jax, "process_count", lambda count=count: count)
        monkeypatch.setattr(jax, "process_index", lambda index=index: index)
        make_steps(Profile((1, 1), tmp_path, 9), (1, 2), folders.append)
    told = f"profile of steps 1 to 1: {tmp_path}"
    assert folders == [str(tmp_path), told, f"{tmp_path}/process_0", told, f"{tmp_path}/process_3", told]


def test_an_error_ends_the_trace(pretended, tmp_path):
    told = []

    def numbers():
        yield from (1, 2, 3)
        raise OSError("the disk has gone")

    with pytest.raises(OSError, match="the disk"):
        make_steps(Profile((2, 8), tmp_path, 9), numbers(), told.append)
    assert pretended == ["start", "stop"]
    assert told == [f"profile of steps 2 to 3: {tmp_path}"]
    # Ended before its first step, it has nothing to tell.
    with pytest.raises(OSError, match="the disk"):
        make_steps(Profile((5, 8), tmp_path, 9), numbers(), told.append)
    assert len(told) == 1


def test_without_the_flag_nothing_happens(pretended, tmp_path):
    make_steps(Profile(None, tmp_path, 9), range(1, 4), pretended.append)
    assert pretended == []
