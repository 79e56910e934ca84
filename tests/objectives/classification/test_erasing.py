"""Random erasing: which pixels, how many, filled with what; boxes as timm draws them."""

import math
import random
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from scipy import stats

from vit_jax.objectives.classification.erasing import draw_boxes, erase

KEY = jax.random.key(0)
DEFAULTS = dict(area=(0.02, 1 / 3), aspect=0.3)


def noise(size, height=16, width=12, channels=3):
    return np.random.default_rng(0).standard_normal((size, height, width, channels), np.float32)


def erased(images, **options):
    return np.asarray(jax.jit(partial(erase, **options))(jnp.asarray(images), KEY))


def timm_sides(rng, height, width, count, area, aspect):
    """Heights and widths of the boxes of one image, by the steps of timm 1.0.31's `RandomErasing`."""
    sides = []
    for _ in range(count):
        for _ in range(10):
            target = rng.uniform(*area) * height * width / count
            ratio = math.exp(rng.uniform(math.log(aspect), math.log(1 / aspect)))
            h, w = round(math.sqrt(target * ratio)), round(math.sqrt(target / ratio))
            if w < width and h < height:
                sides.append((h, w))
                break
    return sides


@pytest.mark.parametrize(
    ("height", "width", "count", "options"),
    [
        (32, 32, 1, DEFAULTS),
        (24, 60, 1, DEFAULTS),
        (24, 60, 3, DEFAULTS),
        (40, 40, 1, dict(area=(0.5, 1.0), aspect=0.2)),  # most draws do not fit, and some of ten times
    ],
)
def test_sizes_and_places_are_distributed_as_those_of_timm(height, width, count, options):
    images = 6000
    number = jnp.full(images, count)
    draw = jax.jit(partial(draw_boxes, size=(height, width), most=count, **options))
    boxes = np.asarray(draw(KEY, number)).reshape(-1, 4)
    top, bottom, left, right = boxes.T
    h, w = bottom - top, right - left
    there = (h > 0) & (w > 0)
    rng = random.Random(0)
    sides = [timm_sides(rng, height, width, count, **options) for _ in range(images)]
    theirs = np.asarray([side for one in sides for side in one])
    missing = 1 - len(theirs) / (images * count)
    assert abs(missing - np.mean(~there)) < 4 * np.sqrt(2 * max(missing, 1e-4) / images)
    h, w, top, left = h[there], w[there], top[there], left[there]
    for found, expected in (
        (h, theirs[:, 0]),
        (w, theirs[:, 1]),
        (h * w, theirs[:, 0] * theirs[:, 1]),
        (h / w, theirs[:, 0] / theirs[:, 1]),
    ):
        assert stats.ks_2samp(found, expected).pvalue > 1e-3
    # Inside the image, anywhere that the size allows with equal chances.
    assert top.min() == left.min() == 0
    assert (top + h).max() == height
    assert (left + w).max() == width
    for start, free in ((top, height - h + 1), (left, width - w + 1)):
        place = (start + 0.5) / free
        assert abs(place.mean() - 0.5) < 4 * place.std() / np.sqrt(len(place))
    wide = height - h + 1 >= 10
    assert abs(np.corrcoef(top[wide], left[wide])[0, 1]) < 0.1


def test_a_box_that_never_fits_is_left_out():
    boxes = draw_boxes(KEY, jnp.full(50, 2), (4, 4), area=(8.0, 9.0), aspect=1.0, most=2)
    np.testing.assert_array_equal(boxes[..., 1] - boxes[..., 0], 0)
    images = noise(20, 4, 4)
    # Of an image's whole area, a square box is as high as the image, so it never fits.
    same = erased(images, probability=1.0, area=(1.0, 1.0), aspect=1.0)
    np.testing.assert_array_equal(same, images)


def found_boxes(before, after):
    """The mask of changed pixels, the same for all channels."""
    changed = before != after
    np.testing.assert_array_equal(changed, np.broadcast_to(changed[..., :1], changed.shape))
    return changed[..., 0]


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_one_box_is_filled_and_the_rest_is_bitwise_the_same(mode):
    images = noise(200)
    after = erased(images, probability=1.0, mode=mode)
    masks = found_boxes(images, after)
    for mask in masks:
        rows, columns = mask.any(axis=1), mask.any(axis=0)
        np.testing.assert_array_equal(mask, rows[:, None] & columns[None])
        for line in (rows, columns):
            assert np.count_nonzero(np.diff(np.concatenate([[0], line, [0]]).astype(int))) == 2
    colours = [one[mask] for one, mask in zip(after, masks)]
    if mode == "const":
        assert all((colour == 0).all() for colour in colours)
    elif mode == "rand":
        assert all((colour == colour[0]).all() for colour in colours)
        drawn = np.stack([colour[0] for colour in colours])
        assert len(np.unique(drawn)) == drawn.size
        assert stats.kstest(drawn.reshape(-1), "norm").pvalue > 1e-3
    else:
        drawn = np.concatenate(colours).reshape(-1)
        assert abs(drawn.mean()) < 4 / np.sqrt(len(drawn))
        assert abs(drawn.std() - 1) < 4 / np.sqrt(2 * len(drawn))
        assert stats.kstest(drawn, "norm").pvalue > 1e-3
        assert len(np.unique(drawn)) > 0.99 * len(drawn)


def test_probability():
    images = noise(4000, 8, 8, 1)
    share = (erased(images, probability=0.25) != images).any(axis=(1, 2, 3)).mean()
    assert abs(share - 0.25) < 4 * np.sqrt(0.25 * 0.75 / 4000)
    assert erase(jnp.asarray(images), KEY, probability=0.0).shape == images.shape
    np.testing.assert_array_equal(erase(jnp.asarray(images), KEY, probability=0.0), images)


def test_the_number_of_boxes_is_uniform_between_its_bounds():
    boxes = np.asarray(draw_boxes(KEY, jnp.asarray([1, 2, 4]), (64, 64), most=4, area=(0.1, 0.2), aspect=0.5))
    present = (boxes[..., 1] > boxes[..., 0]).sum(axis=1)
    np.testing.assert_array_equal(present, [1, 2, 4])
    # Each colour is one box; boxes that later ones cover are rare when they are small.
    images = noise(2000, 24, 24, 1)
    after = erased(images, probability=1.0, mode="rand", count=(2, 4), area=(0.02, 0.03))
    colours = [len(np.unique(one[one != before])) for one, before in zip(after, images)]
    counts = np.bincount(colours, minlength=5)
    assert not counts[0]
    assert not counts[5:].any()
    assert counts[1] < 0.05 * len(colours)
    np.testing.assert_allclose(counts[2:] / len(colours), 1 / 3, atol=0.07)


def test_the_area_is_that_of_all_boxes_together():
    shares = []
    for count in (1, 4):
        number = jnp.full(3000, count)
        boxes = np.asarray(draw_boxes(KEY, number, (64, 64), most=count, **DEFAULTS)).reshape(-1, count, 4)
        area = (boxes[..., 1] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 2])
        shares.append(area.sum(axis=1).mean() / 64**2)
    np.testing.assert_allclose(shares, (0.02 + 1 / 3) / 2, rtol=0.06)


def test_the_key_decides_and_devices_do_not():
    images = noise(16)
    mesh = Mesh(np.asarray(jax.devices()).reshape(8), ("data",))
    spread = jax.device_put(images, NamedSharding(mesh, PartitionSpec("data")))
    run = jax.jit(partial(erase, probability=0.7, count=(1, 2)))
    alone = run(jnp.asarray(images), KEY)
    many = run(spread, KEY)
    assert len(many.sharding.device_set) == 8
    np.testing.assert_array_equal(alone, many)
    np.testing.assert_array_equal(alone, run(jnp.asarray(images), KEY))
    assert not np.array_equal(alone, run(jnp.asarray(images), jax.random.key(1)))
