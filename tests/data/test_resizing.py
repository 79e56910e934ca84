"""Fast resizing is nearly Pillow's."""

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

from vit_jax.data.images.resizing import resize, resize_fast

PHOTO = np.ascontiguousarray(load_sample_images().images[1][100:300, 150:450])


def difference(shrink, interpolation, antialias=True):
    size = int(200 / shrink), int(300 / shrink)
    reference = resize(PHOTO, size, interpolation).astype(int)
    return np.abs(resize_fast(PHOTO, size, interpolation, antialias) - reference).mean()


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize("shrink", [1.05, 1.2, 1.4, 1.6, 1.8, 2.0, 2.2, 3.0, 5.0])
def test_it_is_nearly_pillows(interpolation, shrink):
    found = difference(shrink, interpolation)
    assert found < (1.5 if shrink <= 2.2 else 3)
    if shrink > 1.2:
        assert found < 0.6 * difference(shrink, interpolation, antialias=False)


def test_each_axis_has_its_own_factor():
    for size in ((100, 300), (200, 150), (110, 450), (400, 140)):
        reference = resize(PHOTO, size, "bilinear").astype(int)
        assert np.abs(resize_fast(PHOTO, size, "bilinear") - reference).mean() < 1.5


@pytest.mark.parametrize("channels", [1, 3, 4, 7])
@pytest.mark.parametrize("dtype", [np.uint8, np.float32])
def test_any_channels_and_types(channels, dtype):
    image = np.concatenate([PHOTO] * 3, axis=-1)[..., :channels].astype(dtype)
    for size in ((40, 60), (130, 200), (220, 330), (200, 300)):
        found = resize_fast(image, size, "bilinear")
        assert found.shape == (*size, channels)
        assert found.dtype == dtype
        for c in range(channels):
            one = np.ascontiguousarray(image[..., [c, c, c]])
            assert np.abs(found[..., c] - resize_fast(one, size, "bilinear")[..., 0]).max() <= 1e-3 * 255


def test_constants_stay():
    image = np.full((77, 91, 3), 200, np.uint8)
    for size in ((70, 80), (40, 50), (10, 12), (100, 100)):
        assert (resize_fast(image, size, "bicubic") == 200).all()


def test_flat_arrays_of_floats():
    ramp = np.tile(np.linspace(0, 1, 90, dtype=np.float32)[:, None, None], (1, 60, 1))
    small = resize_fast(ramp, (45, 30), "bilinear")
    assert np.abs(np.diff(small[3:-3, 5, 0]) - 2 / 89).max() < 1e-4
    assert Image.fromarray((small[..., 0] * 255).astype(np.uint8)).size == (30, 45)
