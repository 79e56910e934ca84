"""Pictures: the file, its size, where things stand, and the attention laid over an image."""

import numpy as np
import pytest
from PIL import Image

from tests.tiny import tiny
from vit_jax.evaluation.figure import COLUMNS, GAP, MARGIN, TILE, WRONG, draw
from vit_jax.objectives.base import Illustration
from vit_jax.objectives.pictures import DISPLAY, attention_overlay, enlarge


def illustration(rows, shape=(8, 8, 1), columns=2, caption="cat 99.0% right"):
    rng = np.random.default_rng(0)
    images = [[rng.integers(0, 256, shape, np.uint8) for _ in range(columns)] for _ in range(rows)]
    return Illustration("A title", tuple("abc"[:columns]), [(caption, pictures) for pictures in images])


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (4, 3), (6, 2), (9, 1)])
def test_size(tmp_path, rows, columns):
    path = draw(illustration(rows, columns=columns), tmp_path / "figure.png")
    assert path == tmp_path / "figure.png"
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
    across = min(rows, COLUMNS)
    cell = columns * (TILE + GAP) + MARGIN
    assert image.size == (MARGIN + across * cell, 84 + -(-rows // COLUMNS) * (TILE + 34))


@pytest.mark.parametrize("shape", [(8, 8, 1), (8, 8, 3), (200, 200, 3), (16, 8, 1), (30, 40, 2)])
def test_pictures_stand_in_their_tiles_undistorted(tmp_path, shape):
    given = illustration(1, shape)
    image = given.rows[0][1][1]
    canvas = pixels(draw(given, tmp_path / "figure.png"))
    tile = canvas[76 : 76 + TILE, MARGIN + TILE + GAP :][:, :TILE]
    height, width = (round(TILE * side / max(shape[:2])) for side in shape[:2])
    top, left = (TILE - height) // 2, (TILE - width) // 2
    inside = tile[top : top + height, left : left + width]
    outside = np.ones((TILE, TILE), bool)
    outside[top : top + height, left : left + width] = False
    assert (tile[outside] == 255).all()
    rgb = image if shape[-1] == 3 else np.repeat(image[..., :1], 3, axis=-1)
    if TILE % max(shape[:2]) == 0:  # blocks
        blocks = rgb.repeat(TILE // max(shape[:2]), 0).repeat(TILE // max(shape[:2]), 1)
        np.testing.assert_array_equal(inside, blocks)
    else:
        assert abs(inside.mean() - rgb.mean()) < 2


def test_floats_are_pixels_too(tmp_path):
    given = illustration(2)
    floats = Illustration(
        given.title,
        given.columns,
        [(text, [x + np.float32(0.4) for x in images]) for text, images in given.rows],
    )
    as_bytes, as_floats = (pixels(draw(x, tmp_path / "figure.png")) for x in (given, floats))
    np.testing.assert_array_equal(as_bytes, as_floats)


def test_wrong_is_red_and_captions_stay_in_their_cell(tmp_path):
    def red(canvas):
        return (np.abs(canvas.astype(int) - WRONG) < 30).all(-1)

    right, wrong = (
        pixels(draw(illustration(2, (8, 8, 1), caption=text), tmp_path / "figure.png"))[76 + TILE + 2 :]
        for text in ("cat 99.0% right", "cat 99.0% WRONG, it is " + 30 * "dog ")
    )
    assert not red(right).any()
    assert red(wrong).any()
    cell = 2 * (TILE + GAP) + MARGIN
    assert (wrong[:, MARGIN + cell - GAP : MARGIN + cell] == 255).all()


def test_enlarge_makes_whole_blocks():
    image = np.arange(8 * 5 * 2, dtype=np.uint8).reshape(8, 5, 2)
    large = enlarge(image)
    assert large.shape == (DISPLAY, 70, 2)
    np.testing.assert_array_equal(large[::14, ::14], image)
    np.testing.assert_array_equal(large[13::14, 13::14], image)
    assert enlarge(np.zeros((100, 10, 1))).shape == (200, 20, 1)
    same = np.zeros((300, 10, 1))
    assert enlarge(same).shape == same.shape


@pytest.mark.parametrize("class_token", [True, False])
def test_attention_overlay(class_token):
    model = tiny(image_size=(16, 8), class_token=class_token, register_tokens=1, pool="mean")
    n, prefix = 8 + class_token + 1, class_token + 1
    weights = np.full((2, n, n), 1e-3, np.float32)
    hot = 5  # third row, second column of a grid of 4 by 2
    if class_token:
        weights[:, 0, prefix + hot] = 0.9  # the class token's row is what is shown
        weights[:, 1:, prefix] = 0.9
    else:
        weights[:, :, prefix + hot] = 0.9
    weights[:, :, :prefix] = 5.0  # what goes to class token and registers is no place in the image
    overlay = attention_overlay(np.full((16, 8, 1), 100, np.uint8), weights, model)
    assert (overlay.shape, overlay.dtype) == ((112, 56, 3), np.uint8)
    red = overlay[..., 0].astype(int)
    # Hottest in the middle of its patch, 28 pixels a side, and not at all two patches away.
    share = 0.6 * (1 - 0.5 / 28)  # a pixel's middle is half a pixel away from that of the patch
    np.testing.assert_array_equal(overlay[70, 42], np.rint([100 + share * (x - 100) for x in (255, 64, 32)]))
    assert red[70, 42] == red.max()
    np.testing.assert_array_equal(overlay[14, 14], [100, 100, 100])
    # Smooth: no step between neighbouring pixels is larger than a fourteenth of the whole range.
    assert max(np.abs(np.diff(red, axis=0)).max(), np.abs(np.diff(red, axis=1)).max()) <= 93 / 14


def test_even_attention_shows_the_plain_image():
    model = tiny(image_size=8)
    n = model.prefix_tokens + 4
    image = np.full((8, 8, 3), (10, 20, 30), np.uint8)
    assert (attention_overlay(image, np.full((1, n, n), 1 / n), model) == 20).all()
