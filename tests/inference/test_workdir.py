"""What is found in a workdir is what was trained, and evaluates to the same numbers."""

import shutil

import jax
import numpy as np
import pytest

from tests.tiny import assert_trees_close
from vit_jax.checkpoints.checkpoints import Checkpoints
from vit_jax.checkpoints.fingerprint import fingerprint
from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.inference.workdir import evaluate_workdir, find
from vit_jax.training.config import to_json
from vit_jax.training.metrics import MetricWriter


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


def test_evaluation_is_that_of_training(run):
    result, workdir = run
    assert evaluate_workdir(workdir) == {"step": 4} | result.metrics


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
    with pytest.raises(CheckpointError, match=r"workdir '.*none' does not exist; train first"):
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
