"""Operations that move pixels, against Pillow."""

import numpy as np
import pytest
from PIL import Image

from tests.data.transforms import golden
from vit_jax.data.transforms.policies import geometric as g

FILL = (10, 128, 200)
AMOUNTS = [-0.83, -0.3, -0.11, -0.004, 0.0, 0.05, 0.27, 0.5, 1.37]


def pillow(image: np.ndarray, matrix: tuple[float, ...], interpolation: str) -> np.ndarray:
    """Return what Pillow makes of an image."""
    picture = Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])
    moved = picture.transform(
        picture.size,
        Image.Transform.AFFINE,
        matrix,
        Image.Resampling[interpolation.upper()],
        fillcolor=FILL if image.shape[-1] == 3 else FILL[0],
    )
    return np.asarray(moved).reshape(image.shape)


def difference(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    assert ours.dtype == np.uint8
    assert ours.shape == theirs.shape
    return np.abs(ours.astype(int) - theirs)


def fill(image: np.ndarray) -> g.Fill:
    return FILL if image.shape[-1] == 3 else FILL[0]


def assert_near(ours: np.ndarray, theirs: np.ndarray, interpolation: str):
    """Compare moved photographs within what `geometric` states."""
    apart = difference(ours, theirs)
    if interpolation == "nearest":
        assert apart.max() == 0
    elif interpolation == "bilinear":
        assert apart.max() <= 2
        assert apart.mean() < 0.6
    else:
        assert apart.max() <= 20
        assert apart.mean() < 1.2


PHOTOGRAPHS = ["photograph", "grey", "mirrored"]


@pytest.mark.parametrize("interpolation", g.INTERPOLATIONS)
@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_shears_and_rotations(name, amount, interpolation):
    image = golden.images()[name]
    ours = g.shear_x(image, amount, interpolation, fill(image))
    assert_near(ours, pillow(image, (1, amount, 0, 0, 1, 0), interpolation), interpolation)
    ours = g.shear_y(image, amount, interpolation, fill(image))
    assert_near(ours, pillow(image, (1, 0, 0, amount, 1, 0), interpolation), interpolation)
    ours = g.rotate(image, 100 * amount, interpolation, fill(image))
    picture = Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])
    theirs = picture.rotate(100 * amount, Image.Resampling[interpolation.upper()], fillcolor=fill(image))
    assert_near(ours, np.asarray(theirs).reshape(image.shape), interpolation)


@pytest.mark.parametrize("interpolation", g.INTERPOLATIONS)
@pytest.mark.parametrize("amount", AMOUNTS)
@pytest.mark.parametrize("name", [*PHOTOGRAPHS, "noise", "grey noise", "tiny"])
def test_shifts_are_within_one(name, amount, interpolation):
    image = golden.images()[name]
    h, w = image.shape[:2]
    for ours, matrix in (
        (g.translate_x(image, 13 * amount, interpolation, fill(image)), (1, 0, 13 * amount, 0, 1, 0)),
        (g.translate_y(image, 13 * amount, interpolation, fill(image)), (1, 0, 0, 0, 1, 13 * amount)),
        (g.translate_x_rel(image, amount, interpolation, fill(image)), (1, 0, amount * w, 0, 1, 0)),
        (g.translate_y_rel(image, amount, interpolation, fill(image)), (1, 0, 0, 0, 1, amount * h)),
    ):
        apart = difference(ours, pillow(image, matrix, interpolation))
        assert apart.max() <= 1
        # The fraction is cut off, as Pillow does; it differs where rounding errors decide.
        assert (apart > 0).mean() < 0.25


@pytest.mark.parametrize("interpolation", g.INTERPOLATIONS)
@pytest.mark.parametrize("name", sorted(golden.images()))
def test_what_changes_nothing(name, interpolation):
    image = golden.images()[name]
    for function in (g.shear_x, g.shear_y, g.translate_x, g.translate_y, g.rotate):
        np.testing.assert_array_equal(function(image, 0.0, interpolation, 0), image)
    np.testing.assert_array_equal(g.rotate(image, 360, interpolation, 0), image)


@pytest.mark.parametrize("interpolation", g.INTERPOLATIONS)
def test_quarter_turns_are_exact(interpolation):
    image = golden.images()["photograph"][:, :32]
    for quarters in (1, 2, 3, -1):
        turned = g.rotate(image, 90 * quarters, interpolation, 0)
        np.testing.assert_array_equal(turned, np.rot90(image, quarters))


def test_whole_shifts_move_pixels_left_and_up():
    image = golden.images()["photograph"]
    left = g.translate_x(image, 5, "bicubic", 9)
    np.testing.assert_array_equal(left[:, :-5], image[:, 5:])
    assert (left[:, -5:] == 9).all()
    down = g.translate_y(image, -3, "bicubic", FILL)
    np.testing.assert_array_equal(down[3:], image[:-3])
    assert (down[:3] == FILL).all()
    assert (g.translate_x(image, 1000, "bicubic", 9) == 9).all()


def test_arguments_stay_as_they_are():
    image = golden.arrays()["image"].copy()
    before = image.copy()
    for interpolation in g.INTERPOLATIONS:
        for function in (g.shear_x, g.shear_y, g.translate_x, g.translate_y, g.rotate):
            function(image, 2.3, interpolation, 0)
    np.testing.assert_array_equal(image, before)
