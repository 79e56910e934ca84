import math

import numpy as np
import pytest

from vit_jax.errors import ConfigError
from vit_jax.models.layers.positions.absolute import sincos2d


def derived(grid, width, kind):
    """The table from its definition, one number at a time."""
    count = width // 4
    last = count if kind == "mae" else count - 1
    table = []
    for y in range(grid[0]):
        for x in range(grid[1]):
            angles = [[place / 10000 ** (k / last) for k in range(count)] for place in (x, y)]
            table.append([wave(a) for axis in angles for wave in (math.sin, math.cos) for a in axis])
    return np.array(table)


@pytest.mark.parametrize("kind", ["mae", "big_vision"])
@pytest.mark.parametrize(("grid", "width"), [((2, 2), 8), ((4, 4), 32), ((3, 5), 16), ((14, 14), 192)])
def test_equals_its_definition(kind, grid, width):
    table = sincos2d(grid, width, kind)
    assert table.dtype == np.float32
    np.testing.assert_allclose(table, derived(grid, width, kind), rtol=0, atol=1e-7)


# Row (y=1, x=2), width 12, computed in float32 by the original code of MAE (get_2d_sincos_pos_embed) and of
# big_vision (posemb_sincos_2d).
ORIGINAL = {
    "mae": (
        [0.9092974066734314, 0.09269849210977554, 0.004308855161070824]
        + [-0.41614681482315063, 0.9956942200660706, 0.999990701675415]
        + [0.8414710164070129, 0.04639922082424164, 0.0021544327028095722]
        + [0.5403022766113281, 0.9989230036735535, 0.9999976754188538]
    ),
    "big_vision": (
        [0.9092974066734314, 0.019998665899038315, 0.00019999999494757503]
        + [-0.416146844625473, 0.9998000264167786, 1.0]
        + [0.8414709568023682, 0.009999833069741726, 9.999999747378752e-05]
        + [0.5403022766113281, 0.9999499917030334, 1.0]
    ),
}


@pytest.mark.parametrize("kind", ["mae", "big_vision"])
def test_equals_the_original_code(kind):
    np.testing.assert_allclose(sincos2d((3, 3), 12, kind)[5], ORIGINAL[kind], rtol=0, atol=2e-7)


@pytest.mark.parametrize("kind", ["mae", "big_vision"])
def test_patches_are_in_row_major_order_with_the_column_first(kind):
    table = sincos2d((2, 3), 8, kind).reshape(2, 3, 8)
    # The first half depends on the column only, the second on the row only.
    np.testing.assert_array_equal(table[0, :, :4], table[1, :, :4])
    np.testing.assert_array_equal(table[:, 0, 4:], table[:, 2, 4:])
    np.testing.assert_allclose(table[1, 2, [0, 4]], [math.sin(2), math.sin(1)], rtol=1e-6)


@pytest.mark.parametrize("kind", ["mae", "big_vision"])
def test_rows_differ_and_have_equal_norms(kind):
    table = sincos2d((7, 9), 32, kind)
    assert len(np.unique(table.round(5), axis=0)) == 63
    np.testing.assert_allclose((table**2).sum(axis=1), 16, rtol=1e-6)


def test_bad_arguments():
    with pytest.raises(ConfigError, match=r"sincos2d kind is 'may'.*Did you mean 'mae'"):
        sincos2d((2, 2), 8, "may")
    with pytest.raises(ConfigError, match="width is 10; sincos2d needs a multiple of 4"):
        sincos2d((2, 2), 10, "mae")
