"""The shuffled order: permutations, epochs, seeds, and that it looks random."""

import numpy as np
import pytest

from vit_jax.data.order import shuffled


@pytest.mark.parametrize("count", [*range(1, 40), 99, 100, 101, 1437, 4096])
def test_each_epoch_has_every_record_once(count):
    order = shuffled(np.arange(3 * count), count, seed=1).reshape(3, count)
    assert np.array_equal(np.sort(order, axis=1), np.tile(np.arange(count), (3, 1)))


def test_epochs_and_seeds_differ():
    order = shuffled(np.arange(2000), 1000, seed=0)
    assert not np.array_equal(order[:1000], order[1000:])
    assert not np.array_equal(order, shuffled(np.arange(2000), 1000, seed=1))


def test_any_part_can_be_asked_for():
    whole = shuffled(np.arange(5000), 1437, seed=7)
    assert np.array_equal(shuffled(np.arange(1400, 1500), 1437, seed=7), whole[1400:1500])
    assert np.array_equal(shuffled(np.array([4999, 3, 3]), 1437, seed=7), whole[[4999, 3, 3]])


def test_the_order_never_changes():
    # Resuming an old run needs the order it was started with.
    assert shuffled(np.arange(8), 10, seed=0).tolist() == ORDER_OF_TEN
    assert shuffled(np.arange(4) + 10**12, 5 * 10**9, seed=3).tolist() == ORDER_OF_FIVE_BILLION


def test_every_record_is_equally_likely_everywhere():
    count, epochs = 10, 20_000
    order = shuffled(np.arange(count * epochs), count, seed=5).reshape(epochs, count)
    table = np.stack([np.bincount(order[:, position], minlength=count) for position in range(count)])
    # 81 degrees of freedom: the statistic exceeds 140 with a probability below 1e-4.
    assert ((table - epochs / count) ** 2 / (epochs / count)).sum() < 140


def test_neighbours_are_independent():
    order = shuffled(np.arange(100_000), 100_000, seed=2).astype(np.float64)
    assert abs(np.corrcoef(order[:-1], order[1:])[0, 1]) < 0.015
    assert abs(np.corrcoef(order, np.arange(100_000))[0, 1]) < 0.015


def test_small_sets_take_many_orders():
    orders = {tuple(row) for row in shuffled(np.arange(4 * 2000), 4, seed=0).reshape(-1, 4)}
    assert len(orders) == 24


ORDER_OF_TEN = [0, 2, 3, 6, 4, 5, 7, 9]
ORDER_OF_FIVE_BILLION = [4023428267, 4945808590, 2313857123, 2714906216]
