"""What a run did to images, said as preprocessing: the same pixels, or the transforms in full."""

import numpy as np
import pytest

from vit_jax.data.transforms.defaults import default_transforms, with_decoding
from vit_jax.data.transforms.said import preprocessing_of
from vit_jax.data.transforms.spec import parse
from vit_jax.models.preprocessing import CLIP, INCEPTION, Preprocessing

# What it is said to be, of images of 32 by 32.
SAID = {
    "": dict(crop_mode="squash", crop=1.0),
    "resize(32, 'bicubic')": dict(crop_mode="squash", crop=1.0),
    "to_channels(3)|resize(32, 'nearest')": dict(crop_mode="squash", crop=1.0, interpolation="nearest"),
    "decode|resize(32)": dict(crop_mode="squash", crop=1.0, interpolation="bilinear"),
    "decode(3)|resize((32, 32), 'lanczos')": dict(crop_mode="squash", crop=1.0, interpolation="lanczos"),
    "decode|resize(40)|center_crop(32)": dict(crop_mode="squash", crop=0.8, interpolation="bilinear"),
    "decode|resize_short(32, 'bicubic')|center_crop(32)": dict(crop=1.0),
    "decode|resize_short(36)|center_crop(32, 'down')": dict(
        crop=32 / 36, interpolation="bilinear", crop_rounding="down"
    ),
    "decode|resize_short(40)|center_crop(34)|center_crop(32, 'corner')": dict(
        crop=0.8, interpolation="bilinear", uncovered=(2, 2)
    ),
    "decode|resize_long(32)|center_crop(32, fill=(128, 128, 128))": dict(
        crop=1.0, crop_mode="border", interpolation="bilinear"
    ),
}
UNSAID = (
    "decode|resize(48)|resize(32)",
    "decode|resize_short(40)|center_crop(36)|resize(32)",
    "decode|grayscale(1.0)|resize(32)",
    "decode|center_crop(32, fill=0)",
    "decode|resize_long(32)|center_crop(32, fill=0)",
    "decode|resize(40)|center_crop(32)|flip_ud(1.0)",
)


def pixels(spec, preprocessing, size):
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    example = {"image": image, "label": 0, "record": "noise"}
    for transform in parse(with_decoding(spec, preprocessing.interpolation, (32, 32), 3)):
        example = transform(example, np.random.default_rng(0))
    return example["image"]


@pytest.mark.parametrize("start", [INCEPTION, CLIP], ids=["inception", "clip"])
@pytest.mark.parametrize("spec", [*SAID, *UNSAID])
def test_the_same_pixels(spec, start):
    said = preprocessing_of(spec, start, (32, 32), 3)
    assert (said.mean, said.std) == (start.mean, start.std)
    written = default_transforms(said, (32, 32), 3)[1]
    for size in ((32, 32), (50, 41), (64, 96), (33, 97), (100, 40)):
        np.testing.assert_array_equal(pixels(written, said, size), pixels(spec, start, size))


@pytest.mark.parametrize("spec", SAID)
def test_a_resize_and_a_crop_are_said_in_words_of_others(spec):
    assert preprocessing_of(spec, INCEPTION, (32, 32), 3) == Preprocessing(**SAID[spec])


@pytest.mark.parametrize("spec", UNSAID)
def test_anything_else_is_said_in_full(spec):
    assert preprocessing_of(spec, INCEPTION, (32, 32), 3) == Preprocessing(transforms=spec)


def test_what_is_default_stays():
    for start in (INCEPTION, CLIP, Preprocessing(crop=1.0, crop_mode="squash")):
        for size in ((32, 32), (48, 64)):
            spec = default_transforms(start, size, 3)[1]
            assert preprocessing_of(spec, start, size, 3) == start


def test_images_that_are_not_square():
    said = preprocessing_of("decode|resize((48, 96))", INCEPTION, (48, 96), 3)
    assert said == Preprocessing(crop_mode="squash", crop=1.0, interpolation="bilinear")
