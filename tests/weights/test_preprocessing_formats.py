"""Preprocessing goes to timm's and transformers' words and back."""

import json
import math

import pytest

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.preprocessing import (
    CHOICES,
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    INCEPTION,
    INCEPTION_MEAN,
    INCEPTION_STD,
    Preprocessing,
    covered,
)
from vit_jax.weights.preprocessing_formats import from_hf, from_open_clip, from_timm, to_hf, to_timm

HALF = (INCEPTION_MEAN, INCEPTION_STD)
NATURAL = (IMAGENET_MEAN, IMAGENET_STD)
OPENAI = (CLIP_MEAN, CLIP_STD)


@pytest.mark.parametrize(
    ("config", "size", "expected"),
    [
        ({}, (224, 224), Preprocessing(*NATURAL, "bicubic", 0.875)),
        (
            dict(input_size=[3, 384, 192], mean=[0.5, 0.4, 0.3], std=[1, 2, 3], interpolation="bilinear"),
            (384, 192),
            Preprocessing((0.5, 0.4, 0.3), (1, 2, 3), "bilinear", 0.875),
        ),
        (
            dict(crop_pct=1.0, crop_mode="squash", num_classes=5, classifier=None, crop_border_pixels=None),
            (224, 224),
            Preprocessing(*NATURAL, "bicubic", 1.0, "squash"),
        ),
    ],
)
def test_from_timm(config, size, expected):
    assert from_timm(config) == (expected, size)


@pytest.mark.parametrize("interpolation", CHOICES["interpolation"])
@pytest.mark.parametrize("mode", CHOICES["crop_mode"])
def test_timm_round_trip(interpolation, mode):
    ours = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), interpolation, 0.95, mode)
    written = json.loads(json.dumps(to_timm(ours, (224, 192))))
    assert from_timm(written) == (ours, (224, 192))


def test_one_value_for_all_channels_is_written_for_each():
    grey = Preprocessing((0.1,), (0.2,))
    assert to_timm(grey, (8, 8), 2) == dict(
        input_size=[2, 8, 8],
        interpolation="bicubic",
        crop_pct=0.9,
        crop_mode="center",
        mean=[0.1, 0.1],
        std=[0.2, 0.2],
    )
    assert to_hf(grey, (8, 8), channels=1)["image_mean"] == [0.1]
    assert to_hf(grey, (8, 8))["image_std"] == [0.2] * 3


# Of google/vit-base-patch16-224, facebook/deit-base-patch16-224, microsoft/beit-base-patch16-224-pt22k,
# openai/clip-vit-base-patch32 (old and new), facebook/dinov2-base, google/siglip-so400m-patch14-384 and
# facebook/dinov3-vits16-pretrain-lvd1689m, shortened by entries that say nothing here.
HUB = [
    (
        dict(do_normalize=True, do_resize=True, image_mean=[0.5] * 3, image_std=[0.5] * 3, size=224),
        (224, 224),
        Preprocessing(*HALF, "bilinear", 1.0, "squash"),
    ),
    (
        dict(
            crop_size=224,
            do_center_crop=True,
            feature_extractor_type="DeiTFeatureExtractor",
            image_mean=list(IMAGENET_MEAN),
            image_std=list(IMAGENET_STD),
            resample=3,
            size=256,
        ),
        (224, 224),
        Preprocessing(*NATURAL, "bicubic", 0.875, "squash", "down"),
    ),
    (
        dict(
            crop_size=224,
            do_center_crop=False,
            feature_extractor_type="BeitFeatureExtractor",
            resample=2,
            size=224,
        ),
        (224, 224),
        Preprocessing(*HALF, "bilinear", 1.0, "squash"),
    ),
    (
        dict(crop_size=224, do_center_crop=True, feature_extractor_type="CLIPFeatureExtractor", size=224),
        (224, 224),
        Preprocessing(*OPENAI, "bicubic", 1.0, "center", "down"),
    ),
    (
        dict(
            image_processor_type="CLIPImageProcessorFast",
            crop_size=dict(height=224, width=224),
            size=dict(shortest_edge=224),
            rescale_factor=0.00392156862745098,
        ),
        (224, 224),
        Preprocessing(*OPENAI, "bicubic", 1.0, "center", "down"),
    ),
    (
        dict(
            image_processor_type="BitImageProcessor",
            crop_size=dict(height=224, width=224),
            do_center_crop=True,
            image_mean=list(IMAGENET_MEAN),
            image_std=list(IMAGENET_STD),
            resample=3,
            size=dict(shortest_edge=256),
        ),
        (224, 224),
        Preprocessing(*NATURAL, "bicubic", 0.875, "center", "down"),
    ),
    (
        dict(
            image_processor_type="SiglipImageProcessor", size=dict(height=384, width=384), do_convert_rgb=None
        ),
        (384, 384),
        Preprocessing(*HALF, "bicubic", 1.0, "squash"),
    ),
    (
        dict(image_processor_type="DINOv3ViTImageProcessorFast", size=dict(height=224, width=224)),
        (224, 224),
        Preprocessing(*NATURAL, "bilinear", 1.0, "squash"),
    ),
]


@pytest.mark.parametrize(("config", "size", "expected"), HUB)
def test_from_hf(config, size, expected):
    assert from_hf(config, (518, 518)) == (expected, size)


@pytest.mark.parametrize(
    ("config", "size", "expected"),
    [
        (dict(size=[12, 8]), (12, 8), Preprocessing(*HALF, "bilinear", 1.0, "squash")),
        (dict(do_resize=False), (20, 16), Preprocessing(*HALF, "bilinear", 1.0, "squash")),
        (
            dict(size=dict(height=25, width=20), crop_size=[20, 16], do_center_crop=True, resample=1),
            (20, 16),
            Preprocessing(*HALF, "lanczos", 0.8, "squash", "down"),
        ),
    ],
)
def test_from_hf_sizes(config, size, expected):
    assert from_hf(config, (20, 16)) == (expected, size)


def test_short_side_alone_keeps_the_middle():
    config = dict(size=dict(shortest_edge=25), resample=0)
    expected = Preprocessing(*HALF, "nearest", 0.8, "center", "down")
    assert from_hf(config, (20, 20)) == (expected, (20, 20))
    with pytest.raises(CheckpointError, match="keeps different shares of height and width"):
        from_hf(config, (20, 16))


@pytest.mark.parametrize(
    ("config", "of_black", "of_white"),
    [
        (dict(), -1, 1),
        (dict(do_normalize=False), 0, 1),
        (dict(do_normalize=False, do_rescale=False), 0, 255),
        (dict(do_rescale=False, image_mean=[100] * 3, image_std=[50] * 3), -2, 3.1),
        (dict(do_normalize=False, rescale_factor=1 / 127.5, offset=True), -1, 1),
        (dict(do_normalize=False, rescale_factor=1 / 127.5, rescale_offset=True), -1, 1),
        (dict(rescale_factor=1 / 127.5, offset=True), -3, 1),
        (dict(rescale_factor=1 / 127.5), -1, 3),
    ],
)
def test_scales_of_pixels(config, of_black, of_white):
    preprocessing, _ = from_hf(config, (224, 224))
    for mean, std in zip(preprocessing.mean, preprocessing.std, strict=True):
        assert math.isclose(-mean / std, of_black, abs_tol=1e-9)
        assert math.isclose((1 - mean) / std, of_white)


@pytest.mark.parametrize(
    ("preprocessing", "processor", "written"),
    [
        (Preprocessing(crop=1.0, crop_mode="squash"), "ViTImageProcessor", "ViTImageProcessor"),
        (Preprocessing(crop=1.0, crop_mode="squash"), "SiglipImageProcessor", "SiglipImageProcessor"),
        (
            Preprocessing(crop=0.875, crop_mode="squash", crop_rounding="down"),
            "DeiTImageProcessor",
            "DeiTImageProcessor",
        ),
        (
            Preprocessing(crop=0.875, crop_mode="squash", crop_rounding="down"),
            "ViTImageProcessor",
            "BitImageProcessor",
        ),
        (Preprocessing(crop=224 / 248, crop_rounding="down"), "DeiTImageProcessor", "BitImageProcessor"),
        (Preprocessing(crop=1.0, crop_rounding="down"), "CLIPImageProcessor", "CLIPImageProcessor"),
        (Preprocessing(*NATURAL, "lanczos", 0.5, crop_rounding="down"), "x", "BitImageProcessor"),
        (
            Preprocessing(*NATURAL, "bilinear", 1.0, "squash"),
            "DINOv3ViTImageProcessorFast",
            "DINOv3ViTImageProcessorFast",
        ),
        (Preprocessing(crop=1.0, crop_mode="squash"), "DINOv3ViTImageProcessorFast", "BitImageProcessor"),
    ],
)
def test_hf_round_trip(preprocessing, processor, written):
    config = json.loads(json.dumps(to_hf(preprocessing, (224, 224), processor)))
    assert config["image_processor_type"] == written
    assert from_hf(config, (9, 9)) == (preprocessing, (224, 224))


def test_to_hf_resizes_to_the_size_that_the_share_means():
    config = to_hf(INCEPTION, (224, 224))
    assert config["size"] == {"shortest_edge": 248}  # 248.9
    assert config["crop_size"] == {"height": 224, "width": 224}
    assert config["resample"] == 3
    assert math.isclose(config["rescale_factor"], 1 / 255)


def test_what_the_patches_drop_is_not_cropped_before():
    config = dict(image_processor_type="SiglipImageProcessor", size=dict(height=384, width=384))
    seen, size = covered(*from_hf(config, (384, 384)), (14, 14))
    written = to_hf(seen, size, "SiglipImageProcessor")
    assert (written["size"], written["do_center_crop"]) == (config["size"], False)
    assert covered(*from_hf(written, size), (14, 14)) == (seen, size)


def test_to_hf_of_oblong_images():
    squash = Preprocessing(crop=1.0, crop_mode="squash")
    assert to_hf(squash, (16, 8))["size"] == {"height": 16, "width": 8}
    with pytest.raises(ConfigError, match=r"crop_mode is 'center' for images of \(16, 8\).*'squash'"):
        to_hf(INCEPTION, (16, 8))
    with pytest.raises(ConfigError, match="crop_mode is 'border'"):
        to_hf(Preprocessing(crop_mode="border"), (16, 16))


@pytest.mark.parametrize(
    ("config", "size", "expected"),
    [
        ({}, (224, 224), Preprocessing(*OPENAI, "bicubic", 1.0)),
        (
            dict(size=[384, 384], mode="RGB", mean=[0.5] * 3, std=[0.5] * 3, resize_mode="squash"),
            (384, 384),
            Preprocessing(*HALF, "bicubic", 1.0, "squash"),
        ),
        (
            dict(mean=[0.5] * 3, resize_mode="longest", fill_color=128, interpolation="bilinear"),
            (224, 224),
            Preprocessing(INCEPTION_MEAN, CLIP_STD, "bilinear", 1.0, "border"),
        ),
    ],
)
def test_from_open_clip(config, size, expected):
    assert from_open_clip(config) == (expected, size)


def square(config):
    return from_hf(config, (224, 224))


@pytest.mark.parametrize(
    ("read", "config", "said"),
    [
        (from_timm, dict(interpolation="box"), "pretrained_cfg.interpolation is 'box'; it must be one of"),
        (from_timm, dict(interpolation=["box"]), "pretrained_cfg.interpolation is ['box']"),
        (from_timm, dict(crop_mode="centre"), "crop_mode is 'centre'; it must be one of center, squash"),
        (from_timm, dict(crop_pct=0), "pretrained_cfg.crop_pct is 0; it must be a number above 0"),
        (from_timm, dict(input_size=[224, 224]), "input_size is (224, 224); it must be channels, height"),
        (from_timm, dict(input_size=[3, 0, 224]), "input_size is (3, 0, 224)"),
        (from_timm, dict(mean="half"), "pretrained_cfg.mean is 'half'; it must be a list of numbers"),
        (
            from_timm,
            dict(std=[1, 0, 1]),
            "pretrained_cfg.std is [1, 0, 1]; it must be a list of numbers above",
        ),
        (from_timm, [], "pretrained_cfg is a list; it must be an object"),
        (
            from_open_clip,
            dict(resize_mode="short"),
            "preprocess_cfg.resize_mode is 'short'; it must be one of",
        ),
        (from_open_clip, dict(resize_mode="longest"), "fill_color is 0, which is not the mean"),
        (from_open_clip, dict(size=0), "preprocess_cfg.size is 0; it must be height and width in pixels"),
        (square, dict(image_processor_type="SamImageProcessor"), "processor 'SamImageProcessor' is not supp"),
        (square, dict(image_processor_type=None, feature_extractor_type="ViLT"), "processor 'ViLT'"),
        (square, dict(resample=4), "resample is 4; it must be one of 0 nearest, 1 lanczos, 2 bilinear"),
        (square, dict(resample=True), "resample is True"),
        (square, dict(resample=[2]), "resample is [2]"),
        (square, dict(do_pad=True), "do_pad is True; only False is supported"),
        (square, dict(do_resize=False, do_center_crop=True), "do_center_crop without do_resize"),
        (square, dict(size=dict(longest_edge=8)), "size is {'longest_edge': 8}; it must have height and"),
        (square, dict(size=dict(shortest_edge=8, longest_edge=9)), "it must have height and width, or short"),
        (square, dict(size="224"), "size is '224'; it must be height and width in pixels"),
        (square, dict(size=[1, 2, 3]), "size is [1, 2, 3]"),
        (
            square,
            dict(size=8, do_center_crop=True, crop_size=dict(height=4, width=8)),
            "keeps different shares",
        ),
        (square, dict(image_mean=None, image_std=[math.nan]), "image_std is [nan]"),
        (square, dict(rescale_factor=-1), "rescale_factor is -1; it must be a number above 0"),
        (square, "text", "preprocessor_config.json is a str; it must be an object"),
    ],
)
def test_what_is_refused(read, config, said):
    with pytest.raises(CheckpointError) as caught:
        read(config)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
