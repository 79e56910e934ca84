"""Several labels and values as objectives: exact means over what is known, however a batch is divided."""

import dataclasses
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from tests.tiny import assert_trees_close, labelled, randomised, tiny
from vit_jax.errors import ConfigError
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.multi_label.options import MultiLabelOptions
from vit_jax.objectives.options import parse_options
from vit_jax.objectives.outputs.labels import Labels
from vit_jax.objectives.registry import build_objective
from vit_jax.objectives.regression.options import RegressionOptions
from vit_jax.training.state import TrainState
from vit_jax.training.step import make_step

MODEL = tiny(depth=1)
NAMES = tuple("abcde")
DATA = DataInfo(
    5,
    NAMES,
    label_counts=((5, 5), (1, 9), (0, 10), (2, 8), (10, 0)),
    value_scale=((0.0, 1.0), (100.0, 20.0), (-3.0, 0.5), (7.0, 0.0), (1.0, 2.0)),
)
OBJECTIVES = {
    "asymmetric": MultiLabelOptions(loss="asymmetric", positive_weights="balanced", label_smoothing=0.1),
    "huber": RegressionOptions(loss="huber"),
}


def objective_of(options):
    return build_objective(options, MODEL, DATA)


def batch_of(objective, rows=8, unknown=0.4):
    """Images with targets, of which some are unknown: all of two rows, so that microbatches differ in weight."""
    generator = np.random.default_rng(0)
    if objective.target == "labels":
        targets = (generator.random((rows, 5)) < 0.4).astype(np.float32)
    else:
        targets = generator.normal([0, 100, -3, 7, 1], [1, 20, 0.5, 0.1, 2], (rows, 5)).astype(np.float32)
    targets[generator.random((rows, 5)) < unknown] = np.nan
    targets[[0, 4]] = np.nan
    return {"image": labelled(rows)["image"], objective.target: jnp.asarray(targets)}


def started(objective):
    """Parameters with noise, and the buffers that training begins with."""
    params, buffers = jax.eval_shape(objective.init, jax.random.key(0))
    return randomised(params), objective.init(jax.random.key(0))[1] if buffers else {}


@pytest.mark.parametrize("name", OBJECTIVES)
def test_parts_of_a_batch_add_up_to_the_whole(name):
    objective, optimizer = objective_of(OBJECTIVES[name]), optax.sgd(0.1)
    batch = batch_of(objective, 16)
    params, buffers = started(objective)
    state = TrainState(jnp.zeros((), jnp.int32), params, buffers, optimizer.init(params), None)

    def stepped(accumulation, place=lambda x: x):
        step = make_step(objective, optimizer, lambda step: 0.1, seed=0, accumulation=accumulation)
        with jax.numpy_dtype_promotion("standard"):
            return jax.jit(step)(state, jax.tree.map(place, batch))

    whole, metrics = stepped(1)
    # By hand: the sum over the known entries, over their number.
    prepared = objective.prepare(batch, jax.random.key(0))
    targets = batch[objective.target]
    outputs = objective.outputs(params, buffers, batch)
    losses = np.asarray(objective.train_losses(outputs, jnp.nan_to_num(targets), buffers))
    assert float(metrics["loss"]) == pytest.approx(losses[~np.isnan(targets)].mean(), rel=1e-5)
    assert set(prepared) == {"image", objective.target}

    rows = NamedSharding(Mesh(np.array(jax.devices()), ("data",)), PartitionSpec("data"))
    other, other_metrics = stepped(2, lambda x: jax.device_put(x, rows))
    assert_trees_close(other.params, whole.params, rtol=2e-6, atol=0)
    for metric in metrics:
        np.testing.assert_allclose(other_metrics[metric], metrics[metric], rtol=1e-5)
    assert_trees_close(whole.buffers, buffers, rtol=0, atol=0)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_evaluation_counts_what_is_known_of_the_rows_that_count(name):
    objective = objective_of(OBJECTIVES[name])
    params, buffers = started(objective)
    batch = batch_of(objective) | {"mask": jnp.arange(8) < 6}
    sums, rows = jax.jit(objective.evaluate_rows)(params, buffers, batch)
    targets = np.asarray(batch[objective.target])
    known = ~np.isnan(targets[:6])
    assert (float(sums["count"]), float(sums["known"])) == (6, known.sum())
    losses = np.asarray(
        objective.losses(objective.outputs(params, buffers, batch), jnp.nan_to_num(targets), buffers)
    )
    metrics = objective.summarise(jax.device_get(sums))
    assert metrics["loss"] == pytest.approx(losses[:6][known].mean(), rel=1e-5)
    scorer = objective.scorer()
    scorer.see({key: np.asarray(value)[:6] for key, value in rows.items()})
    metrics |= scorer.metrics()
    assert set(metrics) == set(objective.metric_modes)
    assert objective.monitor in metrics
    # The same of a batch of nothing known: no number, but no error.
    nothing = jax.jit(objective.evaluate)(
        params, buffers, batch | {objective.target: jnp.full((8, 5), jnp.nan)}
    )
    assert np.isnan(objective.summarise(jax.device_get(nothing))["loss"])


def test_values_are_told_in_their_units():
    objective = objective_of(RegressionOptions())
    buffers = objective.init(jax.random.key(0))[1]
    # The value that is always the same is not divided by 0.
    np.testing.assert_array_equal(buffers["scale"]["std"], [1, 20, 0.5, 1, 2])
    outputs = jnp.asarray([[0.0, 0.0, 0.0, 0.0, 0.0], [1.0, -1.0, 2.0, 0.5, 0.0]])
    values = objective.said(outputs, buffers)["values"]
    np.testing.assert_allclose(values, [[0, 100, -3, 7, 1], [1, 80, -2, 7.5, 1]])
    np.testing.assert_allclose(objective.losses(outputs, values, buffers), np.zeros((2, 5)), atol=1e-10)
    given = objective_of(
        parse_options(dict(name="regression", scaling="given", mean=(1,) * 5, std=[2] * 5, loss="l1"))
    )
    assert given.init(jax.random.key(0))[1]["scale"]["std"].tolist() == [2] * 5
    plain = objective_of(RegressionOptions(scaling="none"))
    np.testing.assert_array_equal(plain.said(outputs, plain.init(jax.random.key(0))[1])["values"], outputs)


def test_labels_are_those_that_reach_their_threshold():
    objective = objective_of(MultiLabelOptions(thresholds=(0.5, 0.5, 0.9, 0.1, 0.5)))
    said = objective.said(jnp.asarray([[3.0, -3.0, 2.0, -2.0, 0.0], [jnp.nan, 0, 0, 0, 0]]), {})
    assert np.isnan(said["probabilities"][1]).all()
    row = {"probabilities": np.asarray(said["probabilities"][0])}
    output = objective.output
    record = output.record(row)
    assert record["labels"] == ["a", "e", "d"]
    assert output.text(record) == "a 95.3%   e 50.0%   d 11.9%"
    assert output.line(record)["labels"][1] == {"label": "e", "probability": 0.5}
    truth = {"labels": np.array([1, np.nan, 1, 0, np.nan], np.float32)}
    assert output.evaluated(row | truth)["truth"] == ["a", "c"]
    assert output.compared(row | truth) == ("a, e, d  missing: c  wrong: d", False)
    none = output.record({"probabilities": np.zeros(5)})
    assert output.text(none) == "none from their thresholds on"
    assert Labels(("a", "b"), (0.5, 0.5)).text(none) == "none from 50% on"
    assert output.best(2).record(row)["classes"] == ["a", "c"]  # whatever the thresholds


def test_tuned_thresholds_are_those_of_an_evaluation():
    objective = objective_of(MultiLabelOptions(thresholds="tuned_per_class"))
    rows = {"probabilities": np.eye(5, dtype=np.float32) * 0.6 + 0.2, "labels": np.eye(5, dtype=np.float32)}
    with pytest.raises(
        ConfigError, match="to be tuned, but the checkpoint was saved before an evaluation tuned them"
    ):
        objective.output.record(rows)
    scorer = objective.scorer()
    scorer.see(rows)
    metrics = scorer.metrics()
    assert metrics["f1_macro"] == 1
    assert metrics["threshold/c"] == pytest.approx(0.5)
    settled = objective.settled(metrics)
    assert settled.output.thresholds == pytest.approx((0.5,) * 5)
    assert pickle.loads(pickle.dumps(settled)).output == settled.output


def test_balanced_weights_are_negatives_over_positives():
    objective = objective_of(MultiLabelOptions(positive_weights="balanced"))
    outputs, targets = jnp.zeros((1, 5)), jnp.ones((1, 5))
    losses = objective.train_losses(outputs, targets, {}) / objective.losses(outputs, targets, {})
    np.testing.assert_allclose(losses[0], [1, 9, 1, 4, 0], rtol=1e-6)


REFUSED = [
    (dict(name="multi_label", loss="softmax"), "objective.loss is 'softmax'; it must be one of bce, asymmetric"),
    (dict(name="multi_label", gamma_negative=0.5), "objective.gamma_negative is 0.5; it must be 0, or at least 1"),
    (dict(name="multi_label", clip=1.0), "objective.clip is 1.0; it must be between 0 and 0.999"),
    (dict(name="multi_label", positive_weights="rare"), "must be one of none, balanced"),
    (dict(name="multi_label", positive_weights=(1, -1)), "or one number per class"),
    (dict(name="multi_label", positive_weights=(1, 2)), "positive_weights has 2 values; give one for each of the 5"),
    (dict(name="multi_label", thresholds=1.5), "objective.thresholds is 1.5; it must be between 0 and 1"),
    (dict(name="regression", units=0.5), "objective.units is 0.5; it must be a tuple of strings"),
    (dict(name="multi_label", thresholds="tune"), "must be one of tuned, tuned_per_class. Did you mean 'tuned'"),
    (dict(name="multi_label", thresholds=(0.5, 2)), "it must be a number from 0 to 1, one per class"),
    (dict(name="regression", loss="mae"), "objective.loss is 'mae'; it must be one of mse, l1, huber"),
    (dict(name="regression", delta=0.0), "objective.delta is 0.0; it must be between"),
    (dict(name="regression", scaling="given"), "give both mean and std with scaling 'given'"),
    (dict(name="regression", mean=(1.0,)), "give both mean and std with scaling 'given'"),
    (dict(name="regression", scaling="given", mean=(0,) * 5, std=(0,) * 5), "std must be above 0"),
    (
        dict(name="regression", scaling="given", mean=(0,), std=(1,)),
        "mean has 1 values; give one for each of the 5 targets",
    ),
    (dict(name="regression", units="deg"), "objective.units is 'deg'; it must be a tuple of strings"),
]  # fmt: skip


@pytest.mark.parametrize(("section", "message"), REFUSED, ids=lambda x: "" if isinstance(x, str) else str(x))
def test_mistakes_in_options_get_one_line(section, message):
    with pytest.raises(ConfigError, match=message):
        objective_of(parse_options(section)).refuses(None)


def test_what_the_data_do_not_say_is_refused():
    unknown = dataclasses.replace(DATA, label_counts=None, value_scale=None)
    for options in (MultiLabelOptions(positive_weights="balanced"), RegressionOptions()):
        with pytest.raises(ConfigError, match="not known before all records are read"):
            build_objective(options, MODEL, unknown).refuses(None)
        known = dataclasses.replace(DATA, value_scale=((0.0, 1.0),) * 5)
        build_objective(options, MODEL, known).refuses(None)
    with pytest.raises(
        ConfigError, match="all values of 'd' in the training records are 7, so there is nothing"
    ):
        objective_of(RegressionOptions()).refuses(None)
