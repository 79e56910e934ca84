"""Labels mean classes by their names; by position only where there are none, or where it is asked for."""

import pickle

import numpy as np
import pytest

from vit_jax.data.base import Selection
from vit_jax.data.classes import Relabelled, are_counted, match
from vit_jax.data.reader import BatchReader
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.errors import ConfigError, DataError, speaking

MODEL = ("ant", "bee", "cat", "dog")


def matched(data, model=MODEL, model_named=True, data_named=True, labels=None):
    return match(model, data, model_named=model_named, data_named=data_named, labels=labels)


def numbers(count):
    return tuple(map(str, range(count)))


@pytest.mark.parametrize(
    ("data", "labels", "told"),
    [
        (MODEL, [0, 1, 2, 3], ""),
        (("dog", "cat", "bee", "ant"), [3, 2, 1, 0], ""),
        (("dog", "bee"), [3, 1], "has 2 of the 4 classes of the model"),
        (("ant", "bee"), [0, 1], "has 2 of the 4 classes"),  # the first ones, but by name all the same
    ],
)
def test_names_decide(data, labels, told):
    found = matched(data)
    assert found.labels.tolist() == labels
    assert found.labels.dtype == np.int32
    assert told in found.notice
    assert bool(told) == bool(found.notice)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (
            ("ant", "eel", "fox"),
            "2 classes that the model does not have: 'eel', 'fox'; the model has 'ant', 'bee'",
        ),
        (("Ant", "bee", "cat", "dog"), "'Ant'; .* Did you mean 'ant'"),
        (("ant, an insect",), "1 class that the model does not have"),
        (numbers(4), "'0', '1', '2', '3'"),  # somebody's folders are called so
        ((*MODEL, "eel"), "'eel'"),
    ],
)
def test_other_names_are_refused(data, said):
    with pytest.raises(DataError, match=said) as refused:
        matched(data)
    assert "by-position" not in str(refused.value)
    with pytest.raises(DataError, match=said) as refused:
        matched(data, labels="by-name")
    # The remedy is named where it is one: positions mean nothing where there are not as many.
    asked = "or take labels by position: labels='by-position'" in str(refused.value)
    assert asked == (len(data) == len(MODEL))
    with speaking({"--labels"}), pytest.raises(DataError, match=said) as refused:
        matched(data, labels="by-name")
    assert ("by position: --labels by-position" in str(refused.value)) == asked


def test_many_unknown_names_are_one_line():
    with pytest.raises(DataError, match=r"300 classes .* and 280 more"):
        matched([f"n{i:08}" for i in range(300)])


def test_by_position_where_it_is_asked_for():
    synsets = ("n1", "n2", "n3", "n4")
    found = matched(synsets, labels="by-position")
    assert found.labels.tolist() == [0, 1, 2, 3]
    assert "as asked: 'n1' of the data is 'ant' of the model" in found.notice
    assert matched(MODEL[::-1], labels="by-position").labels.tolist() == [0, 1, 2, 3]
    with pytest.raises(DataError, match="the model has 4 classes and the data has 3 classes"):
        matched(synsets[:3], labels="by-position")
    with pytest.raises(ConfigError, match=r"labels is 'by_position'; .* Did you mean 'by-position'"):
        matched(synsets, labels="by_position")


def test_by_position_where_there_are_no_names():
    unnamed = dict(model=numbers(4), model_named=False)
    for data, options, who in (
        (MODEL, unnamed, "the model have no names"),
        (numbers(4), {"data_named": False}, "the data have no names"),
        (numbers(4), {"data_named": False} | unnamed, "the model and the data have no names"),
        (
            numbers(3),
            {"data_named": False},
            "3 of 4, since the classes of the data",
        ),  # 3 is the largest label
        (numbers(3), {"data_named": False} | unnamed, "3 of 4"),
    ):
        found = matched(data, **options)
        assert found.labels.tolist() == list(range(len(data)))
        assert who in found.notice
    for data, options in ((MODEL[:3], unnamed), (numbers(5), {"data_named": False})):
        with pytest.raises(DataError, match="only if both have equally many"):
            matched(data, **options)
    # Digits of a folder are digits, though nobody knows who numbered the model's classes.
    assert matched(("1", "3"), **unnamed).labels.tolist() == [1, 3]


def test_a_name_of_two_classes_is_not_guessed():
    """ImageNet has two classes called crane and two called maillot."""
    model = ("crane", "ant", "crane")
    assert matched(model, model).labels.tolist() == [0, 1, 2]
    assert matched(("ant",), model).labels.tolist() == [1]
    for data in (("ant", "crane"), ("crane", "crane", "ant"), ("crane",)):
        with pytest.raises(DataError, match="called 'crane', so labels cannot be matched"):
            matched(data, model)
    with pytest.raises(DataError, match="called 'ant'"):
        matched(("ant", "ant"))
    assert matched(("crane", "crane", "ant"), model, labels="by-position").labels.tolist() == [0, 1, 2]


def test_names_that_only_count():
    for names in (numbers(12), ("LABEL_0", "LABEL_1"), ()):
        assert are_counted(names)
    for names in (("0", "1", "10", "2"), ("1", "2"), ("LABEL_1", "LABEL_0"), MODEL, ("00", "01x")):
        assert not are_counted(names)


def test_records_with_the_labels_of_a_model():
    images = np.arange(6, dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    source = ArraySource(images, [0, 1, 0, 1, 1, 0], ("dog", "bee"))
    ours = pickle.loads(pickle.dumps(Relabelled(source, matched(source.class_names).labels, MODEL)))
    wanted = [3, 1, 3, 1, 1, 3]
    assert (ours.class_names, ours.num_classes, len(ours), ours.image_shape) == (MODEL, 4, 6, (2, 2, 1))
    assert ours.labels.tolist() == wanted
    assert [ours[i]["label"] for i in range(6)] == wanted
    assert ours.name_of(4) == source.name_of(4)
    np.testing.assert_array_equal(ours.order(np.arange(6), 3), source.order(np.arange(6), 3))
    batch = BatchReader(ours, (), 6)(0)
    np.testing.assert_array_equal(batch["label"], wanted)
    np.testing.assert_array_equal(batch["image"], images)
    np.testing.assert_array_equal(Selection(ours, [5, 1]).labels, [3, 1])


class Mislabelled(ArraySource):
    def __getitem__(self, index):
        return super().__getitem__(index) | {"label": -1 if index else 2}


def test_a_label_that_the_data_does_not_have_stays_an_error():
    source = Mislabelled(np.ones((3, 2, 2, 1), np.uint8) * 9, [0, 1, 0], ("dog", "bee"))
    ours = Relabelled(source, np.array([3, 1]), MODEL)
    for index, label in ((0, 2), (1, -1)):
        said = f"record {index} of the arrays has label {label}; .* from 0 to 1"
        with pytest.raises(DataError, match=said):
            ours[index]
