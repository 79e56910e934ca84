"""The loop: interrupted is uninterrupted, what is refused is refused in time, what a run leaves behind is true."""

import dataclasses
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from tests.runs import Once, keeping
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.files import checksum
from vit_jax.checkpoints.fingerprint import fingerprint
from vit_jax.data.base import Selection
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.errors import (
    CheckpointError,
    ConfigError,
    DataError,
    Preempted,
)
from vit_jax.objectives.images import pictures_of
from vit_jax.training import loop
from vit_jax.training.config import default_config, to_json, validate
from vit_jax.training.guard.replay import replay
from vit_jax.training.report.metrics import Clock
from vit_jax.training.report.report import compiled_evaluation, performance, read_examples, write_report

STEPS, LOG_EVERY, EVAL_EVERY, SAVE_EVERY = 10, 3, 4, 2


def configuration(**changes):
    """A run with everything that has a state or draws random numbers."""
    config = default_config()
    config.duration = f"{STEPS} steps"
    config.accumulation = 2
    config.model.update(name="vit_mu_patch4_8", width=16, depth=1, heads=2, mlp_dim=32, num_classes=6)
    config.model.update(in_channels=1, unroll=1, dropout_rate=0.1)
    config.objective.mixup = 0.4
    # 40 records: evaluation ends with padding, and training begins a new epoch inside a batch.
    config.data.update(source="synthetic", size=40, batch_size=16, train_transforms="flip_lr")
    config.ema.decay = 0.9
    config.evaluation.every = EVAL_EVERY
    config.checkpoint.every = SAVE_EVERY
    config.log.every = LOG_EVERY
    for key, value in changes.items():
        *sections, last = key.split("__")
        section = config
        for name in sections:
            section = section[name]
        section[last] = value
    validate(config)
    return config


@pytest.fixture(scope="module", autouse=True)
def programs(compile_cache):
    """Experiments of equal configurations are built and compiled once: it takes most of the time here."""
    built, compiled = {}, {}
    real_build, real_compile = loop.build, loop.compile_step

    def build_once(config, sources=None, earlier=None, objective=None):
        key = (to_json(config), sources, objective)
        if key not in built:
            built[key] = real_build(config, sources, earlier=earlier, objective=objective)
        return built[key]

    def compile_once(step, *shardings):
        if step not in compiled:
            compiled[step] = Once(real_compile(step, *shardings))
        return compiled[step]

    loop.build, loop.compile_step = build_once, compile_once
    yield compile_cache
    loop.build, loop.compile_step = real_build, real_compile


@pytest.fixture
def before_step(monkeypatch):
    """`before_step(n, act)` calls `act()` when the data of the n-th step of a call are there."""

    def install(count, act):
        real, calls = loop.shard_batch, []

        def hooked(batch, mesh):
            calls.append(batch)
            if len(calls) == count:
                act()
            return real(batch, mesh)

        monkeypatch.setattr(loop, "shard_batch", hooked)

    yield install
    monkeypatch.undo()


def terminate():
    os.kill(os.getpid(), signal.SIGTERM)


def fail():
    raise OSError("the disk with the images has gone")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run that nobody interrupted: its result, workdir and wall time."""
    workdir = tmp_path_factory.mktemp("finished") / "run"
    begin = time.monotonic()
    result = loop.train(configuration(), workdir)
    return result, workdir, time.monotonic() - begin


@pytest.fixture
def copy(finished, tmp_path):
    return shutil.copytree(finished[1], tmp_path / "copy")


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def steps_in(workdir):
    return Checkpoints(workdir / "checkpoints", read_only=True).steps()


def assert_same_run(result, workdir, finished):
    expected, other, _ = finished
    assert fingerprint(result.state) == fingerprint(expected.state)  # every bit of every leaf
    assert result.metrics == expected.metrics
    assert (workdir / "metrics.jsonl").read_bytes() == (other / "metrics.jsonl").read_bytes()
    assert result.summary["fingerprint"] == expected.summary["fingerprint"]


# ---- interrupted is uninterrupted


def test_the_run_has_everything_that_could_differ(finished):
    state = finished[0].state
    assert int(state.step) == STEPS
    assert fingerprint(state.ema) != fingerprint(state.params)
    assert len(jax.tree.leaves(state.opt_state)) > len(jax.tree.leaves(state.params))


@pytest.mark.parametrize("stops", [(1, 3), (8,)])
def test_stopped_by_a_signal_and_continued(finished, tmp_path, before_step, stops):
    done = 0
    for stop in stops:
        before_step(stop - done, terminate)
        with pytest.raises(
            Preempted, match=f"stopped by SIGTERM after step {stop}, which was saved"
        ) as caught:
            loop.train(configuration(), tmp_path)
        assert caught.value.exit_status == 75
        assert steps_in(tmp_path)[-1] == stop
        done = stop
    assert_same_run(loop.train(configuration(), tmp_path), tmp_path, finished)


@pytest.mark.parametrize("step", [2, 6])
def test_failed_and_continued(finished, tmp_path, before_step, step):
    before_step(step, fail)
    with pytest.raises(OSError, match="the disk with the images"):
        loop.train(configuration(), tmp_path)
    assert steps_in(tmp_path) == list(range(SAVE_EVERY, step, SAVE_EVERY))
    assert_same_run(loop.train(configuration(), tmp_path), tmp_path, finished)


KILLED = """
import os, signal
import tests.conftest
from tests.training.test_loop import configuration, loop
real, calls = loop.shard_batch, []

def hooked(batch, mesh):
    calls.append(batch)
    if len(calls) == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return real(batch, mesh)

loop.shard_batch = hooked
loop.train(configuration(), {workdir!r})
"""


def test_killed_and_continued(finished, tmp_path, programs):
    path = {"PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    environment = os.environ | path | keeping(programs)
    code = KILLED.format(workdir=str(tmp_path))
    killed = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    # Step 4 may have been on its way to the disk; step 2 was there before.
    assert steps_in(tmp_path) in ([2], [2, 4])
    assert_same_run(loop.train(configuration(), tmp_path), tmp_path, finished)


def test_a_signal_in_the_last_step_lets_it_finish(finished, tmp_path, before_step):
    before_step(STEPS, terminate)
    assert_same_run(loop.train(configuration(), tmp_path), tmp_path, finished)


@pytest.mark.usefixtures("nothing_compiled")
def test_a_finished_run_started_again_only_reports(finished, copy):
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    result = loop.train(configuration(), copy)
    assert_same_run(result, copy, finished)
    assert result.summary == finished[0].summary  # which is true wherever the workdir lies
    assert json.loads((copy / "summary.json").read_text()) == result.summary
    for path, content in before.items():
        if path.name not in ("summary.json",) and "tensorboard" not in path.parts:
            assert path.read_bytes() == content, path
    (copy / "summary.json").write_text("{")
    assert loop.train(configuration(), copy).summary["images_per_second"] is None


# ---- changed configurations


@pytest.mark.usefixtures("nothing_compiled")
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            dict(optimizer__learning_rate=0.5),
            r"optimizer.learning_rate: 0.001 -> 0.5.*allow_change=.'optimizer",
        ),
        (dict(model__width=32), "model.width: 16 -> 32"),
        (dict(seed=1), "seed: 0 -> 1"),
        (dict(duration="8 steps"), "duration: '10 steps' -> '8 steps'"),
    ],
)
def test_a_changed_configuration_is_refused(copy, changes, message):
    with pytest.raises(ConfigError, match=message):
        loop.train(configuration(**changes), copy)
    assert steps_in(copy) == steps_in(copy.parent / "copy")


@pytest.mark.usefixtures("nothing_compiled")
def test_what_cannot_be_allowed(copy):
    with pytest.raises(CheckpointError, match="belongs to a different model or configuration: params/"):
        loop.train(configuration(model__width=32), copy, allow_change=["model.width"])
    with pytest.raises(
        ConfigError, match=r"duration is '8 steps', 8 steps, but the run is already at step 10"
    ):
        loop.train(configuration(duration="8 steps"), copy, allow_change=["duration"])
    with pytest.raises(
        ConfigError, match=r"allow_change=.'durations'.: there is no such key. Did you mean 'duration'"
    ):
        loop.train(configuration(duration="8 steps"), copy, allow_change=["durations"])


def test_allowed_and_harmless_changes_go_on(finished, copy, capsys):
    changes = dict(duration="11 steps", log__every=1, checkpoint__keep_last=1)
    result = loop.train(configuration(**changes), copy, allow_change=["duration"])
    assert result.step == int(result.state.step) == 11
    assert steps_in(copy)[-1] == 11
    assert lines(copy)[: len(lines(finished[1]))] == lines(finished[1])
    printed = capsys.readouterr().err
    assert "changed: duration: '10 steps' -> '11 steps' (allowed)" in printed
    assert "resuming after step 10" in printed
    assert "log.every" not in printed


# ---- other data


def records(count=40, shift=0):
    """Made-up records that are not those of the configuration."""
    images = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 1), dtype=np.uint8)
    return ArraySource(images, (np.arange(count) + shift) % 6)


@pytest.mark.usefixtures("nothing_compiled")
def test_other_data_are_refused(finished, copy):
    own = finished[0].experiment.data.opened
    for sources, said in (
        ((records(), own[1]), "training data: 40 records as before, but with other contents"),
        (
            (own[0], records(30)),
            "started with different data: evaluation data: 40 records before, 30 now. Use another",
        ),
    ):
        with pytest.raises(DataError, match=said):
            loop.train(configuration(), copy, sources=sources)
    with pytest.raises(ConfigError, match=r"data\.size: 40 -> 41"):
        loop.train(configuration(data__size=41), copy)


def test_records_that_have_moved_are_the_same(finished, copy, capsys):
    moved = configuration(data__path="elsewhere")  # which made-up records do not read
    assert loop.train(moved, copy).metrics == finished[0].metrics
    assert "changed: data.path: '' -> 'elsewhere' (allowed)" in capsys.readouterr().err
    with pytest.raises(DataError, match="training data: 40 records as before, but with other contents"):
        loop.train(moved, copy, sources=(records(), finished[0].experiment.data.opened[1]))


@pytest.mark.usefixtures("nothing_compiled")
def test_a_step_is_not_made_again_with_other_data(finished, copy):
    with pytest.raises(
        DataError, match="was trained on different data: evaluation data: 40 records before, 30 now"
    ):
        replay(copy, 3, sources=(finished[0].experiment.data.opened[0], records(30)))


def test_allowed_data_go_on_and_are_the_run_s_from_then_on(finished, copy, capsys):
    changes, given = dict(duration="11 steps"), (records(), finished[0].experiment.data.opened[1])
    result = loop.train(configuration(**changes), copy, sources=given, allow_change=("data", "duration"))
    assert result.step == 11
    assert "changed: training data: 40 records as before, but with other contents" in capsys.readouterr().err
    with pytest.raises(DataError, match="training data: 40 records as before"):
        loop.train(configuration(**changes), copy)
    assert loop.train(configuration(**changes), copy, sources=given).metrics == result.metrics


def test_a_finished_run_is_evaluated_again_on_other_data(finished, copy):
    given = (finished[0].experiment.data.opened[0], records())
    result = loop.train(configuration(), copy, sources=given, allow_change=iter(["data"]))
    assert result.metrics != finished[0].metrics


def test_runs_of_earlier_versions_go_on_with_a_notice(finished, copy, capsys):
    for path in copy.glob("checkpoints/*/metadata/metadata"):
        metadata = json.loads(path.read_text())
        assert metadata.pop("data")["training"]["records"] == 40
        path.write_text(json.dumps(metadata | {"checksum": checksum(metadata)}))
    assert loop.train(configuration(), copy).metrics == finished[0].metrics
    assert "did not record its training data: the data cannot be compared" in capsys.readouterr().err


# ---- damaged checkpoints


def damage(step):
    for path in (step / "state").rglob("*"):
        if path.is_file():
            path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_a_damaged_checkpoint_is_skipped_for_an_older_one(finished, copy, caplog):
    kept = steps_in(copy)
    damage(copy / "checkpoints" / str(STEPS))
    result = loop.train(configuration(), copy)
    assert_same_run(result, copy, finished)
    assert f"checkpoint {copy / 'checkpoints' / str(STEPS)} is skipped" in caplog.text
    assert steps_in(copy)[-1] == STEPS
    # The damaged one is still there, under another name.
    assert {path.name for path in (copy / "checkpoints").iterdir()} >= {
        f"{STEPS}.unreadable",
        *map(str, kept[1:]),
    }


@pytest.mark.usefixtures("nothing_compiled")
def test_without_an_intact_checkpoint_nothing_is_started_or_deleted(copy):
    for step in steps_in(copy):
        damage(copy / "checkpoints" / str(step))
    before = {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError, match="no intact checkpoint") as caught:
        loop.train(configuration(), copy)
    for step in steps_in(copy):
        assert f"step {step}" in str(caught.value)
    assert {path: path.read_bytes() for path in copy.rglob("*") if path.is_file()} == before


def test_what_is_kept(finished):
    evaluated = {
        line["step"]: line["eval/accuracy"] for line in lines(finished[1]) if "eval/accuracy" in line
    }
    assert set(evaluated) == {4, 8, 10}
    best = max(evaluated, key=lambda step: (evaluated[step], step))
    assert set(steps_in(finished[1])) == {8, 10, best}


# ---- what a run leaves behind


def test_metrics(finished):
    written = lines(finished[1])
    assert [line["step"] for line in written if "train/loss" in line] == [3, 6, 9, 10]
    assert all(
        set(line) == {"step", "train/loss", "train/accuracy", "train/gradient_norm", "train/learning_rate"}
        for line in written
        if "train/loss" in line
    )
    evaluations = [line for line in written if "eval/loss" in line]
    assert [line["step"] for line in evaluations] == [4, 8, 10]
    assert evaluations[-1] == {"step": 10} | {f"eval/{k}": v for k, v in finished[0].metrics.items()}
    # Counts of 40 records: padding has not been counted.
    assert finished[0].metrics["accuracy"] * 40 == pytest.approx(round(finished[0].metrics["accuracy"] * 40))
    schedule = finished[0].experiment.optimisation.schedule
    assert written[-2]["train/learning_rate"] == pytest.approx(float(schedule(9)), rel=1e-5)
    events = b"".join(path.read_bytes() for path in (finished[1] / "tensorboard").iterdir())
    for name in (b"train/loss", b"eval/accuracy"):
        assert name in events


def test_summary(finished):
    result, workdir, wall = finished
    summary = json.loads((workdir / "summary.json").read_text())
    assert summary == result.summary
    assert summary["metrics"] == result.metrics
    assert summary["step"] == STEPS
    assert set(summary["seconds"]) == {"compile", "data_wait", "step", "evaluation", "checkpoint", "other"}
    assert all(seconds > 0 for seconds in summary["seconds"].values())
    assert 0.95 * wall - 0.05 < sum(summary["seconds"].values()) <= wall + 0.01
    assert summary["checkpoint"] == f"checkpoints/{STEPS}"
    trained = summary["seconds"]["step"] + summary["seconds"]["data_wait"]
    assert summary["images_per_second"] == pytest.approx(STEPS * 16 / trained, rel=0.05)
    flops = result.experiment.task.objective.train_flops
    assert summary["train_flops_per_image"] == flops > 0
    assert summary["flops_per_second"] == pytest.approx(flops * summary["images_per_second"])
    assert summary["mfu"] is None  # CPUs have no published peak
    assert summary["devices"] == "8 x cpu"
    checkpoints = Checkpoints(workdir / "checkpoints", read_only=True)
    params, metadata = checkpoints.restore_part("params", result.experiment.abstract_state.params)
    assert summary["fingerprint"] == fingerprint(params)
    assert metadata["class_names"] == [str(label) for label in range(6)]
    assert metadata["config"] == json.loads(to_json(configuration()))
    assert summary["parameters"] == sum(leaf.size for leaf in jax.tree.leaves(params))


def test_a_result_fits_on_a_screen(finished, tmp_path):
    result = finished[0]
    lines = repr(result).splitlines()
    assert len(lines) <= 10
    assert all(len(line) <= 200 for line in lines)
    for part in (
        f"step         {STEPS} of {STEPS}",
        f"accuracy {result.metrics['accuracy']:.4f}",
        str(result.workdir),
    ):
        assert part in repr(result)
    html = result._repr_html_()
    assert html.count("<tr>") == len(lines) - 1
    assert "<img" not in html
    (tmp_path / "a.png").write_bytes(b"png")
    pictured = dataclasses.replace(result, workdir=tmp_path, summary=result.summary | {"figure": "a.png"})
    assert "data:image/png;base64,cG5n" in pictured._repr_html_()
    odd = dataclasses.replace(result, workdir=Path("<b>"))
    assert "<b>" not in odd._repr_html_()


def test_utilisation_where_the_peak_is_known(finished, monkeypatch):
    monkeypatch.setattr("vit_jax.training.report.report.peak_flops", lambda device: 1e9)
    clock = Clock(iter(range(100)).__next__)
    with clock("step"):
        pass
    report = performance(finished[0].experiment, clock, 10)
    assert report["images_per_second"] == 160
    assert report["mfu"] == pytest.approx(160 * report["train_flops_per_image"] / 8e9)


def test_report(finished, tmp_path):
    result = finished[0]
    experiment = result.experiment
    config = experiment.config.copy_and_resolve_references()
    config.evaluation.update(illustrate=3, baselines=("nearest_neighbour",))
    rng = np.random.default_rng(0)
    images, labels = rng.integers(0, 256, (20, 8, 8, 1), dtype=np.uint8), np.arange(20) % 6
    names = ("cat", "a/b c", "é", "d", "e", "f")
    source = ArraySource(images, labels, names)
    data = dataclasses.replace(experiment.data, train_source=source, eval_source=source)
    experiment = dataclasses.replace(experiment, config=config, data=data)
    added = write_report(experiment, result.state, tmp_path, compiled_evaluation(experiment))
    assert added["baselines"] == {"nearest_neighbour": 1.0}
    assert added["figure"] == "illustration.png"
    for name in ("illustration", "report"):
        with Image.open(tmp_path / f"{name}.png") as image:
            assert image.format == "PNG"
    samples = sorted(path.name for path in (tmp_path / "samples").iterdir())
    assert samples == ["0_cat.png", "1__.png", "2_e.png"]  # spread over the classes
    for index, name in zip((0, 2, 4), samples):
        with Image.open(tmp_path / "samples" / name) as image:
            np.testing.assert_array_equal(np.asarray(image), images[index, ..., 0])


def test_people_see_usual_colours_where_the_model_sees_others():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    source = ArraySource(images, np.arange(4), tuple("abcd"))
    data = SimpleNamespace(eval_source=source, transforms=("", "resize(8)|hsv"), num_classes=4)
    batch, _ = read_examples(SimpleNamespace(data=data), np.asarray([2, 0]))
    np.testing.assert_array_equal(batch["picture"], images[[2, 0]])
    assert (batch["image"] != batch["picture"]).any()
    np.testing.assert_array_equal(pictures_of(batch, None), batch["picture"])
    np.testing.assert_array_equal(pictures_of({"image": batch["image"]}, None), batch["image"])


def test_the_report_is_of_the_whole_set_and_its_metrics_those_of_the_evaluation(finished, tmp_path):
    result = finished[0]
    write_report(result.experiment, result.state, tmp_path, compiled_evaluation(result.experiment))
    report = json.loads((tmp_path / "report.json").read_text())
    source = result.experiment.data.eval_source
    assert report["split"] == result.experiment.data.section.eval_split
    assert report["records"] == len(source)
    assert report["accuracy"] == result.metrics["accuracy"]
    assert report["top5_accuracy"] == result.metrics["top5_accuracy"]
    assert [one["records"] for one in report["classes"]] == np.bincount(source.labels).tolist()
    assert [one["class"] for one in report["classes"]] == list(source.class_names)
    assert sum(count for *_, count in report["confusion"]) == len(source)


def test_illustrated_are_mistakes_of_the_whole_set_first(finished, tmp_path, monkeypatch):
    """A folder's first batch is of one class."""
    result, drawn = finished[0], []
    experiment = result.experiment
    config = experiment.config.copy_and_resolve_references()
    config.evaluation.illustrate, config.data.eval_batch_size = 12, 16
    order = np.argsort(experiment.data.eval_source.labels, kind="stable")
    source = Selection(experiment.data.eval_source, order)
    data = dataclasses.replace(experiment.data, section=config.data, eval_source=source)
    experiment = dataclasses.replace(experiment, config=config, data=data)
    monkeypatch.setattr(
        "vit_jax.training.report.report.draw", lambda picture, path: drawn.append(picture) or path
    )
    write_report(experiment, result.state, tmp_path, compiled_evaluation(experiment))
    (picture,) = drawn
    assert picture.title == "Predictions: 12 of the 40 records of split 'test', mistakes first"
    right = [example.right for example in picture.examples]
    assert right == sorted(right)
    assert False in right
    names = {source.name_of(index): source.labels[index] for index in range(len(source))}
    assert {names[example.record] for example in picture.examples} == set(range(6))
    samples = {path.name.split("_")[1] for path in (tmp_path / "samples").iterdir()}
    assert samples == {f"{label}.png" for label in range(6)}


def test_the_loop_moves_nothing_by_accident(tmp_path, monkeypatch):
    def careless(self, step):
        jnp.ones(3) + np.ones(3, np.float32)

    monkeypatch.setattr(loop.Progress, "advance", careless)
    with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device transfer"):
        loop.train(configuration(), tmp_path)
