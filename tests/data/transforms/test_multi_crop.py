"""Several views of one image."""

import pickle

import numpy as np
import pytest

from tests.data.transforms import golden
from vit_jax.data.transforms.multi_crop import MultiCrop
from vit_jax.data.transforms.registry import TRANSFORMS
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError, DataError

EXAMPLE = {"image": golden.arrays()["image"], "label": 3, "record": "flower"}


def made(transform, seed: int = 0) -> dict:
    return transform(EXAMPLE, np.random.default_rng(seed))


def test_crops_instead_of_the_image():
    transform = MultiCrop(24, (8, 10), 5)
    result = made(transform)
    assert set(result) == {"label", "record", "global_crops", "local_crops"}
    assert result["label"] == 3
    assert result["global_crops"].shape == (2, 24, 24, 3)
    assert result["local_crops"].shape == (5, 8, 10, 3)
    assert {result[name].dtype for name in ("global_crops", "local_crops")} == {np.dtype(np.uint8)}
    crops = result["local_crops"].reshape(5, -1)
    assert len(np.unique(crops, axis=0)) == 5
    again = made(pickle.loads(pickle.dumps(transform)))
    np.testing.assert_array_equal(result["global_crops"], again["global_crops"])
    np.testing.assert_array_equal(result["local_crops"], again["local_crops"])
    assert not np.array_equal(result["local_crops"], made(transform, 1)["local_crops"])
    assert set(EXAMPLE) == {"image", "label", "record"}


def test_without_local_crops():
    assert set(made(MultiCrop(8, local_count=0))) == {"label", "record", "global_crops"}


def test_each_global_crop_has_its_own_transforms():
    (transform,) = parse(
        "multi_crop(8, 6, 3, global_transforms=('grayscale(1)', '', 'solarize(1, 0)'), global_count=3, "
        "global_scale=(1, 1), local_transforms='flip_ud|grayscale(1)')"
    )
    result = made(transform)
    first, second, third = result["global_crops"]
    assert (first[..., 0] == first[..., 2]).all()
    assert not (second[..., 0] == second[..., 2]).all()
    assert abs(255 - third.astype(int) - second).mean() < 12
    assert (result["local_crops"][..., 0] == result["local_crops"][..., 1]).all()
    (one,) = parse("multi_crop(8, local_count=0, global_transforms='grayscale(1)')")
    crops = made(one)["global_crops"]
    assert (crops[..., 0] == crops[..., 2]).all()


def test_scales_are_shares_of_the_image():
    image = np.linspace(0, 255, 60, dtype=np.uint8)[None, :, None].repeat(60, 0)
    example = {"image": image, "label": 0, "record": "r"}
    transform = MultiCrop(30, 30, 20, local_transforms="", global_transforms="")
    result = transform(example, np.random.default_rng(0))
    spread = {
        name: np.ptp(result[name].astype(int), axis=(1, 2, 3)) for name in ("global_crops", "local_crops")
    }
    assert spread["global_crops"].min() > 255 * 0.45
    assert spread["local_crops"].max() < 255 * 0.8


def test_dinos_defaults_are_known_transforms():
    first, second = MultiCrop().global_transforms
    assert first.endswith("gaussian_blur(1.0)")
    assert second.endswith("gaussian_blur(0.1)|solarize(0.2)")
    for text in (first, second, MultiCrop().local_transforms):
        steps = parse(text)
        assert type(steps[0]) is TRANSFORMS["flip_lr"]
        assert steps[1] == TRANSFORMS["color_jitter"](0.4, 0.4, 0.2, 0.1, 0.8)
        assert steps[2] == TRANSFORMS["grayscale"](0.2)


def test_encoded_images_are_an_error():
    with pytest.raises(DataError, match="r7 is still encoded; begin the transforms with decode"):
        MultiCrop(8)({"image": b"", "label": 0, "record": "r7"}, np.random.default_rng(0))


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: MultiCrop(0), "multi_crop: global_size is 0"),
        (lambda: MultiCrop(8, 0), "multi_crop: local_size is 0"),
        (lambda: MultiCrop(8, 8, -1), "multi_crop: local_count is -1"),
        (lambda: MultiCrop(8, global_count=0), "multi_crop: global_count is 0"),
        (lambda: MultiCrop(global_scale=(0.5, 1.1)), "multi_crop: global_scale is (0.5, 1.1)"),
        (lambda: MultiCrop(local_scale=0.5), "multi_crop: local_scale is 0.5"),
        (
            lambda: MultiCrop(global_transforms=("flip_lr",)),
            "one string, or one for each of the 2 global crops",
        ),
        (lambda: MultiCrop(global_transforms=5), "multi_crop: global_transforms is 5"),
        (lambda: MultiCrop(local_transforms=None), "multi_crop: the transforms None must be a string"),
        (
            lambda: MultiCrop(local_transforms="flip_l"),
            "multi_crop: local_transforms: the transform is 'flip_l'",
        ),
        (
            lambda: MultiCrop(global_transforms="grayscale(2)"),
            "global_transforms: grayscale: probability is 2",
        ),
        (lambda: MultiCrop(local_transforms="mae_mask(3)"), "a crop cannot go through MaeMask"),
        (lambda: MultiCrop(interpolation="cubic"), "interpolation is 'cubic'"),
    ],
)
def test_what_is_said_of_mistakes(make, said):
    with pytest.raises(ConfigError) as caught:
        make()
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
