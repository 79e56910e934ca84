import numpy as np
import pytest

from vit_jax.data.images.resizing import INTERPOLATIONS, ROUNDINGS
from vit_jax.errors import ConfigError
from vit_jax.evaluation.preprocess import preprocessing
from vit_jax.models.preprocessing import CHOICES, Preprocessing, covered, uncut
from vit_jax.models.vit.config import ViTConfig


@pytest.mark.parametrize(
    ("size", "crop", "resized"),
    [
        (224, 0.9, 248),  # 248.9
        (224, 0.875, 256),
        (224, 224 / 248, 248),
        (384, 1.0, 384),
        (299, 0.95, 314),  # 314.7
        (32, 2.0, 16),
    ],
)
def test_size_to_resize_to(size, crop, resized):
    assert Preprocessing(crop=crop).resized((size, size)) == (resized, resized)


def test_every_share_of_whole_pixels_gives_them_back():
    for size in range(1, 700, 3):
        for resized in range(size, size + 200):
            assert Preprocessing(crop=size / resized).resized((size, 2 * size)) == (resized, 2 * resized)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (dict(interpolation="bicubik"), "interpolation is 'bicubik'; it must be one of nearest, bilinear"),
        (dict(crop_mode="centre"), "crop_mode is 'centre'; it must be one of center, squash, border. Did"),
        (dict(crop_rounding="up"), "crop_rounding is 'up'; it must be one of even, down, corner"),
        (dict(crop=0.0), "crop is 0.0; it must be above 0"),
        (dict(crop=float("nan")), "crop is nan"),
    ],
)
def test_wrong_values_are_refused(changes, said):
    with pytest.raises(ConfigError) as caught:
        Preprocessing(**changes)
    assert said in str(caught.value)


def test_transforms_offer_the_same_choices():
    assert tuple(INTERPOLATIONS) == CHOICES["interpolation"]
    assert tuple(ROUNDINGS) == CHOICES["crop_rounding"]


def test_what_patches_leave_uncovered_is_cropped_from_the_corner():
    whole = Preprocessing(crop=1.0, crop_mode="squash")
    assert covered(whole, (384, 384), (16, 16)) == (whole, (384, 384))
    seen, size = covered(whole, (384, 384), (14, 14))
    assert (size, seen.resized(size), seen.crop_rounding) == ((378, 378), (384, 384), "corner")
    seen, size = covered(Preprocessing(crop=0.9), (384, 384), (14, 14))
    assert (size, seen.resized(size), seen.crop_rounding) == ((378, 378), (426, 426), "even")
    assert seen.uncovered == (6, 6)
    for before in (whole, Preprocessing(crop=384 / 426), Preprocessing(crop=1.0, crop_mode="border")):
        assert uncut(*covered(before, (384, 384), (14, 14)), (14, 14)) == (before, (384, 384))
        assert uncut(before, (384, 384), (16, 16)) == (before, (384, 384))
    # A corner that somebody chose is no rest of patches.
    chosen = Preprocessing(crop=0.5, crop_mode="squash", crop_rounding="corner")
    assert uncut(chosen, (378, 378), (14, 14)) == (chosen, (378, 378))


@pytest.mark.parametrize(
    ("mode", "crop", "start"), [("center", 0.9, 21), ("center", 1.0, 0), ("squash", 0.9, 21)]
)
def test_patches_leave_out_the_end_of_the_centre_crop(mode, crop, start):
    """As timm's So400m/14 at 384: the middle 384 pixels are cropped, of which patches see the first 378."""
    seen, size = covered(Preprocessing(crop=crop, crop_mode=mode), (384, 384), (14, 14))
    side = round(384 / crop - 0.49)
    image = np.arange(side * side * 3, dtype=np.int64).reshape(side, side, 3).astype(np.uint8)
    config = ViTConfig(image_size=size, patch_size=14, preprocessing=seen)
    ours = preprocessing(config).take(("x", image)).pixels
    assert np.array_equal(ours, image[start : start + 378, start : start + 378])


@pytest.mark.parametrize("value", [(1,), (-1, 0), (0.5, 0)])
def test_uncovered_is_pixels(value):
    with pytest.raises(ConfigError, match="uncovered is"):
        Preprocessing(uncovered=value)
