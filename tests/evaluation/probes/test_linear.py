import numpy as np
from sklearn.linear_model import LogisticRegression

from tests.evaluation.probes.features import clouds, rows
from vit_jax.evaluation.probes.base import Features
from vit_jax.evaluation.probes.linear import (
    Batches,
    Linear,
    Standard,
    compile_fit,
    linear_classes,
    zero_weights,
)
from vit_jax.evaluation.probes.linear_sgd import LinearSgd, sgd_classes

BANK, QUERIES = clouds(), clouds(101, seed=1)


def test_lbfgs_reaches_the_optimum():
    standard = Standard.of(BANK.values)
    x = standard(BANK.values)
    np.testing.assert_allclose(x.std(axis=0), 1, rtol=1e-5)
    batches = Batches.of(BANK, standard, rows(), size=64)  # four, the last of them padded
    l2 = 0.01
    found = compile_fit(rows().mesh)(zero_weights(12, 4, rows()), np.float32(l2), *batches.arrays)
    theirs = LogisticRegression(C=1 / (len(BANK) * l2), tol=1e-8, max_iter=1000).fit(x, BANK.labels)
    np.testing.assert_allclose(found["kernel"], theirs.coef_.T, atol=2e-3)
    np.testing.assert_allclose(
        found["bias"] - found["bias"].mean(), theirs.intercept_ - theirs.intercept_.mean(), atol=2e-3
    )


def test_both_classify_and_choose_alike_on_any_number_of_devices():
    best = LogisticRegression(C=1.0).fit(Standard.of(BANK.values)(BANK.values), BANK.labels)
    reachable = best.score(Standard.of(BANK.values)(QUERIES.values), QUERIES.labels)
    for classify, options in (
        (linear_classes, {"l2_grid": (1e-1, 1e-2)}),
        (sgd_classes, {"rates": (1e-7, 1e-2, 3e-2), "epochs": 10}),
    ):
        eight, chosen = classify(BANK, QUERIES, 4, rows(8), **options)
        one, chosen_by_one = classify(BANK, QUERIES, 4, rows(1), **options)
        np.testing.assert_array_equal(eight, one)
        assert chosen == chosen_by_one != 1e-7
        assert np.mean(eight == QUERIES.labels) > reachable - 0.06


def test_metrics_have_names():
    assert Linear().metrics == ("linear_accuracy",)
    assert LinearSgd().metrics == ("linear_sgd_accuracy",)


def test_what_does_not_vary_and_classes_that_are_absent_are_harmless():
    values = np.concatenate([BANK.values, np.full((len(BANK), 1), 7.0, np.float32)], axis=1)
    asked = np.concatenate([QUERIES.values, np.full((len(QUERIES), 1), 7.0, np.float32)], axis=1)
    classes, _ = linear_classes(
        Features(values, BANK.labels), Features(asked, QUERIES.labels), 6, rows(1), l2_grid=(1e-2,)
    )
    assert classes.max() < 4
    assert np.mean(classes == QUERIES.labels) > 0.6
