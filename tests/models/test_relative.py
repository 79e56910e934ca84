"""Relative position bias: which pairs of tokens a row of the table acts on, and tables of other grids."""

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from tests.tiny import parameters, pixels, run, tiny
from vit_jax.models.layers.positions.relative import RelativePositions, geometric_matrix

CASE = dict(np.load(pathlib.Path(__file__).parents[1] / "reference" / "aux_resample_timm.npz"))
KINDS = ["geometric", "bilinear"]


def table(relative, heads=4):
    rng = np.random.default_rng(0)
    return jnp.asarray(rng.standard_normal((relative.rows, heads)), jnp.float32)


@pytest.mark.parametrize("grid", [(2, 3), (3, 1), (1, 1)])
def test_a_row_acts_on_the_pairs_of_its_offset(grid):
    relative = RelativePositions(grid, "geometric")
    height, width = grid
    assert relative.rows == (2 * height - 1) * (2 * width - 1) + 3
    # One head for each row, whose bias says where the row acts.
    acts = np.asarray(relative.bias(jnp.eye(relative.rows), None))
    assert acts.shape == (relative.rows, 1 + height * width, 1 + height * width)
    np.testing.assert_array_equal(acts.sum(axis=0), 1)
    for query in range(height * width):
        for key in range(height * width):
            down, right = query // width - key // width, query % width - key % width
            row = (down + height - 1) * (2 * width - 1) + right + width - 1
            assert acts[row, 1 + query, 1 + key] == 1
    to_patches, from_patches, itself = acts[-3:]
    assert to_patches[0, 1:].all()
    assert from_patches[1:, 0].all()
    assert itself[0, 0] == 1
    # The opposite offset acts on the pairs the other way round.
    np.testing.assert_array_equal(acts[:-3], acts[:-3][::-1].swapaxes(1, 2))


@pytest.mark.parametrize("name", ["relbias_cls_9", "relbias_11"])
def test_resized_tables_equal_timm(name):
    given = CASE["in.table_cls"] if "cls" in name else np.pad(CASE["in.table"], ((0, 3), (0, 0)))
    side = 5 if "cls" in name else 6
    ours = RelativePositions((4, 4), "geometric").resized(jnp.asarray(given), (side, side))
    theirs = CASE[f"out.{name}"]
    np.testing.assert_allclose(ours[: len(theirs)], theirs, rtol=0, atol=2e-5)


@pytest.mark.parametrize("kind", KINDS)
def test_own_grid_changes_nothing(kind):
    relative = RelativePositions((3, 5), kind)
    given = table(relative)
    np.testing.assert_array_equal(relative.resized(given, (3, 5)), given)
    np.testing.assert_array_equal(relative.bias(given, (3, 5)), relative.bias(given, None))


@pytest.mark.parametrize("grid", [(5, 7), (2, 2), (3, 9), (1, 1)])
@pytest.mark.parametrize("own", [(3, 4), (1, 4), (2, 1)])
@pytest.mark.parametrize("kind", KINDS)
def test_other_grids(kind, own, grid):
    relative, other = RelativePositions(own, kind), RelativePositions(grid, kind)
    given = table(relative)
    ours = relative.resized(given, grid)
    assert ours.shape == (other.rows, 4)
    np.testing.assert_array_equal(ours[-3:], given[-3:])
    np.testing.assert_allclose(relative.resized(given.at[:-3].set(2.0), grid)[:-3], 2.0, rtol=1e-6)
    # Both directions are treated alike, and so the middle stays.
    turned = relative.resized(jnp.concatenate([given[:-3][::-1], given[-3:]]), grid)
    np.testing.assert_allclose(turned[:-3], ours[:-3][::-1], atol=2e-6)
    middle = (len(given) - 3) // 2
    np.testing.assert_allclose(ours[(len(ours) - 3) // 2], given[middle], atol=2e-6)


def test_near_offsets_keep_their_rows():
    matrix = geometric_matrix(7, 9)
    # Exact but for float64 rounding of the places.
    np.testing.assert_allclose(matrix[3:6], np.eye(7)[2:5], atol=1e-12)
    assert matrix[0, 0] == pytest.approx(1, abs=1e-4)


def test_shared_is_the_same_table_in_all_blocks():
    shared, blocks = (tiny(position_bias=kind, image_size=(8, 16)) for kind in ("shared", "blocks"))
    params = parameters(shared)
    given = params["position_bias"]
    copied = {name: value for name, value in params.items() if name != "position_bias"}
    attn = {**params["blocks"]["attn"], "position_bias": jnp.broadcast_to(given, (2, *given.shape))}
    copied["blocks"] = {**params["blocks"], "attn": attn}
    for images in (pixels(2, 8, 16), pixels(2, 12, 8)):
        one, other = (dataclasses.replace(config, dynamic_image_size=True) for config in (shared, blocks))
        ours = run(one, images, params=params)
        np.testing.assert_allclose(ours, run(other, images, params=copied), atol=2e-6)
        without = run(one, images, params={**params, "position_bias": 0 * given})
        assert np.abs(ours - without).max() > 1e-3
