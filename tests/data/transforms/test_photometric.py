"""Operations on values, against Pillow."""

import numpy as np
import pytest
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from tests.data.transforms import golden
from vit_jax.data.transforms.policies import photometric as p

FACTORS = [0.0, 0.1, 0.37, 0.5, 0.91, 1.0, 1.27, 1.9, 2.6]


@pytest.fixture(params=sorted(golden.images()))
def image(request) -> np.ndarray:
    return golden.images()[request.param]


def picture(image: np.ndarray) -> Image.Image:
    return Image.fromarray(image if image.shape[-1] == 3 else image[..., 0])


def assert_equal(ours: np.ndarray, theirs: Image.Image, image: np.ndarray, most: int = 0, share: float = 0.0):
    """Compare with Pillow's result; at most `share` of the values may differ, by at most `most`."""
    assert ours.dtype == np.uint8
    assert ours.shape == image.shape
    difference = np.abs(ours.astype(int) - np.asarray(theirs).reshape(image.shape))
    assert difference.max() <= most
    assert (difference > 0).mean() <= share


def enhanced(kind: type, image: np.ndarray, factor: float) -> Image.Image:
    return kind(picture(image)).enhance(factor)


def test_operations_without_strength(image):
    assert_equal(p.invert(image), ImageOps.invert(picture(image)), image)
    assert_equal(p.autocontrast(image), ImageOps.autocontrast(picture(image)), image)
    assert_equal(p.equalize(image), ImageOps.equalize(picture(image)), image)
    assert_equal(p.luminance(image)[..., None], picture(image).convert("L"), image[..., :1])
    if image.shape[-1] == 3:
        assert_equal(p.grayscale(image), picture(image).convert("L").convert("RGB"), image)


@pytest.mark.parametrize("threshold", [0, 1, 77, 100.5, 128, 255, 256])
def test_solarize(image, threshold):
    assert_equal(p.solarize(image, threshold), ImageOps.solarize(picture(image), threshold), image)


@pytest.mark.parametrize("bits", range(1, 9))
def test_posterize(image, bits):
    assert_equal(p.posterize(image, bits), ImageOps.posterize(picture(image), bits), image)


@pytest.mark.parametrize("bits", [0, -2])
def test_posterize_to_nothing_is_black(image, bits):
    assert not p.posterize(image, bits).any()


@pytest.mark.parametrize("addition", [0, 33, 110, 220])
def test_solarize_add(image, addition):
    table = [min(255, value + addition) if value < 128 else value for value in range(256)]
    assert_equal(p.solarize_add(image, addition), picture(image).point(table * image.shape[-1]), image)


@pytest.mark.parametrize("factor", FACTORS)
def test_mixtures_with_a_value_are_exact(image, factor):
    assert_equal(p.brightness(image, factor), enhanced(ImageEnhance.Brightness, image, factor), image)
    assert_equal(p.contrast(image, factor), enhanced(ImageEnhance.Contrast, image, factor), image)


@pytest.mark.parametrize("factor", FACTORS)
def test_mixtures_of_images(image, factor):
    # Where the exact result is an integer, rounding errors of Pillow decide.
    allowed = {"most": 1, "share": 0.02}
    assert_equal(p.color(image, factor), enhanced(ImageEnhance.Color, image, factor), image, **allowed)
    assert_equal(
        p.sharpness(image, factor), enhanced(ImageEnhance.Sharpness, image, factor), image, **allowed
    )


def test_what_changes_nothing(image):
    for function in (p.brightness, p.contrast, p.color, p.sharpness, p.contrast_with_area):
        np.testing.assert_array_equal(function(image, 1.0), image)
    for result in (
        p.solarize(image, 256),
        p.solarize_add(image, 0),
        p.posterize(image, 8),
        p.desaturate(image, 0),
        p.gaussian_blur(image, 0),
    ):
        np.testing.assert_array_equal(result, image)


def test_desaturated_whole_is_grey(image):
    np.testing.assert_array_equal(p.desaturate(image, 1.0), p.grayscale(image))


@pytest.mark.parametrize(("size", "grey"), [((16, 16), 1), ((224, 224), 196), ((300, 400), 255)])
def test_contrast_as_published_mixes_with_the_area(size, grey):
    image = np.full((*size, 3), 100, np.uint8)
    assert (p.contrast_with_area(image, 0.0) == grey).all()
    expected = int(grey + 0.5 * (100 - grey))
    assert (p.contrast_with_area(image, 0.5) == expected).all()


@pytest.mark.parametrize("radius", [0.1, 0.3, 0.8, 1.2, 2.0])
def test_blur_is_near_pillow(radius):
    image = golden.arrays()["image"]
    theirs = np.asarray(picture(image).filter(ImageFilter.GaussianBlur(radius)))
    difference = np.abs(p.gaussian_blur(image, radius).astype(int) - theirs)[8:-8, 8:-8]
    assert difference.mean() < 0.6
    assert difference.max() <= 5
    if radius >= 0.8:  # The blur itself is much larger than the difference.
        assert np.abs(image.astype(int) - theirs)[8:-8, 8:-8].mean() > 4 * difference.mean()


def test_blur_of_grey_and_of_small_images(image):
    for radius in (0.4, 2.0):
        blurred = p.gaussian_blur(image, radius)
        assert blurred.shape == image.shape
        assert blurred.dtype == np.uint8
        assert blurred.std() <= image.std()


@pytest.mark.parametrize("shift", [-0.1, 0.05, 0.4])
def test_hue_is_near_torchvision(shift):
    stored = golden.arrays()
    difference = np.abs(p.hue(stored["image"], shift).astype(int) - stored[f"torchvision/hue/{shift}"])
    assert difference.mean() < 0.6
    assert difference.max() <= 8


def test_hue_of_grey_pixels_stays():
    grey = np.repeat(np.arange(256, dtype=np.uint8)[:, None, None], 3, axis=2)
    np.testing.assert_array_equal(p.hue(grey, 0.3), grey)
    np.testing.assert_array_equal(p.hue(grey[..., :1], 0.3), grey[..., :1])


def test_arguments_stay_as_they_are(image):
    before = image.copy()
    image.flags.writeable = False
    for function in (p.invert, p.autocontrast, p.equalize, p.grayscale, p.solarize):
        function(image)
    for function in (p.brightness, p.contrast, p.color, p.sharpness, p.hue, p.gaussian_blur, p.desaturate):
        function(image, 0.4)
    p.posterize(image, 3)
    p.solarize_add(image, 40)
    np.testing.assert_array_equal(image, before)
