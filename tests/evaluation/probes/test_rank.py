import numpy as np
import pytest

from tests.evaluation.probes.features import clouds, rows
from tests.reference.cases import assert_close, load_case, tolerance
from vit_jax.evaluation.probes.base import Features
from vit_jax.evaluation.probes.rank import Rank, rankme, singular_values

CASE, ARRAYS, _ = load_case("probe_knn_fewshot")


@pytest.mark.parametrize("name", ["bank", "low_rank"])
def test_rank_is_that_of_the_reference(name):
    features = ARRAYS[f"in.{name}"]
    for output, ours in (("singular_values", singular_values(features)), ("rankme", rankme(features))):
        output = f"{output}.{name}"
        assert_close(ours, ARRAYS[f"out.{output}"], tolerance(CASE, output), output)


def test_more_dimensions_than_records():
    wide = np.random.default_rng(0).standard_normal((5, 40))
    np.testing.assert_allclose(singular_values(wide), np.linalg.svd(wide, compute_uv=False), rtol=1e-9)


def test_rank_counts_directions():
    assert rankme(np.eye(6)) == pytest.approx(6, rel=1e-4)
    assert rankme(np.outer(np.arange(1.0, 9), np.ones(6))) == pytest.approx(1, rel=1e-4)
    assert rankme(np.zeros((4, 3))) == 1


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (clouds(shift=0).values, None),
        (
            np.ones((50, 8)) + 1e-3 * np.random.default_rng(0).standard_normal((50, 8)),
            "all images have nearly",
        ),
        (np.outer(np.linspace(-1, 1, 50), np.arange(8.0)), "collapsed to a line"),
    ],
)
def test_collapse_is_told(values, said):
    found = Rank().measure(Features(values, np.full(50, -1)), Features(values[:1], np.full(1, -1)), 0, rows())
    line = Rank().alarm(found, values.shape[1])
    assert line is None if said is None else said in line
