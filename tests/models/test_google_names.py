"""Paths of Google's checkpoints."""

import pytest

from vit_jax.errors import ConfigError
from vit_jax.models.flops import parameter_count
from vit_jax.models.names.resolve import resolve
from vit_jax.models.preprocessing import INCEPTION_MEAN, INCEPTION_STD, Preprocessing

SQUASH = Preprocessing(INCEPTION_MEAN, INCEPTION_STD, "bilinear", 1.0, "squash")
I21K = "i21k-300ep-lr_0.001-aug_medium1-wd_0.1-do_0.0-sd_0.0"
IN1K = "imagenet2012-steps_20k-lr_0.01-res"

# Path without its end -> parameters, image size, token stride.
IMAGES = {
    "vit_models/imagenet21k/ViT-B_16": (103_186_515, 224, 16),
    "vit_models/imagenet21k/ViT-H_14": (630_764_800 + 1280 * 1281 + 1281 * 21843, 224, 14),
    "vit_models/imagenet21k+imagenet2012/ViT-B_16": (86_859_496, 384, 16),
    "vit_models/imagenet21k+imagenet2012/ViT-B_16-224": (86_567_656, 224, 16),
    "vit_models/imagenet21k+imagenet2012/ViT-L_32": (306_632_680, 384, 32),
    "vit_models/imagenet21k+imagenet2012/R50+ViT-B_16": (98_950_952, 384, 16),
    "vit_models/imagenet21k/R26+ViT-B_32": (101_383_976 + 768 * 769 + 20843 * 769, 224, 32),
    "vit_models/imagenet21k/R50+ViT-L_32": (328_994_856 + 1024 * 1025 + 20843 * 1025, 224, 32),
    "vit_models/sam/ViT-S_16": (22_050_664, 224, 16),
    "vit_models/gsam/ViT-B_32": (88_224_232, 224, 32),
    f"vit_models/augreg/B_16-{I21K}": (86_567_656 + 20843 * 769, 224, 16),
    f"vit_models/augreg/B_16-{I21K}--{IN1K}_224": (86_567_656, 224, 16),
    f"vit_models/augreg/B_16-{I21K}--{IN1K}_384": (86_859_496, 384, 16),
    f"vit_models/augreg/Ti_16-{I21K}--{IN1K}_384": (5_790_376, 384, 16),
    f"vit_models/augreg/S_32-{I21K}--{IN1K}_384": (22_915_432, 384, 32),
    f"vit_models/augreg/R_Ti_16-{I21K}--{IN1K}_384": (6_355_944, 384, 32),
    f"vit_models/augreg/R26_S_32-{I21K}--{IN1K}_384": (36_468_392, 384, 32),
    f"vit_models/augreg/R50_L_32-{I21K}--{IN1K}_384": (329_092_136, 384, 32),
    f"vit_models/augreg/S_16-{I21K}--cifar100-steps_10k-lr_0.01-res_224": (21_665_664 + 38500, 224, 16),
    "vit_models/augreg/S_16-i1k-300ep-lr_0.001-aug_light1-wd_0.1-do_0.0-sd_0.0": (22_050_664, 224, 16),
    "big_vision/vit_s16_i1k_90ep": (22_122_472, 224, 16),
    # DeiT-III without its residual scales.
    "big_vision/zoo/deit3/bv_deit_3_small_224_1k": (22_059_496 - 24 * 384, 224, 16),
    "big_vision/zoo/deit3/bv_deit_3_large_384_21k": (304_763_880 - 48 * 1024, 384, 16),
}


@pytest.mark.parametrize("path", IMAGES)
def test_image_models(path):
    parameters, side, stride = IMAGES[path]
    canonical, config = resolve(f"gs://{path}.npz")
    assert canonical == f"gs://{path}.npz"
    assert (parameter_count(config), config.image_size) == (parameters, (side, side))
    assert config.token_stride == (stride, stride)
    assert (config.activation, config.norm_epsilon, config.resample) == ("gelu_tanh", 1e-6, "zoom")
    assert (config.preprocessing.mean, config.preprocessing.std) == (INCEPTION_MEAN, INCEPTION_STD)
    if path.startswith("vit_models"):
        assert config.preprocessing == SQUASH
    if config.backbone is not None:
        assert config.backbone.numerics == "google"


def test_other_preprocessing():
    baseline = resolve("gs://big_vision/vit_s16_i1k_300ep.npz")[1]
    assert baseline.preprocessing == Preprocessing(*SQUASH_VALUES, "bilinear", 0.875, "center", "down")
    assert baseline.position == "sincos2d_big_vision"
    deit3 = resolve("gs://big_vision/zoo/deit3/bv_deit_3_base_224_1k.npz")[1]
    assert deit3.preprocessing == Preprocessing(*SQUASH_VALUES, "bicubic", 1.0, "center")
    assert (deit3.class_position, deit3.layer_scale) == (False, None)


SQUASH_VALUES = (INCEPTION_MEAN, INCEPTION_STD)

# Parameters, image size, vocabulary, context.
TOWERS = {
    "siglip/webli_en_b16_224_63724782": (203_155_970, 224, 32_000, 64),
    "siglip/webli_en_l16_256_60552751": (652_150_786, 256, 32_000, 64),
    "siglip/webli_en_so400m_384_58765454": (877_960_498, 378, 32_000, 64),
    "siglip/webli_en_so400m_224_57633886": (877_960_498 - (729 - 256 + 48) * 1152, 224, 32_000, 16),
    "siglip/webli_i18n_b16_256_66117334": (203_155_970 + (256 - 196 + 218_000) * 768, 256, 250_000, 64),
    "siglip/webli_i18n_so400m_patch16_256_78061115": (
        877_960_498 + (3 * 60 - 729 + 256 + 218_000) * 1152,
        256,
        250_000,
        64,
    ),
    "siglip2/siglip2_b16_224": (375_187_970, 224, 256_000, 64),
    "siglip2/siglip2_l16_256": (881_526_786, 256, 256_000, 64),
    "siglip2/siglip2_so400m14_224": (1_135_463_602, 224, 256_000, 64),
    "siglip2/siglip2_g-opt16_256": (1_871_393_906, 256, 256_000, 64),
}


@pytest.mark.parametrize("path", TOWERS)
def test_towers(path):
    parameters, side, vocabulary, context = TOWERS[path]
    config = resolve(f"gs://big_vision/{path}.npz")[1]
    image, text = config.image, config.text
    assert (parameter_count(config), image.image_size) == (parameters, (side, side))
    assert (text.vocab_size, text.context_length) == (vocabulary, context)
    assert image.activation == text.activation == "gelu_tanh"
    assert (image.resample, image.preprocessing.interpolation) == ("zoom", "bilinear")
    assert image.preprocessing.crop_mode == "squash"


@pytest.mark.parametrize(
    "form", ["gs://{}.npz", "https://storage.googleapis.com/{}.npz", "{}.npz", "gs://{}", "{}"]
)
def test_every_way_to_write_a_path(form):
    path = "vit_models/imagenet21k/ViT-B_16"
    assert resolve(form.format(path)) == resolve(f"gs://{path}.npz")


@pytest.mark.parametrize(
    "name",
    [
        "gs://vit_models/imagenet21k/ViT-B_17.npz",
        "gs://vit_models/imagenet21k/ViT-B_16-224.npz",
        "gs://vit_models/sam/R50+ViT-B_16.npz",
        "gs://vit_models/lit/LiT-B16B.npz",
        "gs://vit_models/augreg/B_16-i22k-300ep.npz",
        f"gs://vit_models/augreg/B_16-{I21K}--mnist-steps_1k-res_224.npz",
        "gs://mixer_models/imagenet1k/Mixer-B_16.npz",
        "gs://big_vision/siglip2/siglip2_b16_naflex.npz",
        "gs://big_vision/clippo/clippo_b16.npz",
        "ftp://vit_models/imagenet21k/ViT-B_16.npz",
    ],
)
def test_other_paths_are_refused(name):
    with pytest.raises(ConfigError, match="does not exist") as caught:
        resolve(name)
    assert "\n" not in str(caught.value)
