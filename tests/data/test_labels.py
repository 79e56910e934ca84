"""Labels as people write them: numbers and names, sorted, checked, and named where they are wrong."""

import numpy as np
import pytest

from vit_jax.data.labels import by_name, in_order, index_of, numbered, values_of
from vit_jax.errors import DataError


def test_whole_numbers_stay_as_they_are():
    for labels in ([2, 0, 1, 2], np.array([2, 0, 1, 2], np.uint8), iter([np.int64(2), 0, 1, 2])):
        found = numbered(labels)
        assert (found.labels.tolist(), found.labels.dtype) == ([2, 0, 1, 2], np.int32)
        assert (found.class_names, found.named) == (("0", "1", "2"), False)
    found = numbered([0, 2], ["cat", "dog", "eel"])
    assert (found.labels.tolist(), found.class_names, found.named) == ([0, 2], ("cat", "dog", "eel"), True)
    assert not numbered([0, 2], [0, 1, 2]).named
    assert numbered([0, 1, 2], ["crane", "bird", "crane"]).labels.tolist() == [0, 1, 2]  # as ImageNet has it


def test_names_are_sorted():
    found = numbered(np.array(["dog", "cat", "dog"]))
    assert (found.labels.tolist(), found.class_names, found.named) == ([1, 0, 1], ("cat", "dog"), True)
    assert numbered(["dog", "cat"], ["dog", "cat", "eel"]).labels.tolist() == [0, 1]
    assert numbered([True, False]).class_names == ("False", "True")


def test_names_that_are_numbers_are_sorted_as_numbers():
    found = numbered(["10", "9", "1", "0"])
    assert found.class_names == ("0", "1", "9", "10")
    assert found.labels.tolist() == [3, 2, 1, 0]
    assert found.named
    assert in_order({"10", "9", "-1", "09"}) == ["-1", "09", "9", "10"]
    assert in_order({"10", "9", "a"}) == ["10", "9", "a"]
    counted = by_name([2, 1, 0, 10, 3, 4, 5, 6, 7, 8, 9])
    assert counted.class_names == tuple(map(str, range(11)))
    assert counted.labels.tolist() == [2, 1, 0, 10, 3, 4, 5, 6, 7, 8, 9]
    assert not counted.named


class Unsure:
    """As pandas's NA is: it does not say whether it is itself."""

    def __ne__(self, other):
        return self

    def __eq__(self, other):
        return self

    def __bool__(self):
        raise TypeError("boolean value of NA is ambiguous")


class Foreign:
    """As arrays of JAX and PyTorch are: of numbers that are arrays of no dimension."""

    def __init__(self, values):
        self.values = np.asarray(values)
        self.shape, self.dtype = self.values.shape, self.values.dtype

    def __array__(self, dtype=None, copy=None):
        return self.values

    def __iter__(self):
        return map(Foreign, self.values)

    def item(self):
        return self.values.item()


def test_labels_of_other_libraries_are_numbers():
    for labels in (Foreign([1, 0, 2]), [*Foreign([1, 0, 2])]):
        assert values_of(labels) == [1, 0, 2]
        assert numbered(labels).labels.tolist() == [1, 0, 2]


@pytest.mark.parametrize(
    ("labels", "names", "said"),
    [
        (
            [1, 2, 3],
            None,
            "labels of here are from 1 to 3, but none is 0; number the classes from 0 without gaps, or give",
        ),
        ([0, 2], None, "labels of here are from 0 to 2, but none is 1"),
        ([0, 10**12], None, "labels of here are from 0 to 1000000000000, but none is 1"),
        ([0, -1], None, "record 1 of here has label -1; labels must start at 0"),
        ([0, -1], ["a", "b"], "record 1 of here has label -1; labels must be from 0 to 1 (2 classes)"),
        ([0, 2], ["a", "b"], "record 1 of here has label 2; labels must be from 0 to 1 (2 classes)"),
        (["a", "c"], ["a", "b"], "record 1 of here has label 'c', which is none of the 2 classes (a, b)."),
        (["cot"], ["cat", "dog"], "Did you mean 'cat'?"),
        (["crane"], ["crane", "bird", "crane"], "label 'crane', which is the name of several classes"),
        (
            ["a", None],
            None,
            "record 1 of here has no label; give every record a whole number or every record the name of its class",
        ),
        (["a", float("nan")], None, "record 1 of here has no label"),
        (["a", ""], None, "record 1 of here has no label"),
        (np.array([0.0, np.nan]), None, "record 0 of here has label 0.0; give every record a whole number"),
        ([np.nan, 1.0], None, "record 0 of here has no label"),
        (["a", 1], None, "record 1 of here has label 1; give every record"),
        (
            [[1], [2]],
            None,
            "labels of here are several per image; give one per image, (n,)",
        ),
        (np.eye(2), None, "labels of here are several per image, (2, 2)"),
        (iter(np.eye(2)), None, "record 0 of here has label array([1., 0.]); give every record"),
        (["a", Unsure()], None, "record 1 of here has no label"),
        ({0: 1}, None, "labels of here are {0: 1}; give a sequence, one per image"),
        ({0, 1}, None, "labels of here are {0, 1}; give a sequence"),
        ("ab", None, "labels of here are 'ab'; give a sequence"),
        (np.array(1), None, "labels of here are array(1); give a sequence"),
        (3, None, "labels of here are 3; give a sequence"),
        (["a\nb"], None, "here has a class 'a\\nb', which cannot be printed on one line; rename it."),
        ([0], "ab", "class names of here are 'ab'; they must be a sequence"),
        ([0], ["a", ""], "here has a class ''"),
    ],
)
def test_wrong_labels_are_named(labels, names, said):
    with pytest.raises(DataError) as caught:
        numbered(labels, names, "here")
    assert said in str(caught.value)


def test_index_leaves_out_what_is_ambiguous():
    assert index_of(["crane", "bird", "crane"]) == {"bird": 1}
