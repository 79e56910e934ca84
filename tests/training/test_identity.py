"""What is said of a run's records when they are others than before."""

import numpy as np
import pytest

from vit_jax.data.sources.arrays import ArraySource
from vit_jax.errors import CheckpointError, DataError
from vit_jax.training.parts.identity import check_data_changes, check_outputs, data_changes, data_identity

IMAGES = np.arange(12 * 4 * 4, dtype=np.uint8).reshape(12, 4, 4, 1)


def source(names=("cat", "dog", "eel"), count=12, shift=0):
    return ArraySource(IMAGES[:count], (np.arange(count) + shift) % 3, names)


def identity(train=None, evaluation=None, *, given=True):
    return data_identity(train or source(), evaluation or source(count=6), given=given)


def saved(**options):
    return {"class_names": ["cat", "dog", "eel"], "data": identity(**options)}


def test_equal_records_are_no_change():
    assert data_changes(saved(), identity()) == []
    assert data_changes(saved(), identity(given=False)) == []  # wherever they came from


@pytest.mark.parametrize(
    ("now", "said"),
    [
        (source(("cat", "fox", "eel")), ["class 'dog' missing and class 'fox' new"]),
        (source(("dog", "cat", "eel")), ["class 0 was 'cat' and is 'dog'"]),
        (source(("cat", "dog", "eel", "fox")), ["class 'fox' new"]),
        (
            source(tuple("abcdefgh")),
            ["classes 'cat', 'dog', 'eel' missing and classes 'a', 'b', 'c', 'd', 'e' and 3 more new"],
        ),
        (source(count=9), ["12 records before, 9 now"]),
        (
            source(shift=1),
            ["12 records as before, but with other contents (files, images, labels or their order)"],
        ),
        (
            source(("a", "dog", "eel"), count=9),
            ["class 'cat' missing and class 'a' new", "12 records before, 9 now"],
        ),
    ],
)
def test_changes_are_named(now, said):
    assert data_changes(saved(), identity(now)) == [f"training data: {line}" for line in said]
    assert data_changes(saved(evaluation=source()), identity(evaluation=now)) == [
        f"evaluation data: {line}" for line in said
    ]


def test_runs_of_earlier_versions_know_their_classes():
    assert data_changes({"class_names": ["cat", "dog", "eel"]}, identity(source(count=9))) == []
    assert data_changes({"class_names": ["cat", "dog"]}, identity()) == ["training data: class 'eel' new"]
    assert data_changes({}, identity()) == []
    for damaged in ([], {"training": 3}, None):
        with pytest.raises(CheckpointError, match="its 'data' is"):
            data_changes({"data": damaged}, identity())


def test_only_who_allows_it_goes_on():
    for allow in (["data"], ["data.train_split"], ["seed", "data.mixture"]):
        check_data_changes(["training data: 1 records before, 2 now"], allow, "run")
    check_data_changes([], (), "run")
    for allow in ((), ["seed"], ["data.path"]):
        with pytest.raises(DataError) as caught:
            check_data_changes(["training data: 1 records before, 2 now"], allow, "runs/a")
        assert str(caught.value) == (
            "runs/a was started with different data: training data: 1 records before, 2 now. Use another workdir, or "
            "resume with the data as it is now: allow_change=['data']."
        )


def test_outputs_keep_their_classes_even_where_other_data_is_allowed():
    check_outputs(["cat", "dog", "eel"], source(), "run")
    check_outputs(None, source(), "run")
    for names in (["dog", "cat", "eel"], ["cat", "dog"], ["ant", "bee", "cow"]):
        with pytest.raises(DataError, match=r"the outputs of run are the classes .*model\.checkpoint=run"):
            check_outputs(names, source(), "run")
