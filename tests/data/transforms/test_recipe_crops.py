"""Crops of particular recipes, and the vertical flip."""

import numpy as np
import pytest

from tests.data.transforms import golden
from vit_jax.data.transforms.fusion import DecodedCrop, fused
from vit_jax.data.transforms.recipe_crops import FlipUpDown, InceptionCrop, RandomCrop, SimpleRandomCrop
from vit_jax.data.transforms.sizes import ResizeShort
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError, DataError

# The shares of an image of 300 x 400 that TensorFlow 2.21's sample_distorted_bounding_box takes, in 8,000 draws.
TENSORFLOW = {"mean": 0.346, "quantiles": {0.1: 0.0825, 0.5: 0.305, 0.9: 0.674}}
IMAGE = golden.arrays()["image"]


def boxes(transform, height: int, width: int, times: int) -> np.ndarray:
    rng = np.random.default_rng(4)
    return np.array([transform.box(height, width, rng) for _ in range(times)])


@pytest.mark.parametrize("size", [(300, 400), (400, 300), (50, 50), (30, 200)])
@pytest.mark.parametrize("areas", [(5, 100), (40, 60), (100, 100)])
def test_inception_crops_keep_their_limits(size, areas):
    height, width = size
    top, left, h, w = boxes(InceptionCrop(64, *areas), height, width, 400).T
    assert (top >= 0).all()
    assert (left >= 0).all()
    assert (top + h <= height).all()
    assert (left + w <= width).all()
    whole = (h == height) & (w == width)
    share = (h * w / (height * width))[~whole]
    assert ((share >= areas[0] / 100) & (share <= areas[1] / 100)).all()
    ratio = (w / h)[~whole]
    assert ((ratio > 0.75 - 1 / 20) & (ratio < 1.33 + 1 / 20)).all()
    # Starts at the end are not taken.
    assert (top[h < height] < (height - h)[h < height]).all()
    if areas == (5, 100):
        assert (~whole).mean() > 0.95


def test_inception_crops_are_those_of_tensorflow():
    _, _, h, w = boxes(InceptionCrop(64), 300, 400, 6000).T
    share = h * w / (300 * 400)
    assert abs(share.mean() - TENSORFLOW["mean"]) < 0.012
    for quantile, expected in TENSORFLOW["quantiles"].items():
        assert abs(np.quantile(share, quantile) - expected) < 0.025


def test_inception_crop_of_an_image_of_its_size():
    rng = np.random.default_rng(0)
    assert InceptionCrop(20).image(IMAGE, rng).shape == (20, 20, 3)
    assert InceptionCrop((10, 12)).image(IMAGE[..., :1], rng).shape == (10, 12, 1)
    assert isinstance(fused(parse("decode|inception_crop(8)"))[0], DecodedCrop)
    assert InceptionCrop(20).reduction(100, 100) == 4
    assert InceptionCrop(20, antialias="pillow").reduction(100, 100) == 1


def test_random_crop_takes_every_place():
    image = np.arange(5 * 6, dtype=np.uint8).reshape(5, 6, 1)
    rng = np.random.default_rng(0)
    crops = [RandomCrop((3, 4)).image(image, rng) for _ in range(200)]
    assert {int(crop[0, 0, 0]) for crop in crops} == {
        6 * row + column for row in range(3) for column in range(3)
    }
    for crop in crops:
        row, column = divmod(int(crop[0, 0, 0]), 6)
        np.testing.assert_array_equal(crop, image[row : row + 3, column : column + 4])
    with pytest.raises(DataError, match=r"5x6, smaller than random_crop\(\(6, 6\)\)"):
        RandomCrop(6).image(image, rng)


@pytest.mark.parametrize("shape", [(32, 40), (40, 32), (17, 23)])
def test_simple_random_crop_is_a_part_of_the_resized_and_mirrored(shape):
    image = (
        IMAGE.transpose(1, 0, 2)[: shape[0], : shape[1]] if shape[0] > 32 else IMAGE[: shape[0], : shape[1]]
    )
    resized = ResizeShort(16, "bicubic").image(image, np.random.default_rng(0))
    mirrored = np.pad(resized, ((4, 4), (4, 4), (0, 0)), "reflect")
    found = set()
    for seed in range(25):
        crop = SimpleRandomCrop(16).image(image, np.random.default_rng(seed))
        places = [
            (top, left)
            for top in range(mirrored.shape[0] - 15)
            for left in range(mirrored.shape[1] - 15)
            if np.array_equal(mirrored[top : top + 16, left : left + 16], crop)
        ]
        assert places
        found.update(places)
    assert len(found) > 12


def test_flip_up_down():
    rng = np.random.default_rng(0)
    for image in golden.images().values():
        np.testing.assert_array_equal(FlipUpDown(1).image(image, rng), image[::-1])
        np.testing.assert_array_equal(FlipUpDown(0).image(image, rng), image)
    flipped = [FlipUpDown().image(IMAGE, rng)[0, 0, 0] != IMAGE[0, 0, 0] for _ in range(400)]
    assert 0.4 < np.mean(flipped) < 0.6


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: InceptionCrop(0), "inception_crop: size is 0"),
        (lambda: InceptionCrop(8, 0), "area_min and area_max are (0, 100); they must be percentages"),
        (lambda: InceptionCrop(8, 50, 20), "area_min and area_max are (50, 20)"),
        (lambda: InceptionCrop(8, interpolation="area"), "inception_crop: interpolation is 'area'"),
        (lambda: InceptionCrop(8, antialias="yes"), "inception_crop: antialias is 'yes'"),
        (lambda: RandomCrop(-1), "random_crop: size is -1"),
        (lambda: SimpleRandomCrop(8, -1), "simple_random_crop: padding is -1"),
        (
            lambda: SimpleRandomCrop(4, 4),
            "simple_random_crop: padding is 4; it must be less than the size, 4",
        ),
        (lambda: SimpleRandomCrop(8, interpolation="x"), "simple_random_crop: interpolation is 'x'"),
        (lambda: FlipUpDown(7), "flip_ud: probability is 7"),
    ],
)
def test_what_is_said_of_mistakes(make, said):
    with pytest.raises(ConfigError) as caught:
        make()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
