"""Runs that are stopped, killed and stalled: they end quickly with one line, and go on as if nothing had been."""

import os
import signal
import time

import pytest

from tests.faults.driver import (
    CONFIG,
    committed,
    final,
    is_running,
    last_step,
    loader,
    orphans,
    resumed,
    running,
)
from tests.faults.stall import STALL

TRY_AGAIN = 75
TWO = CONFIG.replace("120 steps", "100000 steps").replace("40 steps", "5000 steps")


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "toy.py"
    path.write_text(CONFIG)
    return path


def test_stopped_killed_and_resumed_is_bitwise_the_undisturbed_run(config, tmp_path, compile_cache):
    undisturbed, disturbed = tmp_path / "undisturbed", tmp_path / "disturbed"
    with running(config, undisturbed, cache=compile_cache) as run:
        assert run.wait()[0].status == 0

    with running(config, disturbed, cache=compile_cache) as run:
        run.until(lambda: run.step() >= 5)
        run.signal(signal.SIGTERM)
        run.signal(signal.SIGTERM)  # those who send it often send it twice
        (stopped,) = run.wait()
    assert stopped.status == TRY_AGAIN
    saved = committed(disturbed)[-1]
    assert stopped.lines == [
        f"vit-jax: stopped by SIGTERM after step {saved}, which was saved; run the same command again to resume."
    ]

    with running(config, disturbed, cache=compile_cache) as run:
        run.until(lambda: run.step() > saved)
        run.signal(signal.SIGKILL)
        (killed,) = run.wait()
    assert killed.status == -signal.SIGKILL
    assert resumed(killed.err) == saved
    saved = committed(disturbed)[-1]

    with running(config, disturbed, cache=compile_cache) as run:
        (ended,) = run.wait()
    assert (ended.status, resumed(ended.err)) == (0, saved)
    assert final(disturbed) == final(undisturbed)


def test_asked_to_stop_before_the_first_step_it_ends_at_once(config, tmp_path, compile_cache):
    with running(config, tmp_path / "run", cache=compile_cache) as run:
        run.until((tmp_path / "run").exists)  # made after everything is imported, before anything is compiled
        run.signal(signal.SIGTERM)
        (ended,) = run.wait()
    assert ended.status == TRY_AGAIN
    assert len(ended.lines) == 1
    assert ended.lines[0].startswith("vit-jax: stopped by SIGTERM")
    assert "Traceback" not in ended.err
    assert ended.seconds < 10  # two of patience, and the rest of a loaded machine


# The real command, which asks itself to stop while it evaluates or saves for the first time.
STOPPED_IN = """

import os
import signal
from vit_jax.training.run import Run

_real = Run.METHOD

def _stopped(self, number, *given, **named):
    if number == 40:
        os.kill(os.getpid(), signal.SIGTERM)
    return _real(self, number, *given, **named)

Run.METHOD = _stopped
"""


@pytest.mark.parametrize("method", ["evaluate", "save"])
def test_asked_to_stop_while_evaluating_or_saving_it_finishes_that_and_makes_one_more_step(
    method, tmp_path, compile_cache
):
    config, workdir = tmp_path / "stopped.py", tmp_path / "run"
    config.write_text(CONFIG + STOPPED_IN.replace("METHOD", method))
    with running(config, workdir, cache=compile_cache) as run:
        (ended,) = run.wait()
    assert ended.status == TRY_AGAIN
    assert ended.lines == [
        "vit-jax: stopped by SIGTERM after step 41, which was saved; run the same command again to resume."
    ]
    assert "step 40  evaluation: " in ended.err
    assert committed(workdir) == [40, 41]


def test_a_loader_that_does_not_answer_is_named_with_its_stack(tmp_path, compile_cache):
    config, workdir = tmp_path / "stall.py", tmp_path / "run"
    config.write_text(CONFIG + STALL)
    (tmp_path / "run.stall").write_text("0")
    with running(config, workdir, "--config.watchdog.step_limit=2", cache=compile_cache) as run:
        (ended,) = run.wait()
    assert ended.status == TRY_AGAIN
    assert len(ended.lines) == 1
    assert " s in data_wait (waiting for a batch of data) before step " in ended.lines[0]
    assert "in _stalling" in ended.err


def test_a_lost_process_is_named_by_the_others_in_time(tmp_path, compile_cache):
    config = tmp_path / "two.py"
    config.write_text(TWO)
    with running(config, tmp_path / "run", processes=2, cache=compile_cache) as run:
        run.until(run.step)
        run.signal(signal.SIGKILL, 1)
        left, lost = run.wait()
    assert (left.status, lost.status) == (TRY_AGAIN, TRY_AGAIN)
    assert left.seconds < 15
    assert left.lines[1:] == [
        "vit-jax: process 1 of 2 has not responded for 5 s (watchdog.peer_limit): it was killed or suspended, or "
        "its machine is gone. Start all processes again to resume."
    ]
    assert lost.lines[1:] == [
        "vit-jax: process 1 of 2 was ended by SIGKILL (exit code -9), perhaps for lack of memory; run the same "
        "command again to resume."
    ]
    assert orphans(tmp_path / "run") == []


def test_a_supervised_run_is_started_again(config, tmp_path, compile_cache):
    with running(config, tmp_path / "run", "--supervise", cache=compile_cache) as run:
        run.until(lambda: committed(run.workdir))
        saved = committed(run.workdir)[-1]
        run.signal(signal.SIGKILL)
        (ended,) = run.wait()
    assert ended.status == 0
    assert ended.lines[0].startswith("vit-jax: the training process was ended by SIGKILL")
    assert ended.lines[1].startswith("vit-jax: restart 1 of the training process in ")
    assert len(ended.lines) == 2
    assert resumed(ended.err) >= saved
    assert last_step(tmp_path / "run") == 120


@pytest.mark.parametrize("victim", ["the worker", "the run"])
def test_worker_processes_of_the_loader_end_with_the_run_and_it_with_them(tmp_path, compile_cache, victim):
    config = tmp_path / "workers.py"
    config.write_text(TWO.replace("batch_size=64", "num_workers=1, batch_size=64"))
    with running(config, tmp_path / "run", cache=compile_cache) as run:
        run.until(run.step)
        worker = loader(run.processes[0].pid)
        os.kill(worker if victim == "the worker" else run.processes[0].pid, signal.SIGKILL)
        (ended,) = run.wait(15)
        if victim == "the worker":
            assert ended.status == 6
            assert ended.lines == [
                "vit-jax: worker process 0 of 1, which reads data, was ended by SIGKILL (exit code -9), perhaps for "
                "lack of memory; lower data.num_workers or data.prefetch if memory is short."
            ]
            assert ended.seconds < 10  # five, twice over for a loaded machine
        until = time.monotonic() + 5
        while is_running(worker):
            assert time.monotonic() < until, "the worker has outlived the run"
            time.sleep(0.05)
