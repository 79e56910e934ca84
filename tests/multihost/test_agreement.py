"""Processes that do not fit together say so, all of them, at once."""

import json
import sys
import time

import numpy as np
import pytest

from tests.multihost.jobs import DRIVER, TRAIN, job, outcomes, run_job
from tests.runs import CONFIG
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.training.guard import agreement
from vit_jax.training.parts.identity import data_identity

# So long that the signal comes in time; little beside training.
SLOW = (
    CONFIG.replace('"6 steps"', '"80 steps"')
    .replace('"3 steps"', '"50%"')
    .replace('illustrate=2, baselines=("nearest_neighbour",)', "illustrate=0")
)


# Disks are given a second, not ten.
SOON = """
import sys
from vit_jax.cli import main
from vit_jax.training.guard import agreement

agreement.VISIBLE_WITHIN = 1.0
sys.exit(main())
"""


def ours(err):
    """What we say, without the lines of the libraries."""
    return [line for line in err.splitlines() if line.startswith("vit-jax: ")]


def test_another_configuration_is_refused_by_all(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    command = (*TRAIN, "--config", tmp_path / "config.py", "--workdir", tmp_path / "run")
    key = "--config.optimizer.learning_rate"
    began = time.monotonic()
    ended = run_job(command, 2, 1, each=([f"{key}=0.001"], [f"{key}=0.002"]))
    assert time.monotonic() - began < 60  # and not the minutes that processes wait for each other
    for index, one in enumerate(ended):
        assert one.status == 2, one
        joined, refused = ours(one.err)
        assert joined.startswith(f"vit-jax: process {index} of 2 (coordinator localhost:")
        assert refused == (
            "vit-jax: the processes of this run differ: optimizer.learning_rate is 0.001 on process 0, 0.002 on "
            "process 1; start all of them with the same configuration and installation."
        )
        assert "Traceback" not in one.err
    assert not (tmp_path / "run").exists()


def test_another_workdir_is_refused_by_all(tmp_path):
    (tmp_path / "config.py").write_text(CONFIG)
    command = (sys.executable, "-c", SOON, "train", "--config", tmp_path / "config.py")
    ended = run_job(command, 2, 1, each=([f"--workdir={tmp_path / 'a'}"], [f"--workdir={tmp_path / 'b'}"]))
    for one in ended:
        assert one.status == 6, one
        assert ours(one.err)[1].endswith(
            "of process 1 is not that of process 0; it must be on a disk that all processes share."
        )


def test_a_signal_to_one_stops_all_after_the_same_step(tmp_path):
    (tmp_path / "config.py").write_text(SLOW)
    alone, stopped = tmp_path / "undisturbed", tmp_path / "stopped"
    train = (*TRAIN, "--config", tmp_path / "config.py", "--workdir")
    kept = tmp_path / "compiled"
    assert [one.status for one in run_job((*train, alone), 2, 1, cache=kept)] == [0, 0]

    with job((*DRIVER, "slowly", tmp_path / "config.py", stopped), 2, 1, cache=kept) as running:
        metrics, until = stopped / "metrics.jsonl", time.monotonic() + 120
        while not (metrics.exists() and metrics.read_text()):
            assert time.monotonic() < until
            assert all(one.poll() is None for one in running)
            time.sleep(0.1)
        running[1].terminate()
        ended = outcomes(running)
    last = {line for one in ended for line in one.err.splitlines() if "which was saved" in line}
    assert [one.status for one in ended] == [75, 75], ended
    assert len(last) == 1  # the same step
    step = int(last.pop().split("after step ")[1].split(",")[0])
    assert 2 <= step < 80
    assert (stopped / "checkpoints" / str(step) / "state").is_dir()

    # The records came from outside before, and are those of the configuration now.
    ended = run_job((*train, stopped, "--allow-change", "data"), 2, 1, cache=kept)
    assert [one.status for one in ended] == [0, 0], ended
    assert f"resuming after step {step}" in ended[0].err
    first, second = (json.loads((workdir / "summary.json").read_text()) for workdir in (alone, stopped))
    assert first["fingerprint"] == second["fingerprint"]  # of every bit
    assert (alone / "metrics.jsonl").read_text() == (stopped / "metrics.jsonl").read_text()


def source(labels, value=0):
    images = np.full((len(labels), 2, 2, 1), value, np.uint8)
    return ArraySource(images, np.asarray(labels), class_names=("a", "b"))


def test_a_description_tells_records_apart():
    known = agreement.describe_source(source([0, 1, 1, 0]))
    assert agreement.describe_source(source([0, 1, 1, 0])) == known
    for other, key in (
        (source([0, 1, 1, 0, 0]), "number of records"),
        (source([0, 0, 1, 0]), "labels"),
        (source([0, 1, 1, 0], value=1), "first, middle and last record"),
    ):
        assert agreement.describe_source(other)[key] != known[key]


def test_fingerprints_of_all_records_are_compared(monkeypatch):
    """A process with another copy of the data, whose few records that are read are the same, is told."""
    compared = {}
    monkeypatch.setattr(agreement.jax, "process_count", lambda: 2)
    monkeypatch.setattr(agreement, "together", lambda name, action: action())
    monkeypatch.setattr(agreement, "_compare", lambda name, values, *rest: compared.update(values))
    train, evaluation = source([0, 1, 1, 0]), source([0, 1])
    agreement.check_data(train, evaluation, lambda: data_identity(train, evaluation, given=True))
    assert compared["training data: fingerprint"] == train.fingerprint()
    assert compared["evaluation data: fingerprint"] == evaluation.fingerprint()


def test_the_hash_of_a_package_is_of_its_files_and_their_names(tmp_path):
    (tmp_path / "a.py").write_text("x = 1\n")
    first = agreement.source_hash(tmp_path)
    (tmp_path / "notes.txt").write_text("not code")
    assert agreement.source_hash(tmp_path) == first
    (tmp_path / "a.py").write_text("x = 2\n")
    second = agreement.source_hash(tmp_path)
    (tmp_path / "a.py").rename(tmp_path / "b.py")
    assert len({first, second, agreement.source_hash(tmp_path)}) == 3


def test_one_process_compares_nothing(monkeypatch, tmp_path):
    monkeypatch.setattr(agreement, "source_hash", lambda package: pytest.fail("no need to"))
    agreement.check_settings({})
    agreement.check_data(None, None)  # pyright: ignore[reportArgumentType]
    agreement.check_workdir(tmp_path / "untouched")
    assert not (tmp_path / "untouched").exists()
