"""A seeded share of each class is held out, in whatever order the records come."""

import numpy as np
import pytest

from vit_jax.data.holdout import hold_out
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.errors import DataError


def source(labels, names=None):
    images = np.arange(len(labels), dtype=np.uint8)[:, None, None, None] * np.ones((1, 2, 2, 1), np.uint8)
    return ArraySource(images, np.asarray(labels), names, num_classes=None if names else int(max(labels)) + 1)


def numbers(part):
    """Which records a part has."""
    return [int(part[index]["image"][0, 0, 0]) for index in range(len(part))]


@pytest.mark.parametrize("order", ["in turn", "sorted", "shuffled"])
def test_a_tenth_of_each_class(order):
    labels = np.arange(200) % 10
    if order != "in turn":
        labels = np.sort(labels) if order == "sorted" else np.random.default_rng(0).permutation(labels)
    train, held_out, notice = hold_out(source(labels), seed=0)
    assert notice == ""
    assert np.bincount(train.labels).tolist() == [18] * 10
    assert np.bincount(held_out.labels).tolist() == [2] * 10
    assert sorted(numbers(train) + numbers(held_out)) == list(range(200))
    assert numbers(train) == sorted(numbers(train))


def test_which_is_a_matter_of_the_seed():
    whole = source(np.arange(100) % 4)
    assert numbers(hold_out(whole, 0)[1]) == numbers(hold_out(whole, 0)[1]) != numbers(hold_out(whole, 1)[1])
    # Not of the position: no class of positions modulo ten is held out as a whole.
    assert len({number % 10 for number in numbers(hold_out(whole, 0)[1])}) > 1


@pytest.mark.parametrize("seed", range(20))
def test_every_class_is_trained_on(seed):
    """Classes of one and two images among large ones; the small ones cannot all be held out, and that is said."""
    labels = [0] * 40 + [1, 2, 2, 3, 3, 4]
    train, held_out, notice = hold_out(source(labels, ("big", "one", "two", "two more", "single")), seed)
    assert set(train.labels.tolist()) == {0, 1, 2, 3, 4}
    assert not {1, 4} & set(held_out.labels.tolist())
    assert len(held_out) == 5
    assert "'one'" in notice
    assert "'single'" in notice
    assert "'big'" not in notice


def test_too_few():
    with pytest.raises(
        DataError, match="fit got 9 images, too few to hold any out; give at least 10, or valid"
    ):
        hold_out(source([0, 1, 1] * 3), 0)
    with pytest.raises(DataError, match="fit got one image of each class, too few"):
        hold_out(source(range(12)), 0)
