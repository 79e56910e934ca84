"""Numbers that go wrong: found in the step, left out, recorded, never saved, and the same when they are made again."""

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.faults import planting
from tests.faults.planting import GRADIENT, INF, LOSS, NAN, SPIKE, Planted, record_at
from tests.runs import on_one_device
from tests.training.test_loop import configuration, lines
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.fingerprint import fingerprint, not_finite
from vit_jax.commands.replay import _text as replay_text
from vit_jax.errors import CheckpointError, DataError, DivergedError
from vit_jax.training import loop
from vit_jax.training.guard.incidents import read_incident
from vit_jax.training.guard.replay import replay
from vit_jax.training.guard.restoring import restore_state
from vit_jax.training.guard.spikes import SpikeRule

HEALTHY = Planted({}, size=16)


@pytest.fixture(scope="module", autouse=True)
def faulty():
    with planting.planted():
        yield


TWO = dict(divergence__max_skipped=1, divergence__spike_window=2)


def small(**changes):
    given = dict(
        duration="6 steps", checkpoint__every=1, evaluation__every=6, log__every=1, objective__mixup=0.0
    )
    return configuration(data__train_transforms="", data__source="synthetic", **(given | changes))


def train(config, workdir, marks):
    return loop.train(config, workdir, sources=(Planted(marks), HEALTHY))


def abstract_of(config):
    return loop.build(config, (Planted({}), HEALTHY)).abstract_state


def saved_states(config, workdir):
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    abstract = abstract_of(config)
    return {step: checkpoints.restore(abstract, step)[0] for step in checkpoints.steps()}


# What is planted, where it is first seen, and which metrics show it.
FAULTS = {
    "input": (NAN, "the images as read"),
    "infinite input": (INF, "the images as read"),
    "loss": (LOSS, "the loss"),
    "gradient": (GRADIENT, "gradients alone: the backward pass"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_step_that_goes_wrong_ends_the_run_and_is_the_same_again(tmp_path, fault):
    mark, first = FAULTS[fault]
    # Row 13 lies on one device of eight, and in one of two microbatches; every step is a save step.
    config = small()
    marks = {record_at(config, 3, row=13): mark}
    with pytest.raises(DivergedError, match=r"^step 3: loss .*; its update was skipped") as caught:
        train(config, tmp_path, marks)
    assert caught.value.exit_status == 5
    assert "\n" not in str(caught.value)
    states = saved_states(config, tmp_path)
    assert max(states) == 2
    assert not any(not_finite(state) for state in states.values())

    found = replay(tmp_path, sources=(Planted(marks), HEALTHY))
    assert (found.step, found.start, found.kind, found.reproduced, found.environment) == (
        3,
        2,
        "not finite",
        True,
        [],
    )
    assert found.first == first
    assert [row["record"] for row in found.records] == (list(marks) if fault.endswith("input") else [])
    assert found.microbatches == ([] if fault == "gradient" else [1])
    if fault.endswith("input"):
        assert [(row["row"], row["name"]) for row in found.affected] == [(13, f"record {next(iter(marks))}")]
        assert found.activations[:2] == ["embedded", "blocks/0"]
    text = replay_text(found)
    assert text.startswith("step 3, replayed from the checkpoint of step 2: loss ")
    assert f", bitwise equal to the run\nfirst value that is not finite: {first}\n" in text
    # Planted in the first parameter alone; what is in the images is in all.
    assert (len(found.gradients) == 1) == (fault == "gradient")


def test_replay_refuses_other_data_and_steps_without_record(tmp_path):
    config = small()
    marks = {record_at(config, 2): NAN}
    with pytest.raises(CheckpointError, match="has no record; steps recorded there: none"):
        replay(tmp_path, sources=(Planted(marks), HEALTHY))
    with pytest.raises(DivergedError):
        train(config, tmp_path, marks)
    with pytest.raises(DataError, match="step 2 had different records from those the data gives now"):
        replay(tmp_path, sources=(Planted(marks, size=150), HEALTHY))
    # A step that went well has no record; it can be looked at all the same.
    found = replay(tmp_path, 1, sources=(Planted(marks), HEALTHY))
    assert (found.kind, found.reproduced, found.start, found.first) == ("", None, 0, "")
    # The same step without what was planted.
    found = replay(tmp_path, sources=(Planted({}), HEALTHY))
    assert (found.kind, found.reproduced) == ("", False)


def test_some_steps_may_be_left_out_and_then_no_more(tmp_path, capsys):
    config = small(divergence__max_skipped=2)
    marks = {record_at(config, 2): NAN, record_at(config, 4): GRADIENT}
    result = train(config, tmp_path, marks)
    assert result.step == 6
    assert result.summary["skipped_steps"] == {"not finite": 2, "spike": 0}
    assert "step 2: loss nan, gradient norm nan; its update was skipped" in capsys.readouterr().err
    counts = [
        line["train/skipped_not_finite"] for line in lines(tmp_path) if "train/skipped_not_finite" in line
    ]
    assert counts == [1, 1, 2, 2, 2]
    # No mean of the step that went wrong, and nothing in it that JSON does not have.
    assert "train/loss" not in next(line for line in lines(tmp_path) if line["step"] == 2)
    # What the run did afterwards is what it would have done without those steps' updates.
    assert not not_finite(result.state)
    assert int(result.state.step) == 6
    assert replay(tmp_path, 2, sources=(Planted(marks), HEALTHY)).reproduced
    with pytest.raises(DivergedError, match=r"^step 6: .* resume past it with divergence\.max_skipped=3\."):
        train(config, tmp_path / "more", marks | {record_at(config, 6): LOSS})


def test_the_learning_rate_goes_on_where_an_update_is_left_out(tmp_path):
    config = small(divergence__max_skipped=2)
    result = train(config, tmp_path / "wrong", {record_at(config, 3): NAN})
    train(config, tmp_path / "right", {})  # the schedule is a cosine
    wrong, right = (
        [line["train/learning_rate"] for line in lines(tmp_path / name) if "train/learning_rate" in line]
        for name in ("wrong", "right")
    )
    assert wrong == right
    counts = [int(leaf) for leaf in jax.tree.leaves(result.state.opt_state) if leaf.dtype == jnp.int32]
    assert sorted(set(counts)) == [5, 6]  # the moments have seen one update less


def test_interrupted_is_uninterrupted_with_spikes_and_steps_left_out(tmp_path, monkeypatch):
    config = small(divergence__spike_deviations=6.0, **TWO)
    marks = {record_at(config, 2): NAN, record_at(config, 5): SPIKE}
    whole = train(config, tmp_path / "whole", marks)
    assert whole.summary["skipped_steps"] == {"not finite": 1, "spike": 1}

    class Stop(Exception):
        pass

    real, calls = loop.shard_batch, []

    def stopping(batch, mesh):
        calls.append(batch)
        if len(calls) == 5:
            raise Stop
        return real(batch, mesh)

    monkeypatch.setattr(loop, "shard_batch", stopping)
    with pytest.raises(Stop):
        train(config, tmp_path / "parts", marks)
    monkeypatch.setattr(loop, "shard_batch", real)
    parts = train(config, tmp_path / "parts", marks)
    assert fingerprint(parts.state) == fingerprint(whole.state)
    assert parts.summary["skipped_steps"] == whole.summary["skipped_steps"]
    assert lines(tmp_path / "parts") == lines(tmp_path / "whole")

    incident = read_incident(tmp_path / "whole", 5)
    assert (incident.kind, incident.names[0]) == ("spike", f"record {record_at(config, 5)}")
    # Step 5's update was left out: all of the state but the step and what goes with it is that of step 4.
    found = replay(tmp_path / "whole", 5, sources=(Planted(marks), HEALTHY))
    assert (found.kind, found.reproduced, found.first) == ("spike", True, "")


def test_spikes_can_be_looked_for_from_a_checkpoint_on_and_no_more_from_another(tmp_path):
    plain, looking = small(divergence__max_skipped=2), small(divergence__spike_deviations=6.0, **TWO)
    sources = (Planted({}), HEALTHY)
    loop.train(plain, tmp_path, sources=sources)
    checkpoints = Checkpoints(tmp_path / "checkpoints", read_only=True)
    abstract = loop.build(looking, sources).abstract_state
    state, metadata = restore_state(checkpoints, abstract)
    assert metadata["step"] == 6
    np.testing.assert_array_equal(state.loss_history.losses, [0, 0])
    assert state.loss_history.losses.sharding == abstract.loss_history.losses.sharding
    # And back: the history that is stored is not wanted.
    with Checkpoints(tmp_path / "others") as others:
        others.save(6, state, {})
    back, _ = restore_state(Checkpoints(tmp_path / "others", read_only=True), abstract_of(plain), 6)
    assert back.loss_history is None
    assert fingerprint(back) == metadata["fingerprint"]


def test_a_spike_by_hand():
    rule = SpikeRule(deviations=3.0, window=4)
    history, seen = rule.init(), []
    for loss in (1.0, 2.0, jnp.nan, 3.0, 2.0, 100.0, 2.0, jnp.inf, 4.0):
        spike, history = rule.judge(history, jnp.float32(loss))
        seen.append(bool(spike))
    # Mean 2 and deviation sqrt(1/2) of 1, 2, 3, 2: 100 is above 2 + 3 * 0.707, which is noted in its place.
    assert seen == [False] * 5 + [True] + [False] * 3
    bound = 2 + 3 * np.sqrt(0.5)
    np.testing.assert_allclose(history.losses, [bound, 2.0, 4.0, 2.0], rtol=1e-6)
    assert int(history.count) == 7  # what is not finite is not noted


def test_a_loss_that_has_risen_for_good_is_no_spike_for_long():
    rule = SpikeRule(deviations=3.0, window=8)
    history = rule.init()
    for loss in (1.0, 1.1, 0.9, 1.0, 1.1, 0.9, 1.0, 1.0):
        _, history = rule.judge(history, jnp.float32(loss))
    spikes = []
    for _ in range(20):
        spike, history = rule.judge(history, jnp.float32(3.0))
        spikes.append(bool(spike))
    assert spikes[0]
    assert not any(spikes[8:])


def test_a_state_that_is_not_finite_is_not_saved(tmp_path, monkeypatch):
    # A value that no step looks at: the average of a parameter, which only evaluation uses.
    real = loop.build

    def spoiled(*given, **more):
        experiment = real(*given, **more)

        def bad():
            state = experiment.init()
            token = state.ema["class_token"].at[..., 0].set(jnp.nan)
            return dataclasses.replace(state, ema={**state.ema, "class_token": token})

        return dataclasses.replace(experiment, init=bad)

    monkeypatch.setattr(loop, "build", spoiled)
    message = (
        r"^the state after step 1 is not finite in ema/class_token and was not saved; .* is not written yet"
    )
    with pytest.raises(DivergedError, match=message):
        train(small(), tmp_path, {})
    assert Checkpoints(tmp_path / "checkpoints", read_only=True).steps() == []


# ---- the real command


COMMAND = """
from vit_jax.training.config import default_config

def get_config():
    config = default_config()
    config.duration = "6 steps"
    config.model.update(name="vit_mu_patch4_8", in_channels=1, width=16, depth=1, heads=2, mlp_dim=32)
    config.data.update(source="arrays", path="{path}", batch_size=16)
    config.evaluation.every = "6 steps"
    config.checkpoint.every = "1 steps"
    config.log.update(every="1 steps", tensorboard=False, progress=False)
    return config
"""


def command(*arguments):
    environment = os.environ | on_one_device() | {"PYTHONPATH": str(Path(__file__).parents[2])}
    return subprocess.run(
        [sys.executable, planting.__file__, *map(str, arguments)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_the_command_ends_with_one_line_and_replay_finds_the_record(tmp_path):
    (tmp_path / "config.py").write_text(COMMAND.format(path=tmp_path))
    from vit_jax.training.config import load_config

    bad = record_at(load_config(str(tmp_path / "config.py")), 3, row=5)
    for split, source in (("train", Planted({bad: NAN})), ("test", HEALTHY)):
        np.savez(tmp_path / f"{split}.npz", images=source._images, labels=source.labels)
    workdir = tmp_path / "run"
    ended = command("train", "--config", tmp_path / "config.py", "--workdir", workdir)
    assert ended.returncode == 5, ended.stderr
    assert ended.stderr.splitlines()[-1].startswith(
        "vit-jax: step 3: loss nan, gradient norm nan; its update was skipped"
    )
    assert "Traceback" not in ended.stderr
    found = command("replay", "--workdir", workdir, "--json")
    assert found.returncode == 0, found.stderr
    values = json.loads(found.stdout)
    assert values["reproduced"] is True
    assert values["metrics"]["loss"] == "nan"
    assert [row["record"] for row in values["records"]] == [bad]
