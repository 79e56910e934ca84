"""Windows over maps of two and three dimensions: cut, shifted, masked and put back."""

import itertools

import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.models.layers.positions import windows as windows_module
from vit_jax.models.layers.positions.windows import (
    Cut,
    log_offsets,
    offset_rows,
    partition,
    reorder,
    unpartition,
)

CASES = [
    ((8, 8), (4, 4), (2, 2)),
    ((6, 10), (4, 4), (2, 2)),
    ((4, 9), (4, 3), (0, 1)),
    ((3, 5, 6), (2, 4, 3), (1, 2, 1)),
    ((4, 4, 8), (4, 2, 4), (0, 1, 2)),
]


def numbered(sides, b=2):
    """A map whose places say where they are; no place is 0, which is what padding is."""
    return 1 + np.arange(b * np.prod(sides), dtype=np.float32).reshape(b, *sides, 1)


@pytest.mark.parametrize(("sides", "window", "shift"), CASES)
@pytest.mark.parametrize("pad_first", [True, False])
def test_what_is_cut_is_put_back(sides, window, shift, pad_first):
    cut, x = Cut(window, shift, pad_first), numbered(sides)
    windows = cut.split(x)
    count = np.prod([-(-side // size) for side, size in zip(sides, window)])
    assert windows.shape == (2 * count, np.prod(window), 1)
    np.testing.assert_array_equal(cut.join(windows, sides), x)
    assert (np.asarray(windows) == 0).sum() == windows.size - x.size


@pytest.mark.parametrize(("sides", "window", "shift"), CASES)
def test_windows_are_slices_of_the_map_in_order(sides, window, shift):
    x = numbered(tuple(-(-side // size) * size for side, size in zip(sides, window)))
    windows = np.asarray(partition(x, window))
    starts = [range(0, side, size) for side, size in zip(x.shape[1:], window)]
    boxes = [
        x[b, *(slice(at, at + size) for at, size in zip(start, window))]
        for b in range(2)
        for start in itertools.product(*starts)
    ]
    np.testing.assert_array_equal(windows, np.stack(boxes).reshape(windows.shape))
    np.testing.assert_array_equal(unpartition(windows, window, x.shape[1:-1]), x)


@pytest.mark.parametrize(("sides", "window", "shift"), CASES)
def test_places_see_those_that_were_near_before_the_shift(sides, window, shift):
    """Two places of a shifted window are neighbours where no edge of the map, of whole windows, lies between them."""
    cut = Cut(window, shift, True)
    padded = cut.padded(sides)
    near = cut.neighbours(sides)
    places = np.stack(np.meshgrid(*map(np.arange, padded), indexing="ij"), -1).astype(np.float32)
    rolled = np.asarray(cut.split(places[None])).astype(int)  # where each place of a window comes from
    distance = np.abs(rolled[:, :, None] - rolled[:, None, :])
    expected = (distance < np.asarray(window)).all(-1)
    np.testing.assert_array_equal(near, expected)


def test_without_a_shift_nothing_is_hidden():
    assert Cut((4, 4), (0, 0), True).neighbours((8, 8)) is None


def test_two_dimensions_are_three_with_one_frame():
    flat, deep = Cut((4, 4), (2, 2), True), Cut((1, 4, 4), (0, 2, 2), True)
    x = numbered((7, 8))
    np.testing.assert_array_equal(flat.split(x), deep.split(x[:, None]))
    np.testing.assert_array_equal(flat.neighbours((7, 8)), deep.neighbours((1, 7, 8)))
    np.testing.assert_array_equal(offset_rows((4, 4), (4, 4)), offset_rows((1, 4, 4), (1, 4, 4)))


@pytest.mark.parametrize("window", [(3, 4), (2, 3, 2)])
def test_each_offset_has_a_row_of_its_own(window):
    rows = offset_rows(window, window)
    places = np.indices(window).reshape(len(window), -1).T
    by_row = {}
    for (i, a), (j, b) in itertools.product(enumerate(places), repeat=2):
        assert by_row.setdefault(rows[i, j], tuple(a - b)) == tuple(a - b)
    assert sorted(by_row) == list(range(np.prod([2 * side - 1 for side in window])))
    assert by_row[0] == tuple(1 - side for side in window)


def test_smaller_windows_take_the_rows_of_the_same_offsets():
    whole, part = offset_rows((4, 5), (4, 5)), offset_rows((2, 3), (4, 5))
    inside = [row * 5 + column for row in range(2) for column in range(3)]
    np.testing.assert_array_equal(part, whole[np.ix_(inside, inside)])


def test_offsets_on_a_log_scale():
    offsets = log_offsets((8, 8))
    assert (offsets.shape, offsets.dtype) == ((225, 2), np.float32)
    np.testing.assert_allclose(offsets[0], -np.log2(9) / 3, rtol=1e-6)  # 7 places of 7 are 8 on the scale
    np.testing.assert_array_equal(offsets, -offsets[::-1])
    np.testing.assert_allclose(log_offsets((16, 16), (8, 8)).max(), np.log2(8 * 15 / 7 + 1) / 3, rtol=1e-6)
    np.testing.assert_array_equal(log_offsets((1, 3))[:, 0], 0)


@pytest.mark.parametrize("platform", ["cpu", "tpu"])  # which multiplies by zeros and ones
@pytest.mark.parametrize(
    ("sides", "window", "shift"), [case for case in CASES if Cut(case[1], case[2], True).fills(case[0])]
)
def test_places_in_one_order_are_put_into_another(platform, sides, window, shift, monkeypatch):
    monkeypatch.setattr(windows_module, "platform", lambda: platform)
    plain, shifted = Cut(window, (0,) * len(sides), True), Cut(window, shift, True)
    # Numbers that bfloat16 tells apart: of a place, and of the map.
    place = np.arange(np.prod(sides)).reshape(1, *sides, 1)
    x = jnp.asarray(
        np.concatenate([place % 16, place // 16], axis=-1) + np.zeros((2, 1, *sides[1:], 1)), jnp.bfloat16
    )
    before, after = (cut.split(x).reshape(2, -1, 2) for cut in (plain, shifted))
    np.testing.assert_array_equal(reorder(before, plain, shifted, sides), after)
    np.testing.assert_array_equal(reorder(after, shifted, plain, sides), before)
    np.testing.assert_array_equal(np.asarray(after[0, :, 0] + 16 * after[0, :, 1], int), shifted.order(sides))
    assert shifted.count(sides) == len(shifted.split(x)) // 2
