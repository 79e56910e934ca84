"""Checkpoints under faults, in short: what `benchmarks/faults_checkpoints.py` does at length; and two runs at once."""

import json

import pytest

from tests.faults.file_faults import COMPILER
from tests.runs import BENCHMARKS, on_one_device, run, run_benchmark
from tests.training.test_loop import configuration, loop
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.lock import WorkdirLock
from vit_jax.errors import ResourceError


def faults(*options):
    """The results of some parts by name."""
    # It starts a run again and again, and has a folder for the programs.
    environment = {"JAX_ENABLE_COMPILATION_CACHE": "true", **on_one_device()}
    done = run_benchmark(str(BENCHMARKS / "faults_checkpoints.py"), *options, environment=environment)
    results = {line["part"]: line for line in map(json.loads, done.stdout.splitlines())}
    assert done.returncode == 0, (results, done.stderr)
    return results


@pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
def test_damage_is_never_loaded_and_a_kill_loses_nothing():
    results = faults("damage", "kill", "--cases", "1", "--damages", "20", "--points", "4")
    # Every tenth case damages all steps.
    outcomes = results["damage"]["outcomes"]
    assert sum(outcomes.values()) == 20
    assert outcomes["an older step, the damaged one named"] >= 3
    kill = results["kill"]
    assert kill["operations"] > 100
    assert kill["resumed"] >= 4
    assert kill["really killed"] == 1
    assert kill["fewest intact"] >= 2
    assert set(kill["resumed from step"]) == {"8", "12"}


@pytest.mark.skipif(COMPILER is None, reason="needs a C compiler")
def test_a_full_disk_is_one_line_and_leaves_earlier_checkpoints():
    outcomes = faults("full", "--cases", "3")["full"]["outcomes"]
    assert sum(outcomes.values()) == 3
    assert any(outcome.startswith("one line") for outcome in outcomes)


def test_a_second_run_in_a_workdir_waits_and_others_may_read(trained, copied):
    with WorkdirLock(copied):
        second = run("train", "--config", trained.config, "--workdir", copied)
        assert second.status == 75
        assert second.err.startswith(f"vit-jax: workdir {copied} is in use by process ")
        assert second.err.count("\n") == 1
        assert run("evaluate", "--workdir", copied).status == 0
    assert run("train", "--config", trained.config, "--workdir", copied).status == 0


def test_a_run_asks_after_every_step_whether_a_save_failed(tmp_path, monkeypatch):
    asked, real = [], loop.shard_batch

    def check(checkpoints):
        asked.append(len(batches))
        if len(asked) == 3:
            raise ResourceError("the disk is full")

    batches = []
    monkeypatch.setattr(Checkpoints, "check", check)
    monkeypatch.setattr(loop, "shard_batch", lambda *batch: batches.append(batch) or real(*batch))
    with pytest.raises(ResourceError, match="the disk is full"):
        loop.train(configuration(), tmp_path)
    assert asked == [1, 2, 3]


def test_a_run_through_staging_ends_like_any_other(tmp_path):
    ends = []
    for name, staging in (("plain", ""), ("staged", str(tmp_path / "local"))):
        config = configuration(checkpoint__staging=staging, log__tensorboard=False)
        result = loop.train(config, tmp_path / name)
        ends.append((result.summary["fingerprint"], (tmp_path / name / "metrics.jsonl").read_bytes()))
        assert Checkpoints(tmp_path / name / "checkpoints", read_only=True).steps()[-1] == result.step
    assert ends[0] == ends[1]
    assert not list((tmp_path / "local").rglob("state"))
