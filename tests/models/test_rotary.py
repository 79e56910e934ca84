"""Rotary positions: what they turn, by how much, and what scores see of them."""

import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import tiny
from vit_jax.models.layers.positions.rotary import rotate
from vit_jax.models.vit.rotary import rotation

KINDS = ["eva", "dinov3"]


def config(kind, **changes):
    return tiny(rope=kind, rope_theta=10.0, **changes)


def vectors(tokens, heads=2, width=16, dtype=jnp.float32):
    return jnp.asarray(np.random.default_rng(0).standard_normal((1, tokens, heads, width)), dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_scores_depend_on_offsets_alone(kind):
    grid = (3, 4)
    turn = rotation(config(kind), grid)
    one, other = vectors(2)[0]
    q, k = (rotate(jnp.broadcast_to(x, (1, 12, 2, 16)), turn) for x in (one, other))
    scores = np.einsum("bnhk,bmhk->nmh", q, k)
    y, x = np.indices(grid).reshape(2, -1)
    by_offset = {}
    for i in range(12):
        for j in range(12):
            by_offset.setdefault((y[i] - y[j], x[i] - x[j]), []).append(scores[i, j])
    assert len(by_offset) == 5 * 7
    for same in by_offset.values():
        np.testing.assert_allclose(same, np.broadcast_to(same[0], np.shape(same)), atol=2e-5)
    firsts = np.stack([same[0] for same in by_offset.values()])
    assert len(np.unique(firsts.round(4), axis=0)) == len(by_offset)
    np.testing.assert_allclose(by_offset[0, 0][0], np.einsum("hk,hk->h", one, other), atol=2e-5)


def test_channels_that_turn_together():
    """At row 2 and column 1, the first pair of the rows and the second pair of the columns."""
    eva, dino = (rotation(config(kind), (3, 4)) for kind in KINDS)
    slower = 10**-0.25
    x = jnp.zeros((1, 12, 1, 16)).at[..., 0].set(1.0).at[..., 10].set(1.0)
    expected = np.zeros(16)
    expected[[0, 1]] = np.cos(2), np.sin(2)
    expected[[10, 11]] = np.cos(slower), np.sin(slower)
    np.testing.assert_allclose(rotate(x, eva)[0, 9, 0], expected, atol=1e-6)
    # The middle of the last of three rows is 2/3 from the centre, of the second of four columns -1/4.
    x = jnp.zeros((1, 12, 1, 16)).at[..., 0].set(1.0).at[..., 5].set(1.0)
    expected = np.zeros(16)
    expected[[0, 8]] = np.cos(2 * np.pi * 2 / 3), np.sin(2 * np.pi * 2 / 3)
    expected[[5, 13]] = np.cos(-np.pi / 2 * slower), np.sin(-np.pi / 2 * slower)
    np.testing.assert_allclose(rotate(x, dino)[0, 9, 0], expected, atol=1e-6)


def test_dinov3_places_are_those_of_the_image_whatever_the_grid():
    coarse, fine = (rotation(config("dinov3"), grid) for grid in ((2, 3), (6, 9)))
    for name in ("sin", "cos"):
        centres = getattr(fine, name).reshape(6, 9, 16)[1::3, 1::3].reshape(6, 16)
        np.testing.assert_allclose(getattr(coarse, name), centres, atol=1e-6)


def test_eva_spreads_other_grids_over_its_own():
    own, double, plain = (
        rotation(config("eva", rope_grid=spread), grid)
        for spread, grid in (((2, 3), (2, 3)), ((2, 3), (4, 6)), (None, (4, 6)))
    )
    for name in ("sin", "cos"):
        first = getattr(own, name)
        np.testing.assert_allclose(
            getattr(double, name).reshape(4, 6, 16)[::2, ::2].reshape(6, 16), first, atol=1e-6
        )
        np.testing.assert_allclose(
            getattr(plain, name).reshape(4, 6, 16)[:2, :3].reshape(6, 16), first, atol=1e-6
        )


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("kind", KINDS)
def test_first_tokens_stay_and_lengths_and_dtypes_are_kept(kind, dtype):
    x = vectors(2 + 12, dtype=dtype)
    turned = rotate(x, rotation(config(kind), (3, 4)))
    assert turned.dtype == dtype
    np.testing.assert_array_equal(turned[:, :2], x[:, :2])
    before, after = (np.linalg.norm(np.asarray(v, np.float32), axis=-1) for v in (x, turned))
    np.testing.assert_allclose(after, before, rtol=1e-6 if dtype == jnp.float32 else 2**-8)
    moved = np.abs(np.asarray(turned - x, np.float32))[:, 3:].max(axis=(2, 3))
    assert (moved > 0.05).all()


def test_without_rope_there_is_no_rotation():
    assert rotation(tiny(), (4, 4)) is None
