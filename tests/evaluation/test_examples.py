"""Examples: mistakes first, every class, whatever the batches; little is remembered."""

import numpy as np
import pytest

from vit_jax.evaluation.examples import Examples


def choose(label, best, count, batch=7, **options):
    examples = Examples(count, **options)
    label, best, index = np.asarray(label), np.asarray(best), np.arange(len(label))
    for start in range(0, len(label), batch):
        rows = slice(start, start + batch)
        examples.add(dict(label=label[rows], classes=best[rows, None], index=index[rows]))
        assert examples._kept.shape[1] <= 2 * count * (label.max() + 1)
    return examples.chosen().tolist()


def test_a_mistake_at_the_end_of_a_folder_is_shown():
    label = np.repeat(np.arange(4), 50)
    best = label.copy()
    best[199] = 0
    assert choose(label, best, 4) == [199, 0, 50, 100]
    assert choose(label, best, 6) == [199, 0, 1, 50, 100, 101]


def test_every_class_comes_before_further_mistakes():
    label = np.repeat(np.arange(3), 10)
    best = np.where(label == 1, 2, label)  # all of class 1 are mistakes
    assert choose(label, best, 3) == [10, 0, 20]
    assert choose(label, best, 6) == [10, 11, 12, 13, 0, 20]
    assert choose(label, best, 15) == [*range(10, 20), 0, 1, 2, 20, 21]


def test_more_classes_than_room():
    label = np.arange(1000)
    assert choose(label, label, 4) == [0, 250, 500, 750]
    best = np.where(label % 100 == 99, 0, label)
    assert choose(label, best, 10) == list(range(99, 1000, 100))
    assert choose(label, best, 5) == [99, 299, 499, 699, 899]


@pytest.mark.parametrize("batch", [1, 5, 300])
def test_batches_do_not_matter(batch):
    rng = np.random.default_rng(0)
    label, best = rng.integers(0, 6, 300), rng.integers(0, 6, 300)
    assert choose(label, best, 11, batch) == choose(label, best, 11, 64)


def test_without_mistakes_and_with_few_records():
    label = np.array([2, 2, 0, 1, 1])
    assert choose(label, label * 0, 3, mistakes=False) == [0, 2, 3]
    assert choose(label, label * 0, 10, mistakes=False) == [0, 1, 2, 3, 4]
    assert choose(label, label, 0) == []
    assert Examples(3).chosen().tolist() == []
