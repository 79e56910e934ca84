"""MAE, RMSE and R2: scikit-learn's numbers, batch by batch, unknown targets left out."""

import numpy as np
import pytest
from sklearn.metrics import mean_absolute_error, r2_score, root_mean_squared_error

from vit_jax.evaluation.metrics.values import ValueScorer

SCIKIT = {"mae": mean_absolute_error, "rmse": root_mean_squared_error, "r2": r2_score}


@pytest.fixture
def rows():
    """Values of which one has a mean 1e4 times its deviation, so that sums of squares would be wrong."""
    generator = np.random.default_rng(0)
    targets = generator.normal([0, 1e4, -5], [1, 1, 30], (100, 3)).astype(np.float32)
    return (targets + generator.normal(0, 0.5, targets.shape)).astype(np.float32), targets


def scored(predicted, targets, names=("a", "b", "c"), batch=30):
    scorer = ValueScorer(names)
    for start in range(0, len(targets), batch):
        rows = slice(start, start + batch)
        scorer.see({"values": predicted[rows], "value": targets[rows]})
    return scorer


def test_metrics_are_those_of_scikit_learn(rows):
    predicted, targets = rows
    metrics = scored(*rows).metrics()
    for name, function in SCIKIT.items():
        each = function(targets.astype(np.float64), predicted.astype(np.float64), multioutput="raw_values")
        np.testing.assert_allclose([metrics[f"{name}/{value}"] for value in "abc"], each, rtol=1e-9)
        assert metrics[name] == pytest.approx(each.mean())
    single = scored(predicted[:, :1], targets[:, :1], ["age"]).metrics()
    assert set(single) == set(SCIKIT)
    assert single["mae"] == metrics["mae/a"]


def test_unknown_targets_are_left_out(rows):
    predicted, targets = (array.copy() for array in rows)
    unknown = np.random.default_rng(1).random(targets.shape) < 0.4
    unknown[:30, 1] = True  # a whole batch
    targets[unknown] = np.nan
    metrics = scored(predicted, targets).metrics()
    for column, value in enumerate("abc"):
        kept = ~unknown[:, column]
        pair = targets[kept, column].astype(np.float64), predicted[kept, column].astype(np.float64)
        for name, function in SCIKIT.items():
            assert metrics[f"{name}/{value}"] == pytest.approx(function(*pair))


def test_what_cannot_be_scored_is_not_a_number():
    predicted, targets = np.zeros((4, 2)), np.array([[3, np.nan]] * 4)
    errors = scored(predicted, targets, ("constant", "unknown")).errors()
    np.testing.assert_array_equal(errors.mae, [3, np.nan])
    np.testing.assert_array_equal(errors.rmse, [3, np.nan])
    np.testing.assert_array_equal(errors.r2, [np.nan, np.nan])
    assert np.isnan(scored(np.full((2, 1), np.nan), np.ones((2, 1)), ["a"]).metrics()["mae"])
