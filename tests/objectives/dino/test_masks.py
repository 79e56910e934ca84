"""Masks: always as many crops, counts spread between the bounds, rectangles of patches."""

import jax
import jax.numpy as jnp
import numpy as np

from vit_jax.objectives.dino.masks import block_order, draw_masks

GRID = (8, 8)


def test_masks_are_those_that_are_gathered():
    drawn = jax.jit(draw_masks, static_argnums=(1, 2, 3, 4, 5))(jax.random.key(0), 20, 3, 2, GRID, (0.1, 0.5))
    masks, places, weights = map(np.asarray, drawn)
    assert (masks.shape, places.shape) == ((20, 3, 64), (20, 2 * 32))
    counts = masks.sum(-1)
    assert ((counts > 0).sum(1) == 2).all()  # of three crops; which, differs
    assert len({tuple(row > 0) for row in counts}) == 3
    np.testing.assert_allclose(weights.sum(1), 2, rtol=1e-6)
    for image in range(20):
        true = places[image][weights[image] > 0]
        assert len(set(true)) == len(true)
        assert set(true) == set(np.flatnonzero(masks[image]))
        np.testing.assert_allclose(
            1 / weights[image][weights[image] > 0], counts[image][true // 64], rtol=1e-6
        )
    # One share of each of 40 equal parts of what lies between the bounds.
    found, parts = np.sort(counts[counts > 0]), 64 * (0.1 + 0.4 * np.arange(41) / 40)
    assert (found >= np.floor(parts[:-1])).all()
    assert (found <= np.floor(parts[1:])).all()


def test_masks_are_rectangles_more_than_single_patches():
    counts = jnp.full(64, 24)
    order = np.asarray(jax.jit(block_order, static_argnums=2)(jax.random.key(1), counts, GRID))
    assert (np.sort(order, 1) == np.arange(64)).all()
    masks = np.zeros((64, 64), bool)
    np.put_along_axis(masks, order[:, :24], True, 1)
    masks = masks.reshape(64, *GRID)
    alike = (masks[:, 1:] == masks[:, :-1]).mean()  # of single patches drawn at random 0.53
    assert alike > 0.7
    assert len({mask.tobytes() for mask in masks}) == 64
    assert masks.mean(0).min() > 0.05  # everywhere, if more in the middle
