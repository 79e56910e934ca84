"""What a transform gets that it does not take is one line that says so: never a traceback, never another result."""

import io

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.base import Source
from vit_jax.data.reader import BatchReader
from vit_jax.data.sources.arrays import ArraySource
from vit_jax.data.transforms.base import MisfitError
from vit_jax.data.transforms.registry import TRANSFORMS
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError, DataError, VitError

NEEDED = {
    "to_channels": "3",
    "center_crop": "8",
    "pad_crop": "8, 2",
    "mae_mask": "4",
    "block_mask": "14",
    "multi_crop": "8, 8",
    "token_crop": "8, 4",
    "token_image": "4",
    **dict.fromkeys(
        ("resize", "resize_short", "resize_long", "random_resized_crop", "inception_crop", "random_crop"), "8"
    ),
    "simple_random_crop": "8",
    "scale_jitter": "8",
    "pad": "8",
    "naflex": "4, 8",
    "pad_objects": "3",
}
SPECS = [f"{name}({NEEDED.get(name, '')})" for name in TRANSFORMS] + [
    *(
        "flip_lr(1.0)",
        "flip_ud(1.0)",
        "grayscale(1.0)",
        "gaussian_blur(1.0)",
        "solarize(1.0)",
        "decode(1)",
        "decode(12)",
    ),
    *("color_jitter(0.4, 0.4, 0.4, 0.1)", "random_erasing(1.0)", "random_erasing(1.0, mean=3, std=3)"),
    *(
        "resize(8, 'nearest')",
        "random_resized_crop(8, antialias='pillow')",
        "to_channels(1)",
        "to_channels(5)",
    ),
    *(
        "center_crop(40)",
        "center_crop(40, fill=0)",
        "center_crop(40, fill=(1, 2, 3))",
        "trivial_augment(fill=(1, 2, 3))",
    ),
    *("pad_crop(40, 2)", "random_crop(40)", "rand_augment('rand-m9-n4')", "multi_crop(8, 8, local_count=0)"),
]
RNG = np.random.default_rng(0)


def encoded():
    buffer = io.BytesIO()
    Image.fromarray(RNG.integers(0, 256, (20, 24, 3), np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


FILE = encoded()
COLOURS = RNG.integers(0, 256, (20, 24, 3))
TAKEN = {
    **{f"uint8 of {c}": RNG.integers(0, 256, (20, 24, c), np.uint8) for c in (1, 2, 3, 4, 5, 12)},
    **{f"float32 of {c}": 255 * RNG.random((20, 24, c), np.float32) for c in (1, 3, 12)},
    "a pixel": np.zeros((1, 1, 3), np.uint8),
    "a line": np.zeros((1, 300, 3), np.uint8),
}
NOT_TAKEN = {
    "an image without channels": COLOURS[..., 0].astype(np.uint8),
    "stacked crops": np.stack([COLOURS] * 5).astype(np.uint8),
    "no pixels": np.zeros((0, 24, 3), np.uint8),
    "no channels": np.zeros((20, 24, 0), np.uint8),
    "float64": COLOURS / 255,
    "int64": COLOURS,
    "uint16": COLOURS.astype(np.uint16),
    "bool": COLOURS > 127,
    "a name": "image.png",
    "nothing": None,
    "a list": COLOURS.tolist(),
    "Pillow's": Image.new("RGB", (9, 9)),
}


def example(image):
    return {"image": image, "label": 0, "record": "record 7"}


def outcome(spec, given, seed=0):
    """The changed example, or the error."""
    try:
        (transform,) = parse(spec)
        return transform(given, np.random.default_rng(seed))
    except VitError as error:
        return error


def leaves_pixels(spec):
    return spec.partition("(")[0].endswith(("_mask", "pad_objects"))


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("kind", TAKEN)
def test_arrays_give_arrays_or_one_line(spec, kind):
    for seed in range(4):
        result = outcome(spec, example(TAKEN[kind]), seed)
        if isinstance(result, VitError):
            assert str(result).isprintable()
        else:
            name = "global_crops" if spec.startswith("multi_crop") else "image"
            assert result[name].dtype == TAKEN[kind].dtype
            assert result[name].ndim == 3 + (name != "image") - ("grid" in result)


@pytest.mark.parametrize("spec", [spec for spec in SPECS if not leaves_pixels(spec)])
def test_what_is_no_image_of_pixels_is_refused(spec):
    for kind, image in NOT_TAKEN.items():
        error = outcome(spec, example(image))
        assert isinstance(error, MisfitError), kind
        assert str(error).startswith("record 7 is ")
    error = outcome(spec, {"global_crops": NOT_TAKEN["stacked crops"], "label": 0, "record": "record 7"})
    assert isinstance(error, MisfitError)
    assert "record 7 has global_crops but no image any more; put image transforms before multi_crop." in str(
        error
    )


@pytest.mark.parametrize(
    "spec", [spec for spec in SPECS if not leaves_pixels(spec) and not spec.startswith("decode")]
)
def test_files_need_decode(spec):
    error = outcome(spec, example(FILE))
    assert isinstance(error, MisfitError)
    assert str(error) == "record 7 is still encoded; begin the transforms with decode."


def test_files_have_one_or_three_channels():
    for spec in ("decode(12)", "decode(12)|random_resized_crop(8)"):
        with pytest.raises(ConfigError, match="image files decode to 1 or 3 channels, not 12"):
            BatchReader(Files(), parse(spec), 2)(0)
    with pytest.raises(ConfigError, match="decode: channels is 0"):
        parse("decode(0)")


@pytest.mark.parametrize("channels", [2, 4, 12])
def test_many_channels_pass_where_they_can(channels):
    """Spatial transforms do with each channel what they do with a grey image."""
    image = RNG.integers(0, 256, (20, 24, channels), np.uint8)
    for spec in (
        *(
            "decode(CHANNELS)",
            "to_channels(CHANNELS)",
            "resize(8)",
            "resize_short(8)",
            "resize_long(8)",
            "center_crop(8)",
        ),
        *(
            "random_resized_crop(8)",
            "random_resized_crop(8, antialias='pillow')",
            "inception_crop(8)",
            "random_crop(8)",
        ),
        *(
            "simple_random_crop(8)",
            "flip_lr",
            "flip_ud",
            "pad_crop(8, 2)",
            "random_erasing(mode='const', mean=9, std=9)",
        ),
    ):
        for seed in range(4):
            whole = outcome(spec.replace("CHANNELS", str(channels)), example(image), seed)["image"]
            for channel in range(channels):
                one = outcome(
                    spec.replace("CHANNELS", "1"), example(image[..., channel : channel + 1]), seed
                )["image"]
                np.testing.assert_array_equal(whole[..., channel : channel + 1], one, spec)


@pytest.mark.parametrize(
    "name",
    [
        *(
            "rand_augment",
            "randaug",
            "auto_augment",
            "trivial_augment",
            "three_augment",
            "aug_mix",
            "color_jitter",
        ),
        *("grayscale(0.0)", "hsv", "gaussian_blur(0.0)", "solarize(0.0)"),
    ],
)
def test_what_is_about_colours_says_so_at_the_first_record(name):
    """Whatever chance says, so that the first record, which is read before anything is compiled, tells."""
    source = ArraySource(RNG.integers(0, 256, (9, 20, 24, 12), np.uint8), np.arange(9) % 2)
    for policy in (False, True):
        with pytest.raises(
            DataError, match=r"type uint8 and 12 channels; \w+ needs uint8 images of 1 or 3 channels"
        ):
            BatchReader(source, parse(f"{name}|resize(8)"), 4, shuffle=True, skip_bad=policy)(0)


class Files(Source):
    """Two image files."""

    class_names = ("a", "b")

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return {"image": FILE, "label": index, "record": f"file {index}"}


def test_a_misfit_is_no_bad_record():
    """It is told at once, and not after all records were skipped."""
    with pytest.raises(MisfitError, match=r"^file 0 is still encoded; begin the transforms with decode\.$"):
        BatchReader(Files(), parse("resize(8)"), 2, skip_bad=True)(0)
