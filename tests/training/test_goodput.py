"""Where the time of a run went: by hand with a clock of our own, and of runs that were stopped and failed."""

import json
import os
import signal
from pathlib import Path

import pytest

from tests.training.test_loop import configuration, loop
from vit_jax.commands.train import _summary_text
from vit_jax.errors import Preempted, ResourceError
from vit_jax.training.report.goodput import FILE, Attempt, Attempts, goodput
from vit_jax.training.report.metrics import PHASES, Clock


class Timer:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


def attempt(start, reached, end=None, /, **seconds):
    return Attempt(start, reached, end, dict.fromkeys(PHASES, 0.0) | seconds)


def read(workdir):
    return [json.loads(line) for line in (workdir / "attempts.jsonl").read_text().splitlines()]


# ---- by hand


def test_of_one_attempt():
    report = goodput([attempt(0, 10, "finished", step=6.0, compile=3.0, data_wait=1.0)])
    assert report["share"] == 0.6
    assert (report["elapsed"], report["attempts"], report["lost_steps"], report["since_step"]) == (
        10,
        1,
        0,
        0,
    )
    assert report["shares"] == dict.fromkeys(PHASES, 0.0) | {
        "step": 0.6,
        "lost": 0.0,
        "compile": 0.3,
        "data_wait": 0.1,
    }


def test_what_a_later_attempt_repeats_is_lost():
    # Steps 1 to 10 and 5 to 8 remain as 1 to 4 and 5 to 6: the third attempt goes on after 6.
    attempts = [attempt(0, 10, step=10.0), attempt(4, 8, step=8.0), attempt(6, 20, step=14.0, restore=8.0)]
    report = goodput(attempts)
    assert report["lost_steps"] == 6 + 2
    assert report["elapsed"] == 40
    assert report["shares"]["lost"] == (6 + 4) / 40
    assert report["share"] == report["shares"]["step"] == (4 + 4 + 14) / 40
    assert report["shares"]["restore"] == 0.2
    assert sum(report["shares"].values()) == pytest.approx(1, abs=1e-15)


def test_the_newest_checkpoint_may_be_older_than_an_earlier_attempt():
    # A damaged checkpoint sent the third attempt behind where the second had begun: that has lost all of its steps.
    report = goodput([attempt(0, 10, step=10.0), attempt(10, 15, step=5.0), attempt(5, 20, step=15.0)])
    assert report["lost_steps"] == 5 + 5
    assert report["share"] == 20 / 30


def test_an_attempt_without_steps_and_a_run_without_attempts():
    assert goodput([attempt(0, 0, compile=2.0)])["share"] == 0
    assert goodput([]) is None


def test_a_kill_loses_the_time_since_the_last_note(tmp_path):
    timer = Timer()
    killed = Attempts(tmp_path, Clock(timer, begun=97.0), 0)
    assert not (tmp_path / "attempts.jsonl").exists()  # nothing was trained yet
    assert killed.finish() is None
    clock = killed._clock
    with clock("step"):
        timer.now += 4
        killed.step = 2
        killed.note()
        timer.now += 50
    assert read(tmp_path)[0]["end"] is None

    timer.now = 7.0  # Another machine, another beginning of time: nothing compares times of two attempts.
    clock = Clock(timer)
    with Attempts(tmp_path, clock, 1) as second:
        second.note()
        with clock("step"):
            timer.now += 3
        second.step = 4
    report = second.finish()
    assert [(line["start"], line["step"], line["end"]) for line in read(tmp_path)] == [
        (0, 2, None),
        (1, 4, "finished"),
    ]
    assert report["elapsed"] == 3 + 4 + 3
    assert report["share"] == (2 + 3) / 10
    assert report["shares"]["startup"] == 0.3
    assert report["shares"]["lost"] == 0.2
    # Whoever only looks adds nothing, and reads the same.
    before = (tmp_path / "attempts.jsonl").read_bytes()
    assert Attempts(tmp_path, Clock(timer), 4).finish() == report
    assert (tmp_path / "attempts.jsonl").read_bytes() == before


def test_lines_that_are_no_attempts_are_left_out(tmp_path):
    known = {"start": 0, "step": 2, "end": None, "seconds": {"step": 2, "nonsense": 3}}
    lines = [
        "{",
        "3",
        '{"start": 0}',
        '{"start": 0, "step": 1, "end": null, "seconds": 3}',
        json.dumps(known),
    ]
    (tmp_path / "attempts.jsonl").write_text("\n".join(lines))
    report = Attempts(tmp_path, Clock(), 2).finish()
    assert (report["attempts"], report["elapsed"]) == (1, 2)


def test_only_one_process_writes_and_only_where_it_can(tmp_path):
    other = Attempts(tmp_path, Clock(Timer(), begun=99.0), 0, enabled=False)
    other.note()
    assert other.finish()["attempts"] == 1
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match=r"attempts\.jsonl cannot be written"):
        Attempts(tmp_path / "file", Clock(), 0).note()
    # What ended the attempt is told, not that this could not be noted.
    attempts = Attempts(tmp_path, Clock(), 0)
    attempts.note()
    (tmp_path / "attempts.jsonl").unlink()
    (tmp_path / "attempts.jsonl").mkdir()
    attempts.__exit__(Preempted, Preempted("stopped"), None)
    with pytest.raises(ResourceError):
        attempts.finish()


@pytest.mark.parametrize(
    ("report", "text"),
    [
        (
            goodput([attempt(0, 10, step=6.0, compile=3.0, data_wait=0.999, other=0.001)]),
            "goodput: 60.0% of 10.0 s; the rest: compile 30.0%, data wait 10.0%",
        ),
        (
            goodput([attempt(5, 15, step=3000.0), attempt(10, 15, step=2000.0, restore=1000.0)]),
            "goodput: 58.3% of 100 min in 2 attempts since step 5; the rest: lost 25.0% (5 steps), restore 16.7%",
        ),
        (
            goodput([attempt(0, 10, step=3.6e6, evaluation=3.6e6)]),
            "goodput: 50.0% of 2,000.0 h; the rest: evaluation 50.0%",
        ),
    ],
)
def test_what_the_command_says(report, text):
    summary = {
        "step": 1,
        "metrics": {},
        "seconds": {"step": 1.0},
        "goodput": report,
        "images_per_second": None,
        "stopped_early": None,
        "checkpoint": "c",
    }
    assert _summary_text(summary, Path("run")).splitlines()[1:3] == ["time: step 1.0 s", text]
    assert "goodput" not in _summary_text(summary | {"goodput": None}, Path("run"))


# ---- of runs


@pytest.mark.usefixtures("compile_cache")
def test_a_run_that_failed_and_was_stopped(tmp_path, monkeypatch):
    real, batches = loop.shard_batch, []

    def interrupted(batch, mesh):
        batches.append(batch)
        if len(batches) == 6:  # Five steps are done; step 4 is saved.
            raise OSError("the disk with the images has gone")
        if len(batches) == 6 + 3:  # step 7
            os.kill(os.getpid(), signal.SIGTERM)
        return real(batch, mesh)

    monkeypatch.setattr(loop, "shard_batch", interrupted)
    with pytest.raises(OSError, match="the disk"):
        loop.train(configuration(), tmp_path)
    with pytest.raises(Preempted):
        loop.train(configuration(), tmp_path)
    result = loop.train(configuration(), tmp_path)
    attempts = read(tmp_path)
    assert [(line["start"], line["step"], line["end"]) for line in attempts] == [
        (0, 5, "OSError"),
        (4, 7, "Preempted"),
        (7, 10, "finished"),
    ]
    report = result.summary["goodput"]
    assert json.loads((tmp_path / "summary.json").read_text())["goodput"] == report
    assert (report["attempts"], report["lost_steps"]) == (3, 1)
    # Every second is in the report, by cause; a fifth of the first attempt's step time was for nothing.
    total = sum(sum(line["seconds"].values()) for line in attempts)
    assert report["elapsed"] == pytest.approx(total, rel=1e-12)
    for phase in set(PHASES) - {"step"}:
        spent = sum(line["seconds"][phase] for line in attempts)
        assert report["shares"][phase] == pytest.approx(spent / total, rel=1e-12)
    lost = attempts[0]["seconds"]["step"] / 5
    assert report["shares"]["lost"] == pytest.approx(lost / total, rel=1e-12)
    steps = sum(line["seconds"]["step"] for line in attempts) - lost
    assert report["share"] == pytest.approx(steps / total, rel=1e-12)
    # The last attempt's line is what the summary says of it; there, start-up is not told from the rest.
    seconds, told = attempts[-1]["seconds"], result.summary["seconds"]
    assert seconds["step"] == pytest.approx(told["step"], abs=1e-3)  # both rounded
    assert seconds["checkpoint"] + seconds["restore"] == pytest.approx(told["checkpoint"], abs=2e-3)
    assert all(line["seconds"]["restore"] > 0 for line in attempts)


def test_a_workdir_that_is_away_gets_the_next_note(tmp_path):
    workdir, hidden = tmp_path / "run", tmp_path / "hidden"
    workdir.mkdir()
    with Attempts(workdir, Clock(), 0, patient=True) as attempts:
        attempts.note()
        workdir.rename(hidden)
        attempts.step = 3
        attempts.note()
        hidden.rename(workdir)
        attempts.step = 4
        attempts.note()
    assert json.loads((workdir / FILE).read_text())["step"] == 4
    with Attempts(workdir, Clock(), 0) as attempts:
        workdir.rename(hidden)
        with pytest.raises(ResourceError, match=r"attempts\.jsonl cannot be written"):
            attempts.note()
