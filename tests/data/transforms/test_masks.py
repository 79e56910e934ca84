"""Masks of patches for masked image modelling."""

import numpy as np
import pytest

from vit_jax.data.transforms.masks import BlockMask, MaeMask
from vit_jax.errors import ConfigError

EXAMPLE = {"image": np.zeros((4, 4, 3), np.uint8), "label": 3, "record": "r"}


def masks(transform, times: int) -> np.ndarray:
    rng = np.random.default_rng(0)
    return np.stack([transform(EXAMPLE, rng)["patch_mask"] for _ in range(times)])


@pytest.mark.parametrize(
    ("grid", "ratio", "visible"),
    [(14, 0.75, 49), ((3, 5), 0.75, 3), (4, 0.0, 16), (16, 0.9, 25), (2, 0.99, 0)],
)
def test_mae_hides_the_same_number(grid, ratio, visible):
    drawn = masks(MaeMask(grid, ratio), 50)
    assert drawn.dtype == bool
    assert ((~drawn).sum(1) == visible).all()
    if visible not in (0, 16):
        assert len(np.unique(drawn, axis=0)) > 30


def test_mae_hides_all_patches_alike():
    hidden = masks(MaeMask(6, 0.75), 2000).mean(0)
    assert np.abs(hidden - 0.75).max() < 0.05


def test_what_else_is_in_the_example_stays():
    for transform in (MaeMask(4), BlockMask(8, 20, 4)):
        result = transform(EXAMPLE, np.random.default_rng(0))
        assert set(result) == {"image", "label", "record", "patch_mask"}
        assert result["image"] is EXAMPLE["image"]
        assert result["label"] == 3
        again = transform(EXAMPLE, np.random.default_rng(0))
        np.testing.assert_array_equal(result["patch_mask"], again["patch_mask"])
    assert "patch_mask" not in EXAMPLE


def test_beit_hides_at_most_75_of_196_in_blocks():
    drawn = masks(BlockMask(14), 400)
    counts = drawn.sum(1)
    assert counts.max() == 75
    assert counts.min() >= 60
    assert len(np.unique(counts)) > 3
    # In blocks: far more neighbours are alike than if patches were hidden one by one.
    grids = drawn.reshape(-1, 14, 14)
    alike = (grids[:, 1:] == grids[:, :-1]).mean()
    share = counts.mean() / 196
    assert alike > share**2 + (1 - share) ** 2 + 0.2
    hidden = grids.mean(0)
    assert hidden[4:10, 4:10].min() > 0.3
    np.testing.assert_allclose(hidden, hidden[::-1], atol=0.15)
    np.testing.assert_allclose(hidden, hidden[:, ::-1], atol=0.15)


def test_one_block_is_a_rectangle_of_the_least_area():
    # The least area is all that may be hidden: a first rectangle, and then only smaller ones.
    for mask in masks(BlockMask((9, 12), most=16, min_area=16, ratio=(1, 1)), 40).reshape(-1, 9, 12):
        rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
        assert len(rows) == 4
        assert len(columns) == 4
        assert mask.sum() == 16


@pytest.mark.parametrize(("ratio", "tall"), [((2.9, 3.1), True), ((0.3, 0.35), False)])
def test_ratio_is_of_height_to_width(ratio, tall):
    for mask in masks(BlockMask(14, most=27, min_area=27, ratio=ratio), 20).reshape(-1, 14, 14):
        rows, columns = mask.any(1).sum(), mask.any(0).sum()
        assert (rows > columns) == tall


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MaeMask(0), "mae_mask: grid is 0"),
        (lambda: MaeMask(14, 1), "mae_mask: ratio is 1; it must be from 0 to below 1"),
        (lambda: BlockMask(14, 197), "block_mask: most is 197; the grid has only 196 patches"),
        (lambda: BlockMask(14, 0), "block_mask: most is 0"),
        (lambda: BlockMask(14, min_area=0), "block_mask: min_area is 0"),
        (lambda: BlockMask(14, ratio=(2, 1)), "block_mask: ratio is (2, 1)"),
    ],
)
def test_what_is_said_of_mistakes(make, said):
    with pytest.raises(ConfigError) as caught:
        make()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
