"""Windows cover an image, each pixel is the mean of what sees it, and few programs do it."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from vit_jax.objectives.segmentation.sliding import sliding_logits, window_starts


@pytest.mark.parametrize(
    ("size", "crop", "stride", "starts"),
    [
        (10, 4, 3, [0, 3, 6]),
        (10, 4, 4, [0, 4, 6]),
        (9, 9, 4, [0]),
        (512, 512, 341, [0]),
        (683, 512, 341, [0, 171]),
        (1024, 512, 341, [0, 341, 512]),
    ],
)
def test_windows_begin_as_mmsegmentation_has_them(size, crop, stride, starts):
    assert window_starts(size, crop, stride) == starts
    seen = np.zeros(size, int)
    for start in starts:
        seen[start : start + crop] += 1
    assert seen.min() >= 1


@pytest.mark.parametrize("windows", [1, 4, 100])
def test_pixels_are_the_mean_over_windows(windows):
    images = jax.random.uniform(jax.random.key(0), (2, 11, 9, 3))
    crop, stride = (5, 4), (4, 3)

    def apply(x):  # knows where in the window a pixel is, and what else is there
        place = jnp.arange(20, dtype=jnp.float32).reshape(1, 5, 4, 1)
        return jnp.concatenate([x * place, x.mean((1, 2), keepdims=True) + 0 * x], axis=-1)

    found = jax.jit(lambda x: sliding_logits(apply, x, crop, stride, windows))(images)
    total, seen = np.zeros((2, 11, 9, 6)), np.zeros((11, 9, 1))
    for row in window_starts(11, 5, 4):
        for column in window_starts(9, 4, 3):
            place = slice(row, row + 5), slice(column, column + 4)
            total[:, *place] += apply(images[:, *place])
            seen[place] += 1
    assert seen.max() > 1
    np.testing.assert_allclose(found, total / seen, rtol=1e-5, atol=1e-6)


def test_one_window_is_the_model_itself():
    images = jax.random.uniform(jax.random.key(0), (1, 4, 4, 3))
    np.testing.assert_array_equal(sliding_logits(jnp.sin, images, (4, 4), (2, 2)), jnp.sin(images))
