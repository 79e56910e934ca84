"""Runs of other tasks than one label an image are evaluated, predicted with and exported like those."""

import json

import numpy as np
import pytest

from vit_jax.inference.evaluating import examine_workdir
from vit_jax.inference.export.export import export_predictor
from vit_jax.inference.export.exported import ExportedPredictor
from vit_jax.inference.features import FeatureExtractor
from vit_jax.inference.predictor import Predictor
from vit_jax.training.config import default_config
from vit_jax.training.loop import train

TASKS = {"multi_label": "digit_sets", "regression": "turned_digits"}


@pytest.fixture(scope="module", params=TASKS)
def task(request, compile_cache, tmp_path_factory):
    """The result of a run of two steps and its workdir."""
    config = default_config()
    config.duration = "2 steps"
    config.data.update(source=TASKS[request.param], batch_size=8, eval_batch_size=64)
    config.model.update(
        name="vit_mu_patch4_8", image_size=16, in_channels=1, width=16, depth=1, heads=2, mlp_dim=32, unroll=1
    )
    config.objective.name = request.param
    config.evaluation.update(baselines=(), illustrate=2)
    config.log.update(tensorboard=False, progress=False)
    workdir = tmp_path_factory.mktemp(request.param)
    return train(config, workdir), workdir


def test_it_is_used_like_any_other(task, tmp_path):
    result, workdir = task
    table = tmp_path / "rows.jsonl"
    found = examine_workdir(workdir, output=table)
    assert found.metrics == pytest.approx(result.metrics, rel=1e-5)
    output, source = result.experiment.task.objective.output, result.experiment.data.eval_source
    rows = [json.loads(line) for line in table.read_text().splitlines()]
    assert len(rows) == len(source)
    assert rows[0].keys() == {"record", *output.evaluated_columns}
    predictor = Predictor.load(workdir)
    assert predictor.output == output
    images = np.stack([source[i]["image"] for i in range(3)])
    predictions = predictor.predict(images)
    assert predictions[0].record.keys() == output.columns.keys()
    _, length = output.vector
    assert predictor.probabilities(images).shape == (3, length)
    export_predictor(predictor, tmp_path / "exported")
    there = ExportedPredictor.load(tmp_path / "exported")
    assert there.output == output
    np.testing.assert_allclose(there.probabilities(images), predictor.probabilities(images), rtol=1e-4)
    assert FeatureExtractor.load(workdir).features(images).shape == (3, 16)
    assert (workdir / "illustration.png").exists()
