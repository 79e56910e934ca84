"""Pictures: the file, its size, where things stand, and the attention laid over an image."""

import numpy as np
import pytest
from PIL import Image

from tests.tiny import tiny
from vit_jax.evaluation.figure import (
    COLUMNS,
    GAP,
    LINE,
    MARGIN,
    RIGHT,
    TOP,
    WRONG,
    draw,
    font,
    shortened,
)
from vit_jax.models.families import family_of
from vit_jax.objectives.base import Example, Illustration
from vit_jax.objectives.pictures import DISPLAY, attention_overlay, enlarge

TILE = DISPLAY  # of small images


def illustration(rows, shape=(8, 8, 1), columns=2, caption="cat 99.0% right", record="", right=None):
    rng = np.random.default_rng(0)
    images = [[rng.integers(0, 256, shape, np.uint8) for _ in range(columns)] for _ in range(rows)]
    examples = [Example(caption, pictures, record, right) for pictures in images]
    return Illustration("A title", tuple("abc"[:columns]), examples)


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


@pytest.mark.parametrize("record", ["", "folder/cat/1.png"])
@pytest.mark.parametrize(("rows", "columns"), [(1, 2), (4, 3), (6, 2), (9, 1)])
def test_size(tmp_path, rows, columns, record):
    path = draw(illustration(rows, columns=columns, record=record), tmp_path / "figure.png")
    assert path == tmp_path / "figure.png"
    with Image.open(path) as image:
        assert (image.format, image.mode) == ("PNG", "RGB")
    across = min(rows, COLUMNS)
    cell = columns * (TILE + GAP) + MARGIN
    high = TILE + 16 + (1 + bool(record)) * LINE
    assert image.size == (MARGIN + across * cell, TOP + 8 + -(-rows // COLUMNS) * high)


@pytest.mark.parametrize(
    "shape", [(8, 8, 1), (8, 8, 3), (200, 200, 3), (16, 8, 1), (30, 40, 2), (500, 300, 3)]
)
def test_pictures_stand_in_their_tiles_undistorted(tmp_path, shape):
    given = illustration(1, shape)
    image = given.examples[0].images[1]
    canvas = pixels(draw(given, tmp_path / "figure.png"))
    size = min(2 * DISPLAY, max(enlarge(image).shape))  # a photograph is not shrunk to the size of a digit
    height, width = (round(size * side / max(shape[:2])) for side in shape[:2])
    inside = canvas[TOP : TOP + height, MARGIN + width + GAP :][:, :width]
    rgb = image if shape[-1] == 3 else np.repeat(image[..., :1], 3, axis=-1)
    if size % max(shape[:2]) == 0:  # blocks
        blocks = rgb.repeat(size // max(shape[:2]), 0).repeat(size // max(shape[:2]), 1)
        np.testing.assert_array_equal(inside, blocks)
    else:
        assert abs(inside.mean() - rgb.mean()) < 2
    assert (canvas[TOP : TOP + height, MARGIN + width :][:, :GAP] == 255).all()


def test_pictures_of_several_shapes_stand_in_the_middle(tmp_path):
    shapes = [(8, 8, 1), (16, 8, 1), (8, 16, 1)]
    examples = [Example("", [np.zeros(shape, np.uint8)]) for shape in shapes]
    canvas = pixels(draw(Illustration("", ("a",), examples), tmp_path / "figure.png"))[TOP : TOP + 112, :, 0]
    for number, (height, width) in enumerate([(112, 112), (112, 56), (56, 112)]):
        cell = canvas[:, MARGIN + number * (112 + GAP + MARGIN) :][:, :112]
        expected = np.full((112, 112), 255)
        expected[(112 - height) // 2 : (112 + height) // 2, (112 - width) // 2 : (112 + width) // 2] = 0
        np.testing.assert_array_equal(cell, expected)


def test_floats_are_pixels_too(tmp_path):
    given = illustration(2)
    floats = Illustration(
        given.title,
        given.columns,
        [Example(x.caption, [image + np.float32(0.4) for image in x.images]) for x in given.examples],
    )
    as_bytes, as_floats = (pixels(draw(x, tmp_path / "figure.png")) for x in (given, floats))
    np.testing.assert_array_equal(as_bytes, as_floats)


def test_right_and_wrong_are_told_by_frame_sign_and_words(tmp_path):
    """The class may be called WRONG: what is drawn does not depend on the words."""
    drawn = {}
    for right in (True, False, None):
        given = illustration(1, (8, 8, 1), caption="WRONG 99.0%", right=right)
        drawn[right] = pixels(draw(given, tmp_path / "figure.png")).astype(int)

    def share(right, colour, rows, columns):
        return (np.abs(drawn[right][rows, columns] - colour) < 30).all(-1).mean()

    frame = slice(TOP - 3, TOP + TILE + 3), slice(MARGIN - 3, MARGIN - 1)
    sign = slice(TOP + TILE + 6, TOP + TILE + 22), slice(MARGIN, MARGIN + 12)
    for right, colour, other in ((True, RIGHT, WRONG), (False, WRONG, RIGHT)):
        assert share(right, colour, *frame) == 1
        assert share(right, colour, *sign) > 0.1
        assert share(right, other, slice(None), slice(None)) == 0
    assert share(None, RIGHT, *frame) == share(None, WRONG, *frame) == 0
    # The signs differ in form too.
    ticked, crossed = ((drawn[right][sign] < 250).any(-1) for right in (True, False))
    assert (ticked != crossed).mean() > 0.1
    # Nothing of the picture is covered.
    for right in (True, False):
        place = slice(TOP, TOP + TILE), slice(MARGIN, MARGIN + TILE)
        np.testing.assert_array_equal(drawn[right][place], drawn[None][place])


def test_captions_stay_in_their_cell_and_say_the_end_of_a_path(tmp_path):
    caption, record = "cat 99.0% WRONG, it is " + 30 * "dog ", 30 * "folder/" + "image.png"
    drawn = pixels(
        draw(illustration(2, caption=caption, record=record, right=False), tmp_path / "figure.png")
    )
    cell = 2 * (TILE + GAP) + MARGIN
    assert (drawn[TOP + TILE + 5 :, MARGIN + cell - GAP : MARGIN + cell - 3] == 255).all()
    small = font(13)
    assert shortened(record, small, 100, end=True).endswith("image.png")
    assert shortened(record, small, 100).startswith("folder/")
    assert shortened("short", small, 100) == "short"
    assert shortened("", small, 0) == ""
    assert shortened("long", small, 1) == "…"


def test_long_titles_are_wrapped(tmp_path):
    given = illustration(1)
    whole = Illustration(20 * "A title ", given.columns, given.examples)
    one, other = (pixels(draw(x, tmp_path / "figure.png")) for x in (given, whole))
    lower = other.shape[0] - one.shape[0]
    assert lower > 26
    np.testing.assert_array_equal(other[TOP + lower :], one[TOP:])


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
    overlay = attention_overlay(np.full((16, 8, 1), 100, np.uint8), weights, family_of(model).explain(model))
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
    assert (attention_overlay(image, np.full((1, n, n), 1 / n), family_of(model).explain(model)) == 20).all()
