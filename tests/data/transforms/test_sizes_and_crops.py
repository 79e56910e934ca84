"""Transforms: what each does to an image, and which arguments it refuses."""

import io

import numpy as np
import pytest
from PIL import Image

from vit_jax.data.sources.arrays import ArraySource
from vit_jax.data.transforms.crops import FlipLeftRight, PadCrop, RandomResizedCrop
from vit_jax.data.transforms.decoding import Decode, ToChannels
from vit_jax.data.transforms.defaults import default_transforms
from vit_jax.data.transforms.fusion import fused
from vit_jax.data.transforms.registry import TRANSFORMS
from vit_jax.data.transforms.sizes import CenterCrop, Resize, ResizeLong, ResizeShort
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError, DataError
from vit_jax.models.preprocessing import CHOICES, Preprocessing

IMAGE = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
PILLOW = {name: Image.Resampling[name.upper()] for name in ("nearest", "bilinear", "bicubic", "lanczos")}


def rng(seed=0):
    return np.random.default_rng(seed)


def png(image):
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def test_a_transform_changes_the_image_alone_and_leaves_the_example():
    example = {"image": IMAGE, "label": 3, "record": "r"}
    changed = CenterCrop(4)(example, rng())
    assert changed["image"].shape == (4, 4, 3)
    assert (changed["label"], changed["record"]) == (3, "r")
    assert example["image"] is IMAGE


def test_errors_name_the_record():
    with pytest.raises(DataError, match=r"^cat/1\.jpg: not an image of a known format"):
        Decode()({"image": b"what", "label": 0, "record": "cat/1.jpg"}, rng())


def test_decode_takes_bytes_and_passes_arrays():
    assert np.array_equal(Decode().image(png(IMAGE), rng()), IMAGE)
    assert Decode().image(IMAGE, rng()) is IMAGE
    assert Decode(1).image(IMAGE, rng()).shape == (20, 30, 1)
    assert np.array_equal(Decode(1).image(png(IMAGE), rng()), Decode(1).image(IMAGE, rng()))


def test_to_channels():
    assert ToChannels(5).image(IMAGE[..., :1], rng()).shape == (20, 30, 5)
    assert np.array_equal(ToChannels(1).image(np.repeat(IMAGE[..., :1], 3, -1), rng()), IMAGE[..., :1])


@pytest.mark.parametrize("interpolation", PILLOW)
@pytest.mark.parametrize("channels", [1, 2, 3, 5])
@pytest.mark.parametrize(("size", "expected"), [(7, (7, 7)), ((40, 33), (40, 33))])
def test_resize_equals_pillow(interpolation, channels, size, expected):
    image = rng(1).integers(0, 256, (20, 30, channels), np.uint8)
    resized = Resize(size, interpolation).image(image, rng())
    assert resized.shape == (*expected, channels)
    for c in range(channels):
        plane = Image.fromarray(image[..., c]).resize(expected[::-1], PILLOW[interpolation])
        assert np.array_equal(resized[..., c], np.asarray(plane))


def test_resize_to_the_same_size_is_the_identity():
    assert Resize((20, 30)).image(IMAGE, rng()) is IMAGE


@pytest.mark.parametrize(
    ("size", "shape", "expected"),
    [
        (10, (20, 30), (10, 15)),
        (10, (30, 20), (15, 10)),
        (256, (375, 500), (256, 341)),  # torchvision truncates 341.33
        (256, (500, 375), (341, 256)),
        (224, (224, 224), (224, 224)),
        ((10, 20), (20, 30), (13, 20)),
        ((10, 18), (31, 52), (11, 18)),  # timm rounds 10.73
        ((10, 5), (20, 30), (10, 15)),
        ((2, 2), (3, 300), (2, 200)),
    ],
)
def test_resize_short_keeps_the_aspect(size, shape, expected):
    image = np.zeros((*shape, 1), np.uint8)
    assert ResizeShort(size).image(image, rng()).shape[:2] == expected


def test_resize_short_always_covers_the_size():
    random = rng(3)
    for _ in range(200):
        shape, size = random.integers(1, 60, 2), random.integers(1, 60, 2)
        image = np.zeros((*shape, 1), np.uint8)
        resized = ResizeShort((int(size[0]), int(size[1]))).image(image, rng()).shape[:2]
        assert resized[0] >= size[0]
        assert resized[1] >= size[1]
        assert resized[0] == size[0] or resized[1] == size[1]


def test_center_crop():
    assert np.array_equal(CenterCrop((20, 30)).image(IMAGE, rng()), IMAGE)
    assert np.array_equal(CenterCrop(10).image(IMAGE, rng()), IMAGE[5:15, 10:20])
    # Margins of 1.5 and 0.5: rounded half to even, as torchvision does.
    assert np.array_equal(CenterCrop((17, 29)).image(IMAGE, rng()), IMAGE[2:19, 0:29])
    with pytest.raises(DataError, match=r"20x30, smaller than center_crop\(\(24, 24\)\); resize it first"):
        CenterCrop(24).image(IMAGE, rng())

    assert np.array_equal(CenterCrop((17, 29), "down").image(IMAGE, rng()), IMAGE[1:18, 0:29])
    assert np.array_equal(CenterCrop((17, 29), "corner").image(IMAGE, rng()), IMAGE[:17, :29])


def test_center_crop_pads_what_lacks():
    filled = CenterCrop((23, 28), fill=(1, 2, 3)).image(IMAGE, rng())
    assert filled.shape == (23, 28, 3)
    assert np.array_equal(filled[1:21], IMAGE[:, 1:29])
    assert np.unique(np.concatenate([filled[:1], filled[21:]]).reshape(-1, 3), axis=0).tolist() == [[1, 2, 3]]
    assert np.array_equal(CenterCrop(10, fill=0).image(IMAGE, rng()), CenterCrop(10).image(IMAGE, rng()))


@pytest.mark.parametrize(
    ("size", "shape", "expected"),
    [
        (10, (20, 30), (7, 10)),  # 6.67
        (10, (30, 20), (10, 7)),
        ((10, 20), (20, 30), (10, 15)),
        ((40, 20), (20, 30), (13, 20)),
        (4, (2, 300), (1, 4)),
    ],
)
def test_resize_long_fits_into_the_size(size, shape, expected):
    image = np.zeros((*shape, 1), np.uint8)
    assert ResizeLong(size).image(image, rng()).shape[:2] == expected


def test_evaluation_is_two_steps_with_pillow():
    transforms = parse("decode|resize_short(12, 'bicubic')|center_crop(10)")
    example = {"image": png(IMAGE), "label": 0, "record": ""}
    for transform in transforms:
        example = transform(example, rng())
    expected = np.asarray(Image.fromarray(IMAGE).resize((18, 12), PILLOW["bicubic"]))[1:11, 4:14]
    assert np.array_equal(example["image"], expected)


def test_random_crops_stay_within_their_bounds():
    crop = RandomResizedCrop(8, scale=(0.2, 0.6), ratio=(0.5, 2.0))
    random = rng(0)
    areas, ratios = [], []
    for _ in range(2000):
        top, left, h, w = crop.box(100, 140, random)
        assert 0 <= top <= 100 - h
        assert 0 <= left <= 140 - w
        areas.append(h * w / 14000)
        ratios.append(w / h)
    # Sides are rounded to whole pixels.
    assert 0.19 < min(areas) < 0.22 < 0.58 < max(areas) < 0.61
    assert 0.49 < min(ratios) < 0.53 < 1.9 < max(ratios) < 2.04


def test_area_is_uniform_and_ratio_log_uniform():
    crop = RandomResizedCrop(8, scale=(0.1, 0.3), ratio=(0.5, 2.0))
    random = rng(1)
    boxes = np.array([crop.box(1000, 1000, random)[2:] for _ in range(4000)])
    assert abs((boxes[:, 0] * boxes[:, 1]).mean() / 1e6 - 0.2) < 0.005
    assert abs(np.log(boxes[:, 1] / boxes[:, 0]).mean()) < 0.03


def test_impossible_crops_fall_back_to_the_centre():
    crop = RandomResizedCrop(8, scale=(1.0, 1.0), ratio=(3 / 4, 4 / 3))
    assert crop.box(10, 100, rng()) == (0, 43, 10, 13)
    assert crop.box(100, 10, rng()) == (43, 0, 13, 10)


def test_random_resized_crop_of_everything_is_a_resize():
    crop = RandomResizedCrop((20, 30), scale=(1.0, 1.0), ratio=(1.5, 1.5))
    assert np.array_equal(crop.image(IMAGE, rng()), IMAGE)
    halves = {}
    for antialias in ("fast", "pillow", "none"):
        half = RandomResizedCrop((10, 15), (1.0, 1.0), (1.5, 1.5), antialias=antialias)
        halves[antialias] = half.image(IMAGE, rng()).astype(int)
    assert np.array_equal(halves["pillow"], Image.fromarray(IMAGE).resize((15, 10), PILLOW["bilinear"]))
    # Two pixels become one: a quarter of each neighbour, then their mean, which is Pillow's filter but for rounding
    # and the frame.
    inner = slice(1, -1), slice(1, -1)
    assert np.abs(halves["fast"][inner] - halves["pillow"][inner]).max() <= 2
    means = IMAGE.reshape(10, 2, 15, 2, 3).mean((1, 3))
    assert np.abs(halves["none"] - means).max() <= 0.5


@pytest.mark.parametrize("channels", [1, 3, 4, 6])
@pytest.mark.parametrize("interpolation", CHOICES["interpolation"])
@pytest.mark.parametrize("size", [5, (64, 48)])
def test_random_resized_crop_shapes(channels, interpolation, size):
    image = rng(1).integers(0, 256, (20, 30, channels), np.uint8)
    crop = RandomResizedCrop(size, interpolation=interpolation)
    out = crop.image(image, rng(2))
    assert out.shape == (*((5, 5) if size == 5 else size), channels)
    assert out.dtype == np.uint8
    assert np.array_equal(out, crop.image(image, rng(2)))


def test_flips():
    assert np.array_equal(FlipLeftRight(1.0).image(IMAGE, rng()), IMAGE[:, ::-1])
    assert FlipLeftRight(0.0).image(IMAGE, rng()) is IMAGE
    twice = FlipLeftRight(1.0).image(FlipLeftRight(1.0).image(IMAGE, rng()), rng())
    assert np.array_equal(twice, IMAGE)
    random = rng(0)
    flipped = sum(FlipLeftRight(0.25).image(IMAGE, random) is not IMAGE for _ in range(4000))
    assert abs(flipped / 4000 - 0.25) < 0.03


def test_pad_crop_shifts():
    crop, seen = PadCrop((20, 30), 2), set()
    padded = np.pad(IMAGE, ((2, 2), (2, 2), (0, 0)))
    windows = {padded[y : y + 20, x : x + 30].tobytes(): (y, x) for y in range(5) for x in range(5)}
    random = rng(0)
    for _ in range(300):
        seen.add(windows[crop.image(IMAGE, random).tobytes()])
    assert len(seen) == 25
    assert np.array_equal(PadCrop((20, 30), 0).image(IMAGE, rng()), IMAGE)
    with pytest.raises(DataError, match=r"20x30, too small for pad_crop\(\(40, 40\), 2\)"):
        PadCrop(40, 2).image(IMAGE, rng())


def test_float_images_can_be_cut_but_not_resized():
    image = IMAGE.astype(np.float32)
    assert PadCrop((20, 30), 1).image(image, rng()).dtype == np.float32
    with pytest.raises(DataError, match="type float32; only uint8 images can be resized"):
        Resize(4).image(image, rng())


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Decode(0), "decode: channels is 0; it must be an integer of at least 1"),
        (lambda: ToChannels(0), "to_channels: channels is 0; it must be an integer of at least 1"),
        (lambda: Resize(0), "resize: size is 0; it must be an integer of at least 1"),
        (lambda: Resize(22.5), "resize: size is 22.5; it must be one integer or (height, width)"),
        (lambda: Resize(True), "resize: size is True"),
        (lambda: Resize((1, 2, 3)), "resize: size is (1, 2, 3); it must be one integer or (height, width)"),
        (
            lambda: Resize(8, "bicubik"),
            "resize: interpolation is 'bicubik'; it must be one of nearest, bilinear",
        ),
        (lambda: ResizeShort((8, -1)), "resize_short: size is -1"),
        (lambda: ResizeLong(0), "resize_long: size is 0"),
        (lambda: CenterCrop("8"), "center_crop: size is '8'"),
        (lambda: CenterCrop(8, "up"), "center_crop: rounding is 'up'; it must be one of even, down, corner"),
        (lambda: CenterCrop(8, fill=(0, 256)), "center_crop: fill is (0, 256); it must be integers"),
        (
            lambda: RandomResizedCrop(8, scale=(0, 1)),
            "random_resized_crop: scale is (0, 1); it must be two numbers",
        ),
        (lambda: RandomResizedCrop(8, scale=(0.5, 1.5)), "0 < low <= high <= 1"),
        (lambda: RandomResizedCrop(8, scale=0.5), "random_resized_crop: scale is 0.5"),
        (lambda: RandomResizedCrop(8, ratio=(2, 1)), "random_resized_crop: ratio is (2, 1)"),
        (lambda: RandomResizedCrop(8, interpolation=3), "random_resized_crop: interpolation is 3"),
        (lambda: FlipLeftRight(1.5), "flip_lr: probability is 1.5; it must be from 0 to 1"),
        (lambda: FlipLeftRight("no"), "flip_lr: probability is 'no'"),
        (lambda: PadCrop(8, -1), "pad_crop: padding is -1; it must be an integer of at least 0"),
        (lambda: PadCrop(8, 1.0), "pad_crop: padding is 1.0"),
    ],
)
def test_wrong_arguments_are_refused_at_once(make, said):
    with pytest.raises(ConfigError) as caught:
        make()
    assert said in str(caught.value)


def preprocessing(crop=0.875, mode="center", interpolation="bicubic", rounding="even"):
    return Preprocessing((0.25, 0.5, 1.0), (1.0,), interpolation, crop, mode, rounding)


def arrays(*shape):
    return ArraySource(np.ones((1, *shape), np.uint8), [0])


@pytest.mark.parametrize(
    ("about", "size", "channels", "source", "train", "evaluation"),
    [
        (
            preprocessing(),
            224,
            3,
            None,
            "decode|random_resized_crop(224, interpolation='bicubic')|flip_lr",
            "decode|resize_short(256, 'bicubic')|center_crop(224)",
        ),
        (
            preprocessing(0.9, "squash", "bilinear"),
            (224, 192),
            1,
            None,
            "decode(1)|random_resized_crop((224, 192), interpolation='bilinear')|flip_lr",
            "decode(1)|resize((248, 213), 'bilinear')|center_crop((224, 192))",
        ),
        (
            preprocessing(1.0, "squash", "lanczos"),
            224,
            3,
            None,
            "decode|random_resized_crop(224, interpolation='lanczos')|flip_lr",
            "decode|resize(224, 'lanczos')",
        ),
        (
            preprocessing(rounding="down"),
            224,
            3,
            None,
            "decode|random_resized_crop(224, interpolation='bicubic')|flip_lr",
            "decode|resize_short(256, 'bicubic')|center_crop(224, 'down')",
        ),
        (
            preprocessing(0.9, "border"),
            224,
            3,
            None,
            "decode|random_resized_crop(224, interpolation='bicubic')|flip_lr",
            "decode|resize_long(248, 'bicubic')|center_crop(224, fill=(64, 128, 255))",
        ),
        (
            preprocessing(0.9, "border"),
            224,
            1,
            None,
            "decode(1)|random_resized_crop(224, interpolation='bicubic')|flip_lr",
            "decode(1)|resize_long(248, 'bicubic')|center_crop(224, fill=149)",
        ),
        (
            preprocessing(2.0),
            224,
            3,
            None,
            "decode|random_resized_crop(224, interpolation='bicubic')|flip_lr",
            "decode|resize_short(112, 'bicubic')|center_crop(224, fill=0)",
        ),
        (preprocessing(), (8, 8), 1, arrays(8, 8, 1), "", ""),
        (preprocessing(), (8, 6), 3, arrays(8, 6, 1), "to_channels(3)", "to_channels(3)"),
        (preprocessing(), 16, 1, arrays(8, 8, 1), "resize(16, 'bicubic')", "resize(16, 'bicubic')"),
    ],
)
def test_default_transforms(about, size, channels, source, train, evaluation):
    assert default_transforms(about, size, channels, source) == (train, evaluation)
    parse(train)
    parse(evaluation)


@pytest.mark.parametrize("mode", CHOICES["crop_mode"])
@pytest.mark.parametrize("crop", [0.7, 1.0, 1.5])
def test_default_transforms_give_the_size_of_the_model(mode, crop):
    train, evaluation = default_transforms(preprocessing(crop, mode), (16, 24), 3)
    for spec in (train, evaluation):
        for shape in ((20, 30, 3), (300, 20, 3), (5, 9, 3)):
            example = {"image": png(np.zeros(shape, np.uint8)), "label": 0, "record": ""}
            for transform in parse(spec):
                example = transform(example, rng())
            assert example["image"].shape == (16, 24, 3)


def test_every_transform_says_what_it_does():
    assert all(kind.__doc__ for kind in TRANSFORMS.values())


def test_photographs_above_64_megapixels():
    """The default refuses; a limit lets them pass, with a crop too, of JPEG and of other formats."""
    grey = np.zeros((8001, 8001), np.uint8)
    jpeg, tiff = io.BytesIO(), io.BytesIO()
    Image.fromarray(grey).save(jpeg, "JPEG")
    Image.fromarray(grey).save(tiff, "TIFF")
    for data in (jpeg.getvalue(), tiff.getvalue()):
        example = {"image": data, "label": 0, "record": "large"}
        for spec in ("decode(1)", "decode(1)|random_resized_crop(8)"):
            with pytest.raises(
                DataError, match=r"8001x8001 pixels, more than the 64 megapixels.*max_megapixels"
            ):
                applied(spec, example)
        assert applied("decode(1, max_megapixels=65)|random_resized_crop(8)", example).shape == (8, 8, 1)
    for value in (0, True, "64", float("nan"), 20000):
        with pytest.raises(ConfigError, match="decode: max_megapixels is"):
            Decode(3, value)


def applied(spec, example):
    rng = np.random.default_rng(0)
    for transform in fused(parse(spec)):
        example = transform(example, rng)
    return example["image"]
