import pytest

from vit_jax.data.resizing import INTERPOLATIONS, ROUNDINGS
from vit_jax.errors import ConfigError
from vit_jax.models.preprocessing import CHOICES, Preprocessing, covered


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
