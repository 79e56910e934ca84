"""Colour jitter, grey, blur, solarise, 3-Augment and random erasing: what is drawn, and what becomes of images."""

import collections
import colorsys
import itertools

import numpy as np
import pytest

from tests.data.transforms import golden
from vit_jax.data.transforms.policies import colors
from vit_jax.data.transforms.policies import photometric as p
from vit_jax.data.transforms.policies.colors import (
    ColorJitter,
    GaussianBlur,
    Grayscale,
    Hsv,
    Solarize,
    ThreeAugment,
)
from vit_jax.data.transforms.policies.erasing import RandomErasing
from vit_jax.errors import ConfigError, DataError

IMAGE = golden.arrays()["image"]


def share_changed(transform, times: int = 600) -> float:
    rng = np.random.default_rng(2)
    image = IMAGE[:6, :6]
    changed = [not np.array_equal(transform.image(image, rng), image) for _ in range(times)]
    return sum(changed) / times


@pytest.mark.parametrize("probability", [0.0, 0.2, 1.0])
@pytest.mark.parametrize(
    "make",
    [
        lambda probability: ColorJitter(0.4, 0.4, 0.4, 0.1, probability),
        Grayscale,
        lambda probability: GaussianBlur(probability, (0.6, 2.0)),
        lambda probability: Solarize(probability, 60),
        lambda probability: RandomErasing(
            probability, "const", scale=(0.2, 0.3), ratio=(1, 1), mean=0, std=0
        ),
    ],
)
def test_probabilities(make, probability):
    assert abs(share_changed(make(probability)) - probability) <= (0.07 if probability == 0.2 else 0.0)


@pytest.fixture
def calls(monkeypatch) -> list[tuple[str, float]]:
    """Have the operations only note what would have been done."""
    noted: list[tuple[str, float]] = []
    for name in ("brightness", "contrast", "color", "hue", "gaussian_blur", "solarize", "grayscale"):

        def note(image, argument=0.0, name=name):
            noted.append((name, argument))
            return image

        monkeypatch.setattr(colors.p, name, note)
    return noted


def test_color_jitter_draws_orders_and_factors(calls):
    rng = np.random.default_rng(0)
    orders = collections.Counter()
    for _ in range(1200):
        calls.clear()
        ColorJitter(0.4, (0.7, 0.9), 1.5, 0.1).image(IMAGE, rng)
        assert len(calls) == 4
        orders[tuple(name for name, _ in calls)] += 1
        factors = dict(calls)
        assert 0.6 <= factors["brightness"] <= 1.4
        assert 0.7 <= factors["contrast"] <= 0.9
        assert 0.0 <= factors["color"] <= 2.5
        assert -0.1 <= factors["hue"] <= 0.1
    assert set(orders) == set(itertools.permutations(("brightness", "contrast", "color", "hue")))
    assert min(orders.values()) > 20


def test_color_jitter_leaves_out_what_changes_nothing(calls):
    rng = np.random.default_rng(0)
    ColorJitter().image(IMAGE, rng)
    assert calls == []
    ColorJitter(saturation=0.3).image(IMAGE, rng)
    assert [name for name, _ in calls] == ["color"]


def test_three_augment_does_one_of_three(calls):
    rng = np.random.default_rng(0)
    for _ in range(900):
        ThreeAugment().image(IMAGE, rng)
    counts = collections.Counter(name for name, _ in calls)
    assert set(counts) == {"grayscale", "solarize", "gaussian_blur"}
    assert sum(counts.values()) == 900
    assert min(counts.values()) > 230
    radii = [radius for name, radius in calls if name == "gaussian_blur"]
    assert 0.1 <= min(radii) < 0.2
    assert 1.9 < max(radii) <= 2.0


def test_hue_saturation_and_value():
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (9, 7, 3), np.uint8)
    found = Hsv().image(colours, rng)
    assert found.dtype == np.uint8
    expected = np.array([colorsys.rgb_to_hsv(*colour) for colour in colours.reshape(-1, 3) / 255])
    apart = np.abs(found.reshape(-1, 3) / np.array([256, 255, 255]) - expected)
    assert np.minimum(apart[:, 0], 1 - apart[:, 0]).max() < 1 / 128  # hues go around
    assert apart[:, 1:].max() < 1 / 255
    with pytest.raises(
        DataError, match=r"hsv: the image has 1 channel, and hues need 3; put to_channels\(3\) before"
    ):
        Hsv().image(colours[..., :1], rng)


def test_what_they_do():
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(Grayscale(1).image(IMAGE, rng), p.grayscale(IMAGE))
    np.testing.assert_array_equal(Solarize(1, 100).image(IMAGE, rng), p.solarize(IMAGE, 100))
    blurred = GaussianBlur(1.0, (1.5, 1.5)).image(IMAGE, rng)
    np.testing.assert_array_equal(blurred, p.gaussian_blur(IMAGE, 1.5))
    jittered = ColorJitter((1.3, 1.3)).image(IMAGE, rng)
    np.testing.assert_array_equal(jittered, p.brightness(IMAGE, 1.3))


@pytest.mark.parametrize("name", ["photograph", "grey", "mirrored"])
@pytest.mark.parametrize(
    "transform",
    [
        ColorJitter(0.4, 0.4, 0.2, 0.1),
        Grayscale(1),
        GaussianBlur(1),
        Solarize(1),
        ThreeAugment(),
        RandomErasing(1, mean=120, std=60),
    ],
    ids=str,
)
def test_kind_is_kept_and_generators_decide(transform, name):
    image = golden.images()[name]
    before = image.copy()
    for seed in range(5):
        result = transform.image(image, np.random.default_rng(seed))
        assert result.shape == image.shape
        assert result.dtype == np.uint8
        np.testing.assert_array_equal(result, transform.image(image, np.random.default_rng(seed)))
    np.testing.assert_array_equal(image, before)


# Random erasing.


@pytest.mark.parametrize("mode", ["const", "rand", "pixel"])
def test_erased_rectangles(mode):
    rng = np.random.default_rng(1)
    image = np.full((60, 90, 3), 255, np.uint8)
    transform = RandomErasing(1, mode, mean=(10, 20, 30), std=(5, 5, 5))
    shares, ratios, corners = [], [], []
    for _ in range(300):
        erased = (transform.image(image, rng) != 255).any(-1)
        rows, columns = np.flatnonzero(erased.any(1)), np.flatnonzero(erased.any(0))
        assert erased[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1].all()
        assert len(rows) < 60
        assert len(columns) < 90
        shares.append(erased.mean())
        ratios.append(len(rows) / len(columns))
        corners.append((rows[0], columns[0]))
    assert 0.015 < min(shares) < 0.04
    assert 0.28 < max(shares) < 0.345
    assert abs(np.mean(shares) - (0.02 + 1 / 3) / 2) < 0.03
    assert 0.25 < min(ratios) < 0.5
    assert 2.5 < max(ratios) < 4
    assert np.abs(np.log(ratios).mean()) < 0.2
    assert len(set(corners)) > 200


def test_what_fills():
    rng = np.random.default_rng(1)
    image = np.full((60, 90, 3), 255, np.uint8)
    mean, std = (90, 120, 150), (5, 10, 20)

    def erased(mode: str) -> np.ndarray:
        result = RandomErasing(1, mode, mean=mean, std=std).image(image, rng)
        return result[(result != 255).any(-1)]

    assert (erased("const") == mean).all()
    colors_drawn = [erased("rand") for _ in range(200)]
    assert all((pixels == pixels[0]).all() for pixels in colors_drawn)
    firsts = np.array([pixels[0] for pixels in colors_drawn])
    assert np.abs(firsts.mean(0) - mean).max() < 6
    assert np.abs(firsts.std(0) / std - 1).max() < 0.2
    pixels = np.concatenate([erased("pixel") for _ in range(20)])
    assert np.abs(pixels.mean(0) - mean).max() < 1
    assert np.abs(pixels.std(0) / std - 1).max() < 0.05


def test_several_rectangles_share_the_area():
    rng = np.random.default_rng(1)
    image = np.full((60, 90, 1), 255, np.uint8)
    transform = RandomErasing(1, "const", 3, (0.3, 0.3), mean=0, std=1)
    shares = [(transform.image(image, rng) == 0).mean() for _ in range(50)]
    assert max(shares) < 0.31
    assert np.mean(shares) > 0.2


def test_images_without_as_many_channels():
    with pytest.raises(DataError, match="has 1 channels, but random_erasing has a mean or std of 3"):
        RandomErasing(1).image(IMAGE[..., :1], np.random.default_rng(0))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (
            lambda: ColorJitter(-0.1),
            "color_jitter: brightness is -0.1; it must be a number of at least 0, or",
        ),
        (lambda: ColorJitter(contrast=(0.9, 0.1)), "color_jitter: contrast is (0.9, 0.1)"),
        (lambda: ColorJitter(saturation="much"), "color_jitter: saturation is 'much'"),
        (lambda: ColorJitter(hue=0.6), "color_jitter: hue is 0.6; it must be a number from 0 to 0.5, or"),
        (lambda: ColorJitter(probability=1.2), "color_jitter: probability is 1.2"),
        (lambda: Grayscale(2), "grayscale: probability is 2"),
        (lambda: GaussianBlur(0.1, (2, 1)), "gaussian_blur: radius is (2, 1)"),
        (lambda: Solarize(0.1, 300), "solarize: threshold is 300; it must be from 0 to 256"),
        (
            lambda: RandomErasing(mode="zero"),
            "random_erasing: mode is 'zero'; it must be one of const, rand, pixel",
        ),
        (lambda: RandomErasing(count=0), "random_erasing: count is 0"),
        (lambda: RandomErasing(scale=(0.1, 2)), "random_erasing: scale is (0.1, 2)"),
        (lambda: RandomErasing(mean=(1, 2, 300)), "random_erasing: mean is (1, 2, 300)"),
        (lambda: RandomErasing(std=()), "random_erasing: std is ()"),
    ],
)
def test_what_is_said_of_mistakes(make, said):
    with pytest.raises(ConfigError) as caught:
        make()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
