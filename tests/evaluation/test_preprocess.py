"""Files, bytes and arrays become the same input, as the model wants it."""

import dataclasses
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.tiny import tiny
from vit_jax.data.geometry import moved_back
from vit_jax.data.sources.pictures import Given
from vit_jax.errors import ConfigError, DataError
from vit_jax.evaluation.preprocess import Preprocessor, preprocessing
from vit_jax.models.families import image_config
from vit_jax.models.names.resolve import resolve
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

MODEL = tiny(image_size=(16, 8), preprocessing=Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bilinear", 0.8))
RNG = np.random.default_rng(0)
PHOTO = RNG.integers(0, 256, (20, 30, 3), dtype=np.uint8)


def png(image):
    stream = io.BytesIO()
    Image.fromarray(image.squeeze()).save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    path.write_bytes(png(PHOTO))
    return path


def test_paths_bytes_and_arrays_are_the_same(photo):
    prepare = preprocessing(MODEL)
    expected = prepare.pixels([PHOTO])
    assert (expected.shape, expected.dtype) == ((1, 16, 8, 3), np.uint8)
    data = photo.read_bytes()
    kinds = (data, bytearray(data), io.BytesIO(data), Image.fromarray(PHOTO), iter([photo]), photo.parent)
    for images in ([photo], [str(photo)], [data], photo, str(photo), PHOTO, *kinds):
        np.testing.assert_array_equal(prepare.pixels(images), expected)
    np.testing.assert_array_equal(prepare.pixels(PHOTO[None]), expected)
    normalised = (expected / 255 - np.asarray(IMAGENET_MEAN)) / np.asarray(IMAGENET_STD)
    np.testing.assert_allclose(prepare(photo), normalised, rtol=1e-5, atol=1e-6)
    assert prepare(photo).dtype == np.float32


def test_the_home_folder(photo, monkeypatch):
    monkeypatch.setenv("HOME", str(photo.parent))
    for path in ("~/photo.png", Path("~/photo.png"), "~"):
        np.testing.assert_array_equal(preprocessing(MODEL).pixels(path), preprocessing(MODEL).pixels(PHOTO))


def test_the_model_s_own_transforms():
    assert preprocessing(MODEL).spec == "decode|resize_short((20, 10), 'bilinear')|center_crop((16, 8))"

    class Model:
        config = MODEL

    assert preprocessing(Model()) == preprocessing(MODEL)
    middle = np.asarray(Image.fromarray(PHOTO).resize((30, 20), Image.Resampling.BILINEAR))[2:18, 11:19]
    np.testing.assert_array_equal(preprocessing(MODEL).pixels(PHOTO)[0], middle)


def test_transforms_of_files_stay_as_they_are():
    assert Preprocessor(MODEL, "decode|resize((16, 8))").spec == "decode|resize((16, 8))"


@pytest.mark.parametrize("transforms", ["", "to_channels(1)", "resize((20, 10))|center_crop((16, 8))"])
def test_transforms_of_arrays_take_files_of_any_size_as_well(transforms):
    model = tiny(image_size=(16, 8), in_channels=1)
    prepare = Preprocessor(model, transforms)
    exact = PHOTO[:16, :8, :1]
    if "crop" not in transforms:
        np.testing.assert_array_equal(prepare.pixels([exact, png(exact)]), np.stack([exact, exact]))
    else:
        np.testing.assert_array_equal(prepare.pixels(exact), prepare.pixels(png(exact)))
    assert prepare.pixels([PHOTO, png(PHOTO)]).shape == (2, 16, 8, 1)


@pytest.mark.parametrize("channels", [1, 2, 3, 4, 12])
@pytest.mark.parametrize("transforms", [None, "", "resize((20, 10))|center_crop((16, 8))"])
@pytest.mark.parametrize("mode", ["center", "squash", "border"])
def test_arrays_of_the_model_s_channels(channels, transforms, mode):
    settings = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, crop=0.8, crop_mode=mode)
    model = tiny(image_size=(16, 8), in_channels=channels, preprocessing=settings)
    prepare = Preprocessor(model, transforms)
    image = RNG.integers(0, 256, (21, 33, channels), dtype=np.uint8)
    (whole,) = prepare.pixels(image)
    assert whole.shape == (16, 8, channels)
    # Each channel is resized as if it were alone.
    alone = Preprocessor(dataclasses.replace(model, in_channels=1), transforms)
    if mode != "border":  # filled with the mean, which may differ
        planes = [alone.pixels(image[..., c])[0] for c in range(channels)]
        np.testing.assert_array_equal(whole, np.concatenate(planes, axis=-1))
    np.testing.assert_array_equal(prepare.pixels(np.stack([image, image])), np.stack([whole, whole]))
    assert prepare(image).shape == (1, 16, 8, channels)


def test_what_published_models_of_many_channels_are_predicted_with():
    model = tiny(image_size=(16, 8), in_channels=12)
    image = RNG.integers(0, 256, (21, 33, 12), dtype=np.uint8)
    told = Preprocessor(model, "decode(12)|resize_short((17, 8), 'bicubic')|center_crop((16, 8))")
    np.testing.assert_array_equal(told.pixels(image), preprocessing(model).pixels(image))


def test_larger_and_smaller_limits(tmp_path):
    large = Image.new("RGB", (9000, 8000), (200, 30, 30))  # 72 megapixels
    large.save(tmp_path / "large.jpg")
    prepare = preprocessing(MODEL)
    for kind in (tmp_path / "large.jpg", (tmp_path / "large.jpg").read_bytes(), large):
        with pytest.raises(
            DataError, match="the image has 9000x8000 pixels, more than the 64 megapixels allowed"
        ):
            prepare.pixels(kind)
        assert prepare.limited(100).pixels(kind).shape == (1, 16, 8, 3)
        # As a run keeps it that was trained with data.max_megapixels=100.
        assert Preprocessor(MODEL, "decode(max_megapixels=100)|resize((16, 8))").pixels(kind).shape == (
            1,
            16,
            8,
            3,
        )
    for kind in (png(PHOTO), Image.fromarray(PHOTO)):
        with pytest.raises(
            DataError, match=r"^image 0: the image has 30x20 pixels, more than the 0.0005 megapixels"
        ):
            prepare.limited(0.0005).pixels(kind)
        np.testing.assert_array_equal(prepare.limited(0.0006).pixels(kind), prepare.pixels(kind))
    assert prepare.limited(None) is prepare
    for value in (0, -1, np.inf, np.nan, 20_000, "200", True):
        with pytest.raises(ConfigError, match=r"max_megapixels is .*; it must be a number above 0"):
            prepare.limited(value)


def test_nothing_comes_of_nothing():
    assert preprocessing(MODEL).pixels([]).shape == (0, 16, 8, 3)
    assert preprocessing(MODEL)([]).shape == (0, 16, 8, 3)


def test_what_is_refused(tmp_path, photo):
    prepare = preprocessing(MODEL)
    cases = [
        (tmp_path / "none.png", r"none.png cannot be read: No such file"),
        ([photo, b"text"], r"^image 1: not an image of a known format"),
        (
            [PHOTO, PHOTO / 255],
            r"^image 1 is float64 of shape \(20, 30, 3\); it must be uint8 \(h, w, c\) with c = 3, values",
        ),
        ([np.zeros((20, 30, 2), np.uint8)], "^image 0: the image has 2 channels, which cannot become 3"),
    ]
    (tmp_path / "half.png").write_bytes(photo.read_bytes()[:100])
    cases.append((tmp_path / "half.png", rf"^{tmp_path / 'half.png'}: (?!.*half)"))  # named once
    for images, message in cases:
        with pytest.raises(DataError, match=message):
            prepare.pixels(images)
    with pytest.raises(
        DataError, match=r"has shape \(9, 9, 3\) after the transforms .* the model takes \(16, 8, 3\)"
    ):
        Preprocessor(MODEL, "decode|resize(9)").pixels(PHOTO)
    with pytest.raises(DataError, match="image 0: the image has 3 channels, which cannot become 5"):
        Preprocessor(tiny(in_channels=5)).pixels(PHOTO)
    with pytest.raises(
        DataError, match=r"photo.png is an image file, .* the model takes arrays uint8 \(h, w, 5\)"
    ):
        Preprocessor(tiny(in_channels=5)).pixels(photo)


@pytest.mark.parametrize(
    "name", ["openai/clip-vit-base-patch32", "facebook/vit-mae-base", "vit_base_patch16_clip_224.openai"]
)
def test_models_of_several_parts_take_the_images_of_one(name):
    config = resolve(name)[1]
    prepare = preprocessing(config)
    assert prepare.config == image_config(config)
    assert prepare(PHOTO).shape == (1, 224, 224, 3)


def test_what_was_taken_says_where_it_came_from():
    """Wide images are cropped on both sides: a predicted map goes back to the pixels that the model saw."""
    image = np.random.default_rng(0).integers(0, 256, (16, 32, 3), dtype=np.uint8)
    preprocessor = Preprocessor(tiny(image_size=(8, 8)), "decode|resize_short(8, 'bilinear')|center_crop(8)")
    taken = preprocessor.take(Given("image 0", image))
    assert (taken.pixels.shape, taken.size) == ((8, 8, 3), (16, 32))
    np.testing.assert_allclose(taken.geometry, [[0.5, 0, -4], [0, 0.5, 0]])
    back = moved_back(np.ones((8, 8), np.int32), taken.geometry, taken.size, 0)
    np.testing.assert_array_equal(np.flatnonzero(back.any(axis=0)), np.arange(8, 24))
