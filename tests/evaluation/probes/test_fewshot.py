import numpy as np
import pytest

from tests.evaluation.probes.features import clouds, rows
from tests.reference.cases import assert_close, load_case, tolerance
from vit_jax.errors import ConfigError
from vit_jax.evaluation.probes.base import Records
from vit_jax.evaluation.probes.fewshot import (
    L2_GRID,
    FewShot,
    draw_shots,
    fewshot_accuracies,
    least_squares,
)

CASE, ARRAYS, _ = load_case("probe_knn_fewshot")


@pytest.mark.parametrize("l2", [1, 1024])
@pytest.mark.parametrize("kind", ["tall", "wide"])
def test_weights_and_scores_are_those_of_the_reference(kind, l2):
    bank, queries, labels = ("bank", "query", ARRAYS["in.bank_labels"])
    if kind == "wide":
        bank, queries, labels = "wide_bank", "wide_query", np.arange(20) % 5
    fitted = least_squares(ARRAYS[f"in.{bank}"], labels, 5, l2)
    name = f"fewshot_{kind}.l2_{l2}"
    theirs = ARRAYS[f"out.{name}.weights"]  # float64, stored as float32
    assert_close(fitted.weights, theirs, 6e-8 * np.abs(theirs).max(), "weights")
    kernel, bias = fitted.affine
    found = ARRAYS[f"in.{queries}"] @ kernel + bias
    assert_close(found, ARRAYS[f"out.{name}.scores"], tolerance(CASE, f"{name}.scores"), "scores")


@pytest.mark.parametrize("count", [40, 9])
def test_the_chosen_regularisation_has_the_least_error_on_what_was_left_out(count):
    data = clouds(count, classes=3)
    x, y = data.values.astype(np.float64), 2.0 * np.eye(3)[data.labels] - 1
    x = (x - x.mean(axis=0)) / (x.std(axis=0) + 1e-5)
    x = np.concatenate([x, np.full((count, 1), 100.0)], axis=1)

    def error(l2):
        total = 0.0
        for i in range(count):
            kept = np.arange(count) != i
            gram = x[kept].T @ x[kept] + l2 * np.eye(x.shape[1])
            total += np.square(y[i] - x[i] @ np.linalg.solve(gram, x[kept].T @ y[kept])).sum()
        return total

    assert least_squares(data.values, data.labels, 3, None).l2 == min(L2_GRID, key=error)


def test_shots_are_balanced_nested_and_fixed():
    labels = np.repeat([2, 0, 1], [30, 12, 6])
    few, more = (draw_shots(labels, 3, shots, seed=1) for shots in (2, 5))
    np.testing.assert_array_equal(np.bincount(labels[more]), [5, 5, 5])
    assert set(few) < set(more)
    np.testing.assert_array_equal(few, draw_shots(labels, 3, 2, seed=1))
    assert set(few) != set(draw_shots(labels, 3, 2, seed=2))


def test_accuracies_are_those_of_the_scores_on_any_number_of_devices():
    bank, queries = clouds(), clouds(101, seed=1)
    found = fewshot_accuracies(bank, queries, 4, rows(8), shots=(5, 10), seeds=(0, 1))
    assert found == fewshot_accuracies(bank, queries, 4, rows(1), shots=(5, 10), seeds=(0, 1))
    for shots, each in found.items():
        for seed, value in enumerate(each):
            chosen = draw_shots(bank.labels, 4, shots, seed)
            kernel, bias = least_squares(bank.values[chosen], bank.labels[chosen], 4).affine
            assert value == np.mean((queries.values @ kernel + bias).argmax(axis=1) == queries.labels)
    mean = FewShot(shots=(5,)).measure(bank, queries, 4, rows(8))
    three = fewshot_accuracies(bank, queries, 4, rows(8), shots=(5,))[5]
    assert mean == {"fewshot5_accuracy": np.mean(three)}
    assert three[:2] == found[5]


def test_features_that_do_not_vary_are_harmless():
    values = np.concatenate([clouds().values, np.ones((203, 1), np.float32)], axis=1)
    fitted = least_squares(values, clouds().labels, 4)
    # Nought but for what float64 rounds in the solution.
    np.testing.assert_allclose(fitted.weights[-2], 0, atol=1e-12)


@pytest.mark.parametrize(
    ("counts", "remedy"), [([30, 10], r"set evaluation.shots=\(1, 5, 10\)"), ([30, 0], "leave out 'fewshot'")]
)
def test_too_few_records_of_a_class_are_refused(counts, remedy):
    with pytest.raises(ConfigError, match=f"evaluation.shots has 25, but class 'b' has .* records; {remedy}"):
        FewShot().check(Records(40, 1, ("a", "b"), counts))
    FewShot().check(Records(40, 1, ("a", "b"), [25, 25]))
