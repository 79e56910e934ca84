"""Files, bytes and arrays become the same input, as the model wants it."""

import io

import numpy as np
import pytest
from PIL import Image

from tests.tiny import tiny
from vit_jax.errors import ConfigError, DataError
from vit_jax.evaluation.preprocess import Preprocessor, name_of, preprocessing, several
from vit_jax.models.names import resolve
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from vit_jax.models.towers import image_config

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
    for images in ([photo], [str(photo)], [photo.read_bytes()], photo, str(photo), photo.read_bytes(), PHOTO):
        np.testing.assert_array_equal(prepare.pixels(images), expected)
    np.testing.assert_array_equal(prepare.pixels(PHOTO[None]), expected)
    normalised = (expected / 255 - np.asarray(IMAGENET_MEAN)) / np.asarray(IMAGENET_STD)
    np.testing.assert_allclose(prepare(photo), normalised, rtol=1e-5, atol=1e-6)
    assert prepare(photo).dtype == np.float32


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


def test_nothing_comes_of_nothing():
    assert preprocessing(MODEL).pixels([]).shape == (0, 16, 8, 3)
    assert preprocessing(MODEL)([]).shape == (0, 16, 8, 3)


def test_what_is_refused(tmp_path, photo):
    prepare = preprocessing(MODEL)
    cases = [
        (tmp_path / "none.png", r"none.png cannot be read: No such file"),
        ([photo, b"text"], r"^image 1: not an image of a known format"),
        ([PHOTO, PHOTO / 255], r"^image 1 is float64 of shape \(20, 30, 3\); it must be uint8 \(h, w, c\)"),
        ([PHOTO[..., 0]], r"^image 0 is uint8 of shape \(20, 30\)"),
        ([Image.fromarray(PHOTO)], r"^image 0 is a Image; give a path"),
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
    with pytest.raises(ConfigError, match="image files decode to 1 or 3 channels, not 5"):
        Preprocessor(tiny(in_channels=5)).pixels(PHOTO)


def test_names_and_sequences():
    assert several("a.png") == ["a.png"]
    assert several(["a.png", "b.png"]) == ["a.png", "b.png"]
    assert len(several(PHOTO)) == 1
    assert len(several(np.stack([PHOTO, PHOTO]))) == 2
    assert [name_of("a.png", 3), name_of(PHOTO, 3), name_of(b"", 4)] == ["a.png", "image 3", "image 4"]


@pytest.mark.parametrize(
    "name", ["openai/clip-vit-base-patch32", "facebook/vit-mae-base", "vit_base_patch16_clip_224.openai"]
)
def test_models_of_several_parts_take_the_images_of_one(name):
    config = resolve(name)[1]
    prepare = preprocessing(config)
    assert prepare.config == image_config(config)
    assert prepare(PHOTO).shape == (1, 224, 224, 3)
