"""Digit scenes: what is true of a scene, which scenes are the same, and what training and test do not share."""

import pickle

import numpy as np
import pytest

from vit_jax.data.sources.digit_scenes import (
    DIGITS,
    FIELDS,
    SIDE,
    TEST_COLUMNS,
    SceneSource,
    box_of,
    enlarged,
    photographs,
)
from vit_jax.data.sources.digits import open_digits
from vit_jax.errors import ConfigError


@pytest.fixture(scope="module")
def scenes():
    source = SceneSource("train", 60)
    return [source.scene(index) for index in range(60)]


def test_targets_say_the_same(scenes):
    for scene in scenes:
        g = len(scene.classes)
        assert DIGITS[0] <= g <= DIGITS[1]
        assert scene.image.shape == (SIDE, SIDE, 3)
        assert scene.masks.sum(axis=0).max() == 1  # what is hidden is in no mask
        seen = np.full((SIDE, SIDE), -1)
        for mask, box, label in zip(scene.masks, scene.boxes, scene.classes):
            assert mask.any()
            seen[mask] = label
            np.testing.assert_array_equal(box, box_of(mask))
            left, top, right, bottom = box.astype(int)
            assert mask.sum() == mask[top:bottom, left:right].sum()
        things = scene.segmentation < 10
        np.testing.assert_array_equal(things, seen >= 0)
        np.testing.assert_array_equal(scene.segmentation[things], seen[things])
    assert {*np.unique([scene.segmentation for scene in scenes])} == {*range(12)}
    counts = [len(scene.classes) for scene in scenes]
    assert (min(counts), max(counts)) == DIGITS


def test_a_scene_is_a_function_of_seed_and_index(scenes):
    source = SceneSource("train", 7)
    again = pickle.loads(pickle.dumps(source))
    np.testing.assert_array_equal(again[5]["image"], scenes[5].image)
    np.testing.assert_array_equal(again[5]["segmentation"], scenes[5].segmentation)
    other = SceneSource("train", 7, seed=1)
    assert (other[5]["image"] != again[5]["image"]).any()
    assert (again[6]["image"] != again[5]["image"]).any()
    prints = {s.fingerprint() for s in (source, other, SceneSource("train", 8), SceneSource("test", 7))}
    assert len(prints) == 4
    assert source.fingerprint() == again.fingerprint()


def test_training_and_test_share_neither_strokes_nor_pixels():
    strokes = [
        {image.tobytes() for image in open_digits(split).take(np.arange(360))["image"]}
        for split in ("train", "test")
    ]
    assert not strokes[0] & strokes[1]
    test, train = SceneSource("test", 1), SceneSource("train", 1)
    for photograph, ours, theirs in zip(photographs(), test._photographs, train._photographs):
        np.testing.assert_array_equal(np.concatenate([ours, theirs], axis=1), photograph)
        assert ours.shape[1] == TEST_COLUMNS
    assert (test.scene(0).image != train.scene(0).image).any()


def test_background_is_the_photograph_that_the_map_names(scenes):
    source = SceneSource("train", 1)
    colours = [{tuple(pixel) for pixel in whole.reshape(-1, 3)} for whole in source._photographs]
    shares = np.zeros((2, 2))
    for scene in scenes[:3]:
        for number in range(2):
            pixels = scene.image[scene.segmentation == 10 + number]
            shares[number] += [sum(tuple(pixel) in known for pixel in pixels) for known in colours]
    total = np.bincount(np.ravel([scene.segmentation for scene in scenes[:3]]), minlength=12)[10:]
    shares /= total[:, None]
    assert min(shares[0, 0], shares[1, 1]) > 0.9  # the rest lies under the soft edges of strokes
    assert max(shares[0, 1], shares[1, 0]) < 0.6  # colours that both have


def test_enlarged_digits_are_sharp_turned_and_in_their_place():
    digit = np.zeros((8, 8), np.uint8)
    digit[1:7, 3:5] = 255
    upright = enlarged(digit, 4.0, 0.0)
    assert upright.shape == (32, 32)
    rows, columns = np.nonzero(upright > 0.5)
    assert (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1) == (4, 28, 12, 20)
    np.testing.assert_array_equal(upright, upright[::-1])
    assert set(upright[16]) == {0, 1}  # an edge between two pixels is in neither
    turned = enlarged(digit, 4.0, np.pi / 2)
    lying = turned > 0.5
    np.testing.assert_array_equal(lying, (upright > 0.5).T)
    tilted = enlarged(digit, 4.0, 0.3)
    assert abs((tilted > 0.5).sum() - (upright > 0.5).sum()) < 8
    # Clockwise: the upper end goes to the right.
    assert np.nonzero(tilted[:14] > 0.5)[1].mean() > np.nonzero(tilted[-14:] > 0.5)[1].mean()


def test_fields_and_mistakes():
    assert set(SceneSource("test", 2, fields=FIELDS)[1]) == {*FIELDS, "record"}
    assert SceneSource("test", 2)[1]["record"] == "digit scene 1 (test)"
    with pytest.raises(ConfigError, match="'val'; it must be one of train, test"):
        SceneSource("val", 2)
    with pytest.raises(ConfigError, match=r"data\.size is 0"):
        SceneSource("train", 0)
    with pytest.raises(ConfigError, match="'depth'; it must be one of image, segmentation, masks"):
        SceneSource("train", 2, fields=("depth",))
