import numpy as np
import pytest
from sklearn.neighbors import KNeighborsClassifier

from tests.evaluation.probes.features import clouds, rows
from tests.reference.cases import assert_close, load_case, tolerance
from vit_jax.errors import ConfigError
from vit_jax.evaluation.probes.base import Records
from vit_jax.evaluation.probes.knn import Knn, knn_scores, unit

CASE, ARRAYS, _ = load_case("probe_knn_fewshot")


def scores(bank, labels, queries, **options):
    return knn_scores(bank, labels, queries, 5, **{"rows": rows(), "ks": (1, 10, 20), "block": 4} | options)


def test_votes_are_those_of_the_reference():
    found = scores(ARRAYS["in.bank"], ARRAYS["in.bank_labels"], ARRAYS["in.query"])
    for k, ours in found.items():
        output = f"knn_scores.k{k}"
        assert_close(ours, ARRAYS[f"out.{output}"], tolerance(CASE, output), output)
        np.testing.assert_array_equal(ours.argmax(axis=1), ARRAYS[f"out.knn_top1.k{k}"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_any_number_of_devices_gives_the_same_bits_also_where_rows_are_equally_near(dtype):
    rng = np.random.default_rng(0)
    bank = rng.standard_normal((13, 6))[rng.integers(0, 13, 50)]  # each row several times
    labels = rng.integers(0, 5, 50)
    queries = rng.standard_normal((9, 6))
    one, eight, other = (
        scores(bank, labels, queries, rows=where, dtype=dtype)
        for where in (rows(1), rows(8), rows(8, fsdp=4))
    )
    for k in one:
        np.testing.assert_array_equal(one[k], eight[k])
        np.testing.assert_array_equal(one[k], other[k])
    similarity = unit(queries) @ unit(bank).T
    first = labels[np.argmax(similarity > similarity.max(axis=1, keepdims=True) - 1e-5, axis=1)]
    np.testing.assert_array_equal(one[1].argmax(axis=1), first)  # of equals the first in the bank


def test_padding_never_votes():
    bank = -np.eye(3, 4)  # all of them less similar than a row of zeros would be
    (found,) = scores(bank, np.array([1, 2, 3]), np.eye(1, 4), ks=(20,)).values()
    assert found[0, 0] == found[0, 4] == 0
    np.testing.assert_allclose(found[0, 1:4], [np.exp(-1 / 0.07), 1, 1], rtol=1e-5)


def test_more_queries_than_fit_at_once(monkeypatch):
    whole = scores(ARRAYS["in.bank"], ARRAYS["in.bank_labels"], ARRAYS["in.query"])
    monkeypatch.setattr("vit_jax.evaluation.probes.knn.QUERIES", 7)
    parts = scores(ARRAYS["in.bank"], ARRAYS["in.bank_labels"], ARRAYS["in.query"])
    for k in whole:
        np.testing.assert_allclose(parts[k], whole[k], rtol=1e-5)


def test_accuracies_are_those_of_a_known_library():
    bank, queries = clouds(shift=0), clouds(101, seed=1, shift=0)
    found = Knn().measure(bank, queries, 4, rows())
    for k in (10, 20):
        theirs = KNeighborsClassifier(k, metric="cosine", weights=lambda far: np.exp((1 - far) / 0.07))
        expected = theirs.fit(bank.values, bank.labels).score(queries.values, queries.labels)
        assert found[f"knn{k}_accuracy"] == expected
    assert found.keys() == {"knn10_accuracy", "knn20_accuracy"}


def test_fewer_records_than_neighbours_are_refused():
    Knn().check(Records(20, 1, ("a",)))
    with pytest.raises(ConfigError, match=r"evaluation\.neighbours has 20, but there are only 19 training"):
        Knn().check(Records(19, 1, ("a",)))


def test_records_without_labels_are_refused():
    with pytest.raises(ConfigError, match=r"evaluation\.probes has 'knn', which needs labels"):
        Knn().check(Records(20, 1))
