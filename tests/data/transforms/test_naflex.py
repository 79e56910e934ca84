"""Images that keep their aspect ratio, as patches: sizes as published, and nothing is lost between them."""

import dataclasses

import cv2
import numpy as np
import pytest

from vit_jax.data.geometry import IDENTITY, moved_points
from vit_jax.data.images.resizing import resize
from vit_jax.data.transforms.defaults import default_transforms, with_decoding
from vit_jax.data.transforms.fusion import DecodedCrop, fused
from vit_jax.data.transforms.naflex import Naflex, NativeCrop, joined, naflex_grid
from vit_jax.data.transforms.said import preprocessing_of
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError, DataError
from vit_jax.models.family import Budget
from vit_jax.models.preprocessing import INCEPTION

# Height, width, patch, budget, rows and columns, by transformers 5's `get_image_size_for_max_num_patches` of SigLIP 2.
PUBLISHED = [
    (480, 640, 16, 256, 14, 18), (640, 480, 16, 256, 18, 14), (427, 640, 16, 256, 13, 19),
    (224, 224, 16, 196, 14, 14), (100, 1000, 16, 256, 5, 50), (1000, 17, 16, 64, 59, 1),
    (1, 500, 16, 9, 1, 9), (3, 5, 16, 256, 12, 20), (37, 53, 8, 20, 4, 5),
    (2160, 3840, 14, 1024, 24, 42), (16, 16, 16, 1, 1, 1), (333, 500, 16, 729, 22, 33),
    (2, 2, 16, 256, 13, 13), (1, 1, 16, 256, 7, 7),
]  # fmt: skip
IMAGE = np.random.default_rng(0).integers(0, 256, (21, 50, 3), np.uint8)
RNG = np.random.default_rng(1)


def transformed(spec, image=IMAGE, **more):
    example = {"image": image, "label": 0, "record": "record 7", **more}
    for step in parse(spec):
        example = step(example, RNG)
    return example


@pytest.mark.parametrize(("height", "width", "patch", "patches", "rows", "columns"), PUBLISHED)
def test_grids_are_those_published(height, width, patch, patches, rows, columns):
    assert naflex_grid((height, width), patches, (patch, patch)) == (rows, columns)
    assert naflex_grid((width, height), patches, (patch, patch)) == (columns, rows)


def test_grids_are_within_the_budget_and_as_large_as_can_be():
    rng = np.random.default_rng(2)
    for _ in range(500):
        (h, w), patches = rng.integers(40, 900, 2).tolist(), int(rng.integers(1, 300))
        p, q = rng.integers(4, 20, 2).tolist()
        rows, columns = naflex_grid((h, w), patches, (p, q))
        assert 1 <= rows * columns <= patches
        # Enlarged until there is one row or column more, it would be over the budget.
        scale = min(rows * p / h, columns * q / w) * (1 + 1e-9)
        assert -(-h * scale // p) * -(-w * scale // q) > patches


def test_patches_are_the_resized_image_and_zeros():
    found = transformed("naflex(23, (4, 5), 'bicubic')", geometry=IDENTITY)
    grid = found["grid"]
    assert (grid.dtype, grid.tolist()) == (np.int32, [3, 6])
    assert (found["image"].dtype, found["image"].shape) == (np.uint8, (23, 60))
    np.testing.assert_array_equal(joined(found["image"], grid, (4, 5)), resize(IMAGE, (12, 30), "bicubic"))
    assert not found["image"][18:].any()
    corner = moved_points(np.array([[[50, 21]]], np.float32), found["geometry"])
    np.testing.assert_allclose(corner, [[[30, 12]]], rtol=1e-6)
    # An image that fits already stays as it is.
    exact = transformed("naflex(8, 4)", IMAGE[:8, :16])
    np.testing.assert_array_equal(joined(exact["image"], exact["grid"], (4, 4)), IMAGE[:8, :16])


def test_it_comes_after_crops_and_flips():
    spec = "flip_lr(1.0)|native_crop(scale=(0.5, 0.5), ratio=(1.0, 1.0))|naflex(30, 4)"
    rows, columns = transformed(spec)["grid"].tolist()
    assert (rows, columns) == naflex_grid((15, 35), 30, (4, 4))
    with pytest.raises(DataError, match=r"record 7 is uint8 of shape \(24, 48\); transforms take one image"):
        transformed("naflex(24, 4)|flip_lr(1.0)")


def test_native_crops_keep_area_and_ratio():
    rng = np.random.default_rng(3)
    boxes = np.array([NativeCrop((0.2, 0.6), (0.8, 1.25)).box(100, 300, rng) for _ in range(300)])
    top, left, h, w = boxes.T
    assert ((top >= 0) & (left >= 0) & (top + h <= 100) & (left + w <= 300)).all()
    share, ratio = h * w / 30_000, w / h / 3
    assert (share.min() > 0.19) & (share.max() < 0.61)
    assert (ratio.min() > 0.77) & (ratio.max() < 1.3)
    assert isinstance(fused(parse("decode|native_crop"))[0], DecodedCrop)
    encoded = cv2.imencode(".jpg", np.tile(IMAGE, (4, 4, 1)))[1].tobytes()
    cut = transformed("decode|native_crop(scale=(0.25, 0.25), ratio=(1, 1))", encoded)["image"]
    assert cut.shape == (42, 100, 3)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("naflex(0, 16)", "naflex: patches is 0; it must be "),
        ("naflex(16, 0)", "naflex: patch_size is 0"),
        ("naflex(16, 4, 'cubic')", "naflex: interpolation is 'cubic'"),
        ("naflex(16)", "naflex: missing a required argument: 'patch_size'"),
        ("native_crop(scale=(0.5, 1.5))", r"native_crop: scale is \(0.5, 1.5\)"),
    ],
)
def test_wrong_arguments(spec, message):
    with pytest.raises(ConfigError, match=message) as info:
        parse(spec)
    assert "\n" not in str(info.value)


def test_what_lies_in_the_plane_cannot_follow():
    refusal = Naflex(4, 4).refusal(("image", "boxes", "label"))
    assert refusal == (
        "naflex cuts the image into patches, which boxes cannot follow; leave it out, or give records without boxes."
    )
    assert not Naflex(4, 4).refusal(("image", "label"))
    with pytest.raises(DataError, match="record 7: the image has type float32; only uint8 images"):
        transformed("naflex(4, 4)", IMAGE.astype(np.float32))


def test_models_have_them_by_default():
    budget = Budget(64, (4, 4))
    train, evaluation = default_transforms(INCEPTION, 32, 3, budget=budget)
    assert train == "decode|native_crop|flip_lr|naflex(64, 4, 'bicubic')"
    assert evaluation == "decode|naflex(64, 4, 'bicubic')"
    assert preprocessing_of(evaluation, INCEPTION, (32, 32), 3, budget) == INCEPTION
    other = "grayscale(1.0)|naflex(64, 4)"
    said = preprocessing_of(other, INCEPTION, (32, 32), 3, budget)
    assert said == dataclasses.replace(INCEPTION, transforms=other)
    assert default_transforms(said, 32, 3, budget=budget)[1] == other
    assert with_decoding(other, "bicubic", 32, 3, budget) == f"decode(3)|{other}"
