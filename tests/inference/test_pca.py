"""Colours of features: the object is foreground whatever the sign of a component, and like features look alike."""

import numpy as np
import pytest

from vit_jax.errors import ConfigError
from vit_jax.objectives.outputs.components import colours


def scene(seed=0, n=3, side=8, c=12):
    """Maps with an object of two parts in the middle, before a background, in features of two, and a little noise."""
    rng = np.random.default_rng(seed)
    back, upper, lower = 10 * rng.standard_normal((3, c))
    upper, lower = (
        back + 12 + upper / 10,
        back + 12 + lower / 10,
    )  # parts differ less than object and background
    maps = np.tile(back, (n, side, side, 1))
    maps[:, 2:4, 2:6], maps[:, 4:6, 2:6] = upper, lower
    inside = np.zeros((side, side), bool)
    inside[2:6, 2:6] = True
    return (maps + 0.05 * rng.standard_normal(maps.shape)).astype(np.float32), inside


@pytest.mark.parametrize("sign", [1, -1])
def test_the_object_is_foreground_and_its_parts_have_their_colours(sign):
    maps, inside = scene()
    shown, kept = colours(sign * maps)
    assert (kept == inside).all()
    assert (shown[~kept] == 0).all()
    upper, lower = shown[:, 2:4, 2:6].reshape(-1, 3), shown[:, 4:6, 2:6].reshape(-1, 3)
    # The first component within the object tells its parts apart; of both images alike.
    assert abs(upper[:, 0].mean() - lower[:, 0].mean()) > 200
    assert upper[:, 0].std() < 20
    assert lower[:, 0].std() < 20
    whole, everything = colours(maps, foreground=False)
    assert everything.all()
    assert whole.shape == (3, 8, 8, 3)


def test_what_has_no_components_is_refused():
    with pytest.raises(ConfigError, match="features of all places are alike"):
        colours(np.ones((2, 4, 4, 8), np.float32))
    with pytest.raises(ConfigError, match="1 maps of 1x2 places and 8 channels have no three principal"):
        colours(np.ones((1, 1, 2, 8), np.float32))
