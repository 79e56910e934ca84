"""What is found in a workdir is what was trained, and evaluates to the same numbers."""

import json
import shutil

import jax
import numpy as np
import pytest

from tests.inference.conftest import configuration
from tests.tiny import assert_trees_close
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.files import checksum
from vit_jax.checkpoints.fingerprint import fingerprint
from vit_jax.data.base import Selection
from vit_jax.errors import CheckpointError, ConfigError, DataError
from vit_jax.inference.evaluating import evaluate_workdir
from vit_jax.inference.workdir import find
from vit_jax.training.config import to_json
from vit_jax.training.experiment import build
from vit_jax.training.parts.identity import data_identity
from vit_jax.training.report.metrics import MetricWriter


def best_step(workdir):
    return Checkpoints(workdir / "checkpoints", read_only=True).best_step()


def test_find(run):
    result, workdir = run
    saved = find(workdir)
    assert (saved.step, saved.averaged) == (4, True)
    assert to_json(saved.config) == to_json(result.experiment.config)
    assert saved.class_names == tuple(map(str, range(10)))
    assert saved.metrics == result.metrics
    assert saved.eval_transforms == ""
    params = saved.params(result.experiment.abstract_state.params)
    assert fingerprint(params) == fingerprint(result.state.ema)
    assert find(str(workdir), step=2).step == 2
    assert find(workdir / "checkpoints" / "2").step == 2
    assert find(workdir, best=True).step == best_step(workdir)


def test_evaluation_is_that_of_training(run, capfd):
    result, workdir = run
    assert evaluate_workdir(workdir) == {"step": 4} | result.metrics
    assert capfd.readouterr().err == ""


def arrays(folder, **saved):
    """A split whose images are bright where the label is odd."""
    images = np.full((12, 8, 8, 1), 9, np.uint8)
    folder.mkdir()
    np.savez(folder / "test.npz", images=images, **saved)
    return ["data.source=arrays", f"data.path={folder}"]


def test_labels_mean_classes_by_name(run, tmp_path, capfd):
    """The run's classes were never named: labels are positions, and that is said; names that it cannot know are not."""
    _, workdir = run
    names = [str(digit) for digit in range(10)]
    expected = evaluate_workdir(workdir, arrays(tmp_path / "plain", labels=np.arange(12) % 10))
    assert (
        "labels are taken by position, since the classes of the model and the data" in capfd.readouterr().err
    )
    some = arrays(tmp_path / "some", labels=np.arange(12) % 10 // 5, class_names=["3", "1"])
    evaluate_workdir(workdir, some)
    assert "the data has 2 of the 10 classes of the model" in capfd.readouterr().err
    order = np.random.default_rng(0).permutation(10)
    turned = [names[i] for i in order]
    labels = np.argsort(order)[np.arange(12) % 10]
    assert (
        evaluate_workdir(workdir, arrays(tmp_path / "turned", labels=labels, class_names=turned)) == expected
    )
    assert capfd.readouterr().err == ""
    fewer = arrays(tmp_path / "fewer", labels=np.arange(12) % 4)
    evaluate_workdir(workdir, fewer)
    assert "by position, 4 of 10, since" in capfd.readouterr().err
    with pytest.raises(DataError, match="the model has 10 classes and the data has 11 classes"):
        evaluate_workdir(workdir, arrays(tmp_path / "more", labels=np.arange(12) % 11))


def test_evaluation_needs_nothing_of_training(run, tmp_path):
    """Neither its split, nor records of every class, nor enough records for its warmup."""
    result, workdir = run
    other = ["data.train_split=gone", "data.balanced=True", "objective.class_weights=balanced"]
    assert evaluate_workdir(workdir, [*other, "schedule.warmup='3 steps'"]) == {"step": 4} | result.metrics
    folder = arrays(tmp_path / "some", labels=np.zeros(12, int))
    assert evaluate_workdir(workdir, [*other, *folder])["step"] == 4


def test_evaluation_with_another_batch_and_without_the_training_baselines(run, tmp_path):
    result, workdir = run
    metrics = evaluate_workdir(workdir, ["data.eval_batch_size=56", "evaluation.baselines=('none',)"])
    assert metrics.pop("step") == 4
    assert metrics == pytest.approx(result.metrics, rel=1e-5)
    assert metrics["accuracy"] == result.metrics["accuracy"]


def test_without_a_moving_average_the_parameters_themselves(run, tmp_path):
    result, workdir = run
    metadata = find(workdir).checkpoints.metadata(4)
    kept = {name: metadata[name] for name in ("config", "class_names", "eval_transforms")}
    with Checkpoints(tmp_path / "checkpoints") as checkpoints:
        checkpoints.save(1, {"params": result.state.params}, kept)
    saved = find(tmp_path)
    assert (saved.averaged, saved.metrics) == (False, {})
    params = saved.params(result.experiment.abstract_state.params)
    assert fingerprint(params) == fingerprint(result.state.params)
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    assert_trees_close(saved.params(shapes), params, rtol=0, atol=0)  # on one device


def test_what_is_refused(run, tmp_path):
    _, workdir = run
    with pytest.raises(CheckpointError, match=r"'.*none' does not exist; give the workdir"):
        find(tmp_path / "none")
    with MetricWriter(tmp_path / "empty", tensorboard=False):
        pass
    for arguments in ({}, {"best": True}):
        with pytest.raises(CheckpointError, match="has no checkpoint yet"):
            find(tmp_path / "empty", **arguments)
    with pytest.raises(CheckpointError, match="has no checkpoint of step 3; it has 2, 4"):
        find(workdir, step=3)
    with pytest.raises(CheckpointError, match="has no checkpoint of step 3; it has 2, 4"):
        find(workdir / "checkpoints" / "3")
    with pytest.raises(ConfigError, match=r"'data.pat' is not a configuration key. Did you mean 'data.path'"):
        evaluate_workdir(workdir, ["data.pat=x"])


def test_a_damaged_checkpoint_is_named_and_stays(run, tmp_path):
    copy = shutil.copytree(run[1], tmp_path / "copy")
    file = copy / "checkpoints" / "4" / "metadata" / "metadata"
    file.write_bytes(file.read_bytes().replace(b'"seed": 0', b'"seed": 1'))
    assert find(copy).step == 2
    with pytest.raises(CheckpointError, match="is damaged: its checksum differs"):
        find(copy, step=4)
    for file in (copy / "checkpoints" / "2" / "state").rglob("*"):
        if file.is_file():
            file.write_bytes(b"")
    with pytest.raises(CheckpointError, match="step 2: its arrays cannot be read"):
        evaluate_workdir(copy)
    assert sorted(path.name for path in (copy / "checkpoints").iterdir() if path.is_dir()) == ["2", "4"]
    np.testing.assert_array_equal(find(copy).checkpoints.steps(), [2, 4])


def given_run(run, tmp_path):
    """The workdir of the run as if its records had come from outside."""
    workdir = shutil.copytree(run[1], tmp_path / "given")
    for path in workdir.glob("checkpoints/*/metadata/metadata"):
        metadata = json.loads(path.read_text())
        assert not metadata["data"]["given"]
        metadata["data"]["given"] = True
        path.write_text(json.dumps(metadata | {"checksum": checksum(metadata)}))
    return workdir


def test_a_run_on_records_from_outside_is_asked_for_them(run, tmp_path):
    workdir, own = given_run(run, tmp_path), run[0].experiment.data.opened
    for overrides in ([], ["data.eval_split=train"], ["data.path=elsewhere"], ["seed=0"]):
        with pytest.raises(
            ConfigError, match="was trained on records given to it in Python, which its configuration"
        ):
            evaluate_workdir(workdir, overrides)
    assert evaluate_workdir(workdir, sources=own) == {"step": 4} | run[0].metrics
    assert evaluate_workdir(workdir, sources=own[1]) == {"step": 4} | run[0].metrics
    assert evaluate_workdir(workdir, ["data.source=digits"]) == {"step": 4} | run[0].metrics
    with pytest.raises(ConfigError, match=r"got sources and also data\.source=digits; give only one of them"):
        evaluate_workdir(workdir, ["data.source=digits"], sources=own)


def test_plain_sequences_are_evaluated(run):
    own = run[0].experiment.data.opened[1]
    records = [(own[i]["image"], int(own[i]["label"])) for i in range(0, 40, 3)]
    expected = evaluate_workdir(run[1], sources=Selection(own, range(0, 40, 3)))
    assert evaluate_workdir(run[1], sources=records) == expected
    named = [(image, str(label)) for image, label in records]
    assert evaluate_workdir(run[1], sources=named) == expected
    with pytest.raises(
        DataError, match="record 0 of the evaluation records has label 'ten', which is none of the 10"
    ):
        evaluate_workdir(run[1], sources=[(records[0][0], "ten")])


def test_a_run_that_was_given_records_says_so(run, tmp_path):
    assert not find(run[1]).given
    metadata = Checkpoints(run[1] / "checkpoints", read_only=True).newest_metadata()
    assert metadata["data"]["training"]["records"] == 1437
    assert data_identity(*run[0].experiment.data.opened, given=False) == metadata["data"]
    assert build(configuration(), run[0].experiment.data.opened).data.identity["given"]
    # Arrays that a classifier was fitted to, and saved by a version that did not say so.
    workdir = shutil.copytree(run[1], tmp_path / "arrays")
    for path in workdir.glob("checkpoints/*/metadata/metadata"):
        metadata = json.loads(path.read_text())
        metadata.pop("data")
        metadata["config"]["data"]["source"] = "arrays"
        path.write_text(json.dumps(metadata | {"checksum": checksum(metadata)}))
    assert find(workdir).given
