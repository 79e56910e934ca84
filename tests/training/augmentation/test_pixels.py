"""Augmentation on a device: pixels and crops are those of the CPU's transforms with the same parameters."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.data.images.resizing import resize
from vit_jax.data.transforms.crops import RandomResizedCrop
from vit_jax.data.transforms.policies import photometric
from vit_jax.training.augmentation import pixels
from vit_jax.training.augmentation.crops import draw_box, resized_crop


def photograph(height=40, width=48, channels=3):
    """Smooth colours with some noise, and pixels of pure colours."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (6, 7, channels), np.uint8)
    image = cv2.resize(small, (width, height), interpolation=cv2.INTER_CUBIC).reshape(height, width, channels)
    image = np.clip(image.astype(np.int32) + rng.integers(-9, 10, image.shape), 0, 255).astype(np.uint8)
    image[0, :3] = 255 * np.eye(3, channels, dtype=np.uint8)
    image[1, :2] = [[0] * channels, [255] * channels]
    return image


def on_device(function, image, *arguments):
    return np.asarray(jax.jit(function)(jnp.asarray(image, jnp.float32), *arguments))


def assert_near(ours, theirs, most, share):
    """They differ by `most` levels at most, and by any in a share of the values."""
    different = np.abs(ours - theirs.astype(np.float32))
    assert different.max() <= most
    assert (different > 0).mean() <= share


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    ("name", "arguments", "share"),
    [
        ("brightness", (0.63, 1.0, 1.37), 0.005),
        ("contrast", (0.63, 1.0, 1.37), 0.005),
        ("color", (0.63, 1.0, 1.37), 0.02),
        ("hue", (-0.1, 0.0, 0.07, 0.5), 0.05),
        ("grayscale", (), 0),
        ("solarize", (100,), 0),
    ],
)
def test_values_are_those_of_the_cpu(name, arguments, share, channels):
    image = photograph(channels=channels)
    theirs, ours = getattr(photometric, name), getattr(pixels, name)
    compute = jax.jit(ours)
    for argument in arguments or (None,):
        given = () if argument is None else (argument,)
        found = np.asarray(compute(jnp.asarray(image, jnp.float32), *given))
        assert_near(found, theirs(image, *given), 1, share)


def test_blurring_is_that_of_the_cpu_for_every_radius():
    image = photograph()
    blur = jax.jit(lambda image, radius: pixels.gaussian_blur(image, radius, 2.0))
    for radius in (0.1, 0.5, 1.0, 1.41, 1.99, 2.0):
        found = np.asarray(blur(jnp.asarray(image, jnp.float32), radius))
        assert_near(found, photometric.gaussian_blur(image, radius), 1, 0.1)


@pytest.mark.parametrize("method", ["bilinear", "bicubic"])
def test_crops_are_resized_as_pillow_does(method):
    image = photograph(90, 70)
    compute = jax.jit(lambda image, box: resized_crop(image, box, (24, 32), method))
    for box in ((0, 0, 90, 70), (11, 3, 60, 66), (80, 40, 10, 30), (5, 5, 24, 32), (89, 69, 1, 1)):
        top, left, height, width = box
        theirs = resize(image[top : top + height, left : left + width].copy(), (24, 32), method)
        assert_near(np.asarray(compute(jnp.asarray(image), jnp.asarray(box))), theirs, 1, 0.02)


@pytest.mark.parametrize(
    ("scale", "ratio", "size"),
    [
        ((0.05, 0.4), (3 / 4, 4 / 3), (60, 80)),
        ((1.0, 1.0), (3 / 4, 4 / 3), (30, 90)),
        ((0.3, 1.0), (0.5, 0.5), (9, 9)),
    ],
)
def test_boxes_are_drawn_as_on_the_cpu(scale, ratio, size):
    crop = RandomResizedCrop(8, scale, ratio)
    draw = jax.jit(jax.vmap(lambda key: draw_box(crop, *size, key)))
    ours = np.asarray(draw(jax.random.split(jax.random.key(0), 2000)))
    rng = np.random.default_rng(0)
    theirs = np.asarray([crop.box(*size, rng) for _ in range(2000)])
    assert ours[:, :2].min() >= 0
    assert (ours[:, :2] + ours[:, 2:] <= np.asarray(size)).all()
    assert ours[:, 2:].min() >= 1
    for of in (np.mean, np.std):
        np.testing.assert_allclose(of(ours, axis=0), of(theirs, axis=0), atol=0.05 * max(size))
    if scale == (1.0, 1.0):  # nothing fits: the largest part in the middle
        np.testing.assert_array_equal(ours, theirs)
