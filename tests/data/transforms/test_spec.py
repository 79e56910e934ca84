"""The language of transforms: what it reads, and what it says of mistakes."""

import dataclasses

import pytest

from vit_jax.data.transforms.crops import FlipLeftRight, PadCrop, RandomResizedCrop
from vit_jax.data.transforms.decoding import Decode
from vit_jax.data.transforms.policies.rand_augment import RandAugment
from vit_jax.data.transforms.policies.randaug import RandAug
from vit_jax.data.transforms.recipe_crops import InceptionCrop
from vit_jax.data.transforms.registry import TRANSFORMS
from vit_jax.data.transforms.sizes import CenterCrop, Resize
from vit_jax.data.transforms.spec import parse, text_of
from vit_jax.errors import ConfigError


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ("", []),
        ("  ", []),
        ("decode", [Decode()]),
        ("decode()", [Decode(3)]),
        ("decode(channels=1)|flip_lr", [Decode(1), FlipLeftRight(0.5)]),
        (" decode | random_resized_crop(224)\n| flip_lr(0.3) ", None),
        ("resize((8, 9), interpolation='bicubic')", [Resize((8, 9), "bicubic")]),
        ("pad_crop(8, padding=1)|center_crop(6)", [PadCrop(8, 1), CenterCrop(6)]),
        ("random_resized_crop(8, (0.2, 1))", [RandomResizedCrop(8, (0.2, 1))]),
        ("inception_crop(8)|flip_lr|randaug(2,10)", [InceptionCrop(8, 5), FlipLeftRight(), RandAug()]),
        ("rand_augment('rand-m9-mstd0.5-inc1', fill=0)", [RandAugment("rand-m9-mstd0.5-inc1", "random", 0)]),
    ],
)
def test_what_is_read(spec, expected):
    if expected is None:
        expected = [Decode(), RandomResizedCrop(224), FlipLeftRight(0.3)]
    assert parse(spec) == expected


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        (
            "decode|random_resize_crop(224)",
            "the transform is 'random_resize_crop'; it must be one of decode, ",
        ),
        ("decode|random_resize_crop(224)", "Did you mean 'random_resized_crop'"),
        (
            "resize(224, interpolaton='bicubic')",
            "resize has no argument 'interpolaton'; it takes size, interp",
        ),
        ("resize(224, interpolaton='bicubic')", "Did you mean 'interpolation'?"),
        ("resize", "missing a required argument: 'size'; it is resize(size, interpolation='bilinear')"),
        ("resize(1, 'x', 2)", "too many positional arguments; it is resize(size, interpolation='bilinear')"),
        ("center_crop(1, size=2)", "multiple values for argument 'size'"),
        (
            "rand_augment('rand-m9-z3')",
            "rand_augment: 'rand-m9-z3' has the unknown option 'z3'; the options are",
        ),
        ("center_crop(-5)", "center_crop: size is -5; it must be an integer of at least 1"),
        ("center_crop(size)", "argument size of center_crop is not a plain value"),
        ("center_crop(2 * 112)", "argument 2 * 112 of center_crop is not a plain value"),
        ("center_crop(open('x'))", "argument open('x') of center_crop is not a plain value"),
        ("center_crop(*[1])", "argument *[1] of center_crop is not a plain value"),
        ("center_crop(**{'size': 1})", "center_crop has no argument None"),
        ("decode,flip_lr", "'(decode, flip_lr)' is not a transform; write its name"),
        ("decode|5", "'5' is not a transform"),
        ("data.decode", "'data.decode' is not a transform"),
        ("decode|", "is 'decode|', which cannot be read"),
        ("decode(", "which cannot be read"),
        ("decode|flip_lr(0.5", "write 'decode|resize_short(256)|center_crop(224)'"),
        ("flip_lr\0", "which cannot be read"),
    ],
)
def test_what_is_said_of_mistakes(spec, said):
    with pytest.raises(ConfigError) as caught:
        parse(spec, "data.train_transforms")
    assert said in str(caught.value)
    assert str(caught.value).startswith("data.train_transforms")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "spec",
    [
        "",
        "decode|random_resized_crop(224)|flip_lr",
        "decode(channels=1)|pad_crop(8, 2)|flip_lr(probability=0.25)",
        "resize((8, 9), interpolation='bicubic')|center_crop(6, fill=(1, 2, 3))",
        "inception_crop(224, area_min=8)|randaug(2, 10)|random_erasing",
        "rand_augment('rand-m9-mstd0.5-inc1')|mae_mask((14, 14))",
    ],
)
def test_transforms_say_how_to_write_them(spec):
    transforms = parse(spec)
    assert parse(text_of(transforms)) == transforms


def test_every_transform_can_be_written():
    sizes = {"channels": 3, "padding": 1, "grid": (14, 14), "num": 2, "magnitude": 3}
    for name, kind in TRANSFORMS.items():
        required = [f for f in dataclasses.fields(kind) if f.default is dataclasses.MISSING]
        made = kind(*(sizes.get(field.name, 8) for field in required))
        text = text_of([made])
        assert text.startswith(name)
        assert parse(text) == [made]


def test_other_transforms_cannot_be_written():
    class Mine(Decode):
        pass

    with pytest.raises(ConfigError, match="Mine has no name in configurations"):
        text_of([Mine()])
