"""The shuffled order: permutations, epochs, seeds, and that it looks random."""

import numpy as np
import pytest

from vit_jax.data.order import distinct_positions, shuffled, substitute


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


@pytest.mark.parametrize(("batch_size", "repeats"), [(12, 3), (16, 3), (8, 1), (6, 6), (4, 7)])
def test_repeats_lie_apart_and_every_batch_takes_the_next_records(batch_size, repeats):
    positions = np.arange(5 * batch_size)
    places = distinct_positions(positions, batch_size, repeats).reshape(5, batch_size)
    records = -(-batch_size // repeats)
    assert np.unique(places).tolist() == list(range(5 * records))
    for batch in places:
        counts = np.unique(batch, return_counts=True)[1]
        assert len(counts) == records
        assert counts.max() <= repeats
        # Neighbours, which mixing mixes, are different unless there is only one.
        assert records == 1 or (batch != np.roll(batch, 1)).all()


def test_substitutes_are_beyond_any_run_and_differ():
    places = np.concatenate(
        [substitute(position, attempt) for position in (0, 1, 10**15) for attempt in range(8)]
    )
    assert len(np.unique(places)) == len(places)
    assert places.min() >= 2**60
    assert (shuffled(places, 10, 0) < 10).all()
