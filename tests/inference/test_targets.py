"""Several labels and values, from training to every way of using a model: one run of each is looked at by all."""

import json
import shutil

import jax
import numpy as np
import pytest

import vit_jax
from tests.runs import run as command
from vit_jax.data.sources.composed_digits import digit_sets, turned_digits
from vit_jax.data.sources.sequence import as_source
from vit_jax.errors import ConfigError, DataError
from vit_jax.inference.evaluating import examine_workdir
from vit_jax.inference.export.export import export_predictor
from vit_jax.inference.export.exported import ExportedPredictor
from vit_jax.inference.predictor import Predictor
from vit_jax.inference.published import evaluate_checkpoint
from vit_jax.training.config import default_config, validate
from vit_jax.training.experiment import build
from vit_jax.training.loop import train
from vit_jax.weights.convert import convert

TASKS = {
    "labels": dict(
        objective=dict(
            name="multi_label", loss="asymmetric", positive_weights="balanced", thresholds="tuned"
        ),
        data=dict(source="digit_sets", size=64),
        image_size=16,
    ),
    "value": dict(
        objective=dict(name="regression", loss="huber", units=("degrees",)),
        data=dict(source="turned_digits", size=64),
        image_size=16,
    ),
}


def configuration(task, duration="4 steps", **objective):
    config = default_config()
    config.duration = duration
    model = dict(in_channels=1, width=16, depth=1, heads=2, mlp_dim=32, patch_size=8, unroll=1)
    config.model.update(name="vit_mu_patch4_8", image_size=TASKS[task]["image_size"], **model)
    config.objective.update(TASKS[task]["objective"] | objective)
    config.data.update(batch_size=16, eval_batch_size=40, **TASKS[task]["data"])
    config.evaluation.update(every="2 steps", illustrate=3)
    config.checkpoint.every = "2 steps"
    config.log.tensorboard = False
    validate(config)
    return config


@pytest.fixture(scope="module", params=TASKS)
def finished(request, compile_cache, tmp_path_factory):
    """The task, the result of its run, the workdir."""
    workdir = tmp_path_factory.mktemp(request.param)
    return request.param, train(configuration(request.param), workdir), workdir


def source_of(task):
    return {"labels": digit_sets, "value": turned_digits}[task]("test", 64)


def test_what_a_run_leaves_behind(finished):
    task, result, workdir = finished
    objective = result.experiment.task.objective
    assert set(result.metrics) == set(objective.metric_modes)
    assert result.experiment.task.monitor.name == {"labels": "mAP", "value": "mae"}[task]
    assert (workdir / "illustration.png").is_file()
    if task == "value":
        known = turned_digits("train", 64).known("value")
        scale = result.state.buffers["scale"]
        np.testing.assert_allclose(
            [scale["mean"][0], scale["std"][0]], [known.mean(), known.std()], rtol=1e-5
        )
        assert 0.5 < result.metrics["rmse"] / known.std() < 2  # in degrees


def test_interrupted_is_uninterrupted(finished, tmp_path):
    task, result, workdir = finished
    shutil.copytree(workdir, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / "checkpoints" / "4")
    again = train(configuration(task), tmp_path / "run")
    assert again.summary["fingerprint"] == result.summary["fingerprint"]
    assert again.metrics == result.metrics


def test_evaluation_is_that_of_the_run(finished, tmp_path):
    task, result, workdir = finished
    found = examine_workdir(workdir, output=tmp_path / "rows.jsonl")
    assert found.metrics == pytest.approx(result.metrics, rel=1e-5)
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    source = source_of(task)
    assert [row["record"] for row in rows] == [source.name_of(index) for index in range(64)]
    known = source.known(task)
    for row, truth in zip(rows, known):
        assert row["truth"] == (
            truth.tolist() if task == "value" else [str(i) for i in np.flatnonzero(truth)]
        )
    if task == "value":
        errors = [row["values"][0] - row["truth"][0] for row in rows]
        assert np.mean(np.abs(errors)) == pytest.approx(result.metrics["mae"], rel=1e-5)
    else:
        assert all(min(row["probabilities"], default=1) >= result.metrics["threshold"] for row in rows)

    # Records with fewer of the targets, in another order, are matched by name; those of others are named.
    images = source.take(np.arange(4))["image"]
    field = {"labels": ["7", "3"], "value": 12.0}[task]
    other = examine_workdir(workdir, sources=[{"image": image, task: field} for image in images])
    assert other.records == 4
    if task == "labels":
        with pytest.raises(DataError, match="has label 'ten', which is none of the 10 classes"):
            examine_workdir(workdir, sources=[{"image": images[0], "labels": ["ten"]}])


def test_predictions_are_the_same_whichever_way(finished, tmp_path, capsys):
    task, result, workdir = finished
    predictor = Predictor.load(workdir)
    images = source_of(task).take(np.arange(3))["image"]
    said = [prediction.record for prediction in predictor.predict(images)]
    name = {"labels": "probabilities", "value": "values"}[task]
    arrays = np.asarray(jax.device_get(predictor.compute(predictor.params, predictor.buffers, images)[name]))
    if task == "value":
        np.testing.assert_allclose([record["values"] for record in said], arrays, rtol=1e-6)
        assert predictor.output.text({"values": [12.5]}) == "angle 12.5 degrees"
        assert abs(arrays).max() < 180
    else:
        threshold = result.metrics["threshold"]
        assert [len(record["labels"]) for record in said] == (arrays >= threshold).sum(axis=1).tolist()

    export_predictor(predictor, tmp_path / "exported")
    exported = ExportedPredictor.load(tmp_path / "exported")
    assert exported.output == predictor.output
    for row, record in zip(exported.predict(images), said):
        assert row.record.keys() == record.keys()
        assert row.record[name] == pytest.approx(record[name], rel=1e-4)

    word = {"labels": "multi_label_classification", "value": "regression"}[task]
    for format in ("hf", "orbax"):
        convert(workdir, tmp_path / format, format)
        model = vit_jax.load(tmp_path / format, verbose=False)
        mean, std = (np.asarray(x) for x in (model.config.preprocessing.mean, model.config.preprocessing.std))
        outputs = np.asarray(model((images / np.float32(255) - mean.mean()) / std.mean()))
        outputs = outputs if task == "value" else 1 / (1 + np.exp(-outputs))
        np.testing.assert_allclose(outputs, arrays, rtol=2e-3, atol=2e-4)
    described = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert described["problem_type"] == word
    names = result.experiment.data.train_source.class_names
    assert tuple(described["id2label"].values()) == names
    published = Predictor.load(tmp_path / "hf")
    assert published.output.kind == predictor.output.kind
    if task == "labels":
        assert "several labels: those that reach 50%; top=K" in capsys.readouterr().err
        rows = published.predict(images)
        assert [len(row.labels) for row in rows] == (arrays >= 0.5).sum(axis=1).tolist()
        for row, best, chances in zip(rows, published.predict(images, top=3), arrays):
            reach = {name: chance for name, chance in zip(names, chances) if chance >= 0.5}
            assert dict(zip(row.labels, row.probabilities)) == pytest.approx(reach, rel=2e-3)
            assert best.classes == tuple(names[i] for i in np.argsort(-chances)[:3])
            np.testing.assert_allclose(best.probabilities, -np.sort(-chances)[:3], rtol=2e-3, atol=2e-4)


def test_a_published_checkpoint_is_evaluated_as_the_run(finished, tmp_path):
    task, result, workdir = finished
    convert(workdir, tmp_path / "hf", "hf")
    overrides = [f"data.{key}={value}" for key, value in TASKS[task]["data"].items()]
    if task == "labels":
        overrides += ["objective.name=multi_label", "objective.thresholds=1e-9"]
    found = evaluate_checkpoint(str(tmp_path / "hf"), overrides)
    for name in {"labels": ("mAP",), "value": ("mae", "rmse", "r2")}[task]:
        assert found.metrics[name] == pytest.approx(result.metrics[name], rel=1e-4)
    if task == "labels":  # every class of every record is predicted
        share = source_of(task).known(task).mean()
        assert found.metrics["f1_micro"] == pytest.approx(2 * share / (1 + share))
    assert (found.report is None) == (task == "value")
    if task == "value":
        with pytest.raises(
            ConfigError, match="is a regression model, but the data has image, label and no value"
        ):
            evaluate_checkpoint(str(tmp_path / "hf"), ["data.source=digits"])


def test_the_command_line_says_it(finished):
    task, result, workdir = finished
    outcome = command("evaluate", "--workdir", workdir, "--json")
    assert outcome.json()[result.experiment.task.monitor.name] == pytest.approx(
        result.metrics[result.experiment.task.monitor.name], rel=1e-5
    )
    image = next((workdir / "samples").iterdir())
    (line,) = command("predict", "--workdir", workdir, "--json", image).json_lines()
    assert set(line) == {"image", {"labels": "labels", "value": "values"}[task]}


def test_heads_of_a_checkpoint(finished):
    """Classes are kept by name; what is learned in another scale starts anew, and is told."""
    task, _, workdir = finished
    images = source_of("labels").take(np.arange(16))["image"]
    records = [{"image": image, "labels": [str(index % 3)]} for index, image in enumerate(images)]
    config = configuration("labels", thresholds=0.5)
    config.model = default_config().model
    config.model.update(checkpoint=str(workdir))
    pretrained = build(config, (as_source(records),) * 2).task.pretrained
    if task == "value":
        assert pretrained.report.head == "new: its outputs were regression and classes are learned"
    else:
        assert pretrained.report.head == "kept for the data's 3 classes of 10, by name"
        values = [{"image": image, "value": float(index)} for index, image in enumerate(images)]
        config.objective = default_config().objective
        config.objective.update(name="regression")
        head = build(config, (as_source(values),) * 2).task.pretrained.report.head
        assert head == "new: its outputs were multi_label and values are learned on a scale of their own"


@pytest.mark.parametrize(("task", "source"), [("labels", "turned_digits"), ("value", "digit_sets")])
def test_records_without_the_targets_are_refused(task, source):
    config = configuration(task)
    config.data.update(source=source)
    with pytest.raises(ConfigError, match=rf"no {task}, which objective '{config.objective.name}' needs"):
        build(config)
