"""Names of transformers' checkpoints, against published counts and what their classes compute."""

import pytest

from vit_jax.errors import ConfigError
from vit_jax.models.flops import forward_macs, parameter_count
from vit_jax.models.mae.config import MaeConfig
from vit_jax.models.names.resolve import resolve
from vit_jax.models.preprocessing import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    INCEPTION_MEAN,
    INCEPTION_STD,
    Preprocessing,
)
from vit_jax.models.text.config import ImageTextConfig
from vit_jax.models.vit.config import ViTConfig

HALF = Preprocessing(INCEPTION_MEAN, INCEPTION_STD, "bilinear", 1.0, "squash")
NATURAL = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bilinear", 1.0, "squash")
CROPPED = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bicubic", 0.875, "squash", "down")
SHORT = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bicubic", 0.875, "center", "down")
SATELLITE = Preprocessing((0.43, 0.411, 0.296), (0.213, 0.156, 0.143), "bilinear", 1.0, "squash")

# Name -> parameters, image size, epsilon, preprocessing.
IMAGES = {
    "google/vit-base-patch16-224": (86_567_656, 224, 1e-12, HALF),
    "google/vit-base-patch16-384": (86_859_496, 384, 1e-12, HALF),
    "google/vit-base-patch32-384": (88_297_192, 384, 1e-12, HALF),
    "google/vit-large-patch16-224": (304_326_632, 224, 1e-12, HALF),
    "google/vit-base-patch16-224-in21k": (85_798_656 + 768 * 769, 224, 1e-12, HALF),
    "google/vit-huge-patch14-224-in21k": (630_764_800 + 1280 * 1281, 224, 1e-12, HALF),
    "facebook/deit-tiny-patch16-224": (5_717_416, 224, 1e-12, CROPPED),
    "facebook/deit-base-patch16-384": (86_859_496, 384, 1e-12, None),
    "facebook/deit-tiny-distilled-patch16-224": (5_910_800, 224, 1e-12, CROPPED),
    "facebook/deit-base-distilled-patch16-384": (87_630_032, 384, 1e-12, None),
    "facebook/vit-msn-small": (21_665_664, 224, 1e-6, NATURAL),
    "facebook/dino-vits16": (21_665_664, 224, 1e-12, NATURAL),
    "facebook/dino-vits8": (21_670_272, 224, 1e-12, NATURAL),
    "facebook/dino-vitb16": (85_798_656, 224, 1e-12, NATURAL),
    "facebook/dinov2-small": (22_056_192 + 384, 518, 1e-6, SHORT),
    "facebook/dinov2-base": (86_579_712 + 768, 518, 1e-6, SHORT),
    "facebook/dinov2-base-imagenet1k-1-layer": (86_579_712 + 768 + 1537 * 1000, 518, 1e-6, SHORT),
    "facebook/dinov2-giant": (1_136_479_232 + 1536, 518, 1e-6, SHORT),
    # transformers keeps the class token's position, and the mask token.
    "facebook/dinov2-with-registers-small": (22_057_344 + 2 * 384, 518, 1e-6, SHORT),
    "facebook/dinov3-vits16-pretrain-lvd1689m": (21_596_544, 224, 1e-5, NATURAL),
    "facebook/dinov3-vits16plus-pretrain-lvd1689m": (28_692_864, 224, 1e-5, NATURAL),
    "facebook/dinov3-vitb16-pretrain-lvd1689m": (85_660_416, 224, 1e-5, NATURAL),
    "facebook/dinov3-vitl16-pretrain-sat493m": (303_129_600, 224, 1e-5, SATELLITE),
    "facebook/dinov3-vith16plus-pretrain-lvd1689m": (840_592_640, 224, 1e-5, NATURAL),
    "facebook/dinov3-vit7b16-pretrain-lvd1689m": (6_716_035_072, 224, 1e-5, NATURAL),
    "facebook/ijepa_vith14_1k": (630_762_240, 224, 1e-6, NATURAL),
    "facebook/ijepa_vith16_1k": (631_668_480, 448, 1e-6, NATURAL),
    "facebook/ijepa_vitg16_22k": (1_011_368_576, 224, 1e-6, NATURAL),
    "facebook/data2vec-vision-base-ft1k": (86_530_984, 224, 1e-12, NATURAL),
    "microsoft/beit-base-patch16-224": (86_530_984, 224, 1e-12, HALF),
    "microsoft/beit-base-patch16-384": (86_744_104, 384, 1e-12, HALF),
    "microsoft/beit-large-patch16-512": (305_674_728, 512, 1e-12, HALF),
    "microsoft/beit-base-patch16-224-pt22k": (91_965_776, 224, 1e-12, HALF),
    "microsoft/beit-large-patch16-224-pt22k": (311_534_016, 224, 1e-12, HALF),
    "microsoft/beit-base-patch16-224-pt22k-ft22k": (86_530_984 + 20841 * 769, 224, 1e-12, HALF),
}


@pytest.mark.parametrize("name", IMAGES)
def test_image_models(name):
    parameters, side, epsilon, preprocessing = IMAGES[name]
    canonical, config = resolve(name)
    assert canonical == name
    assert isinstance(config, ViTConfig)
    assert (parameter_count(config), config.image_size) == (parameters, (side, side))
    assert (config.norm_epsilon, config.activation) == (epsilon, "gelu")
    assert config.resample_antialias == ("registers" in name)
    assert config.preprocessing == (preprocessing or config.preprocessing)


def test_deit_resizes_to_eight_sevenths():
    assert resolve("facebook/deit-base-patch16-384")[1].preprocessing.resized((384, 384)) == (438, 438)


# Published totals include the two fixed tables of positions, which transformers stores.
@pytest.mark.parametrize(
    ("name", "total"), [("base", 111_907_840), ("large", 329_541_888), ("huge", 657_074_508)]
)
def test_masked_autoencoders(name, total):
    config = resolve(f"facebook/vit-mae-{name}")[1]
    assert isinstance(config, MaeConfig)
    assert parameter_count(config) == total
    assert config.decoder.num_classes == 3 * config.encoder.patch_size[0] ** 2
    assert config.encoder.norm_epsilon == config.decoder.norm_epsilon == 1e-12
    assert config.encoder.preprocessing == NATURAL
    # The decoder sees every patch, the encoder a quarter.
    assert forward_macs(config.encoder, 0.25) < forward_macs(config, 0.25) < forward_macs(config)


# Name -> parameters of both towers, image size, vocabulary, context, width of the shared space.
TOWERS = {
    "openai/clip-vit-base-patch32": (151_277_313, 224, 49408, 77, 512),
    "openai/clip-vit-base-patch16": (149_620_737, 224, 49408, 77, 512),
    "openai/clip-vit-large-patch14": (427_616_513, 224, 49408, 77, 768),
    "openai/clip-vit-large-patch14-336": (427_944_193, 336, 49408, 77, 768),
    "laion/CLIP-ViT-B-32-laion2B-s34B-b79K": (151_277_313, 224, 49408, 77, 512),
    "laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K": (151_277_313 + 15 * 768, 256, 49408, 77, 512),
    "laion/CLIP-ViT-L-14-laion2B-s32B-b82K": (427_616_513, 224, 49408, 77, 768),
    "laion/CLIP-ViT-H-14-laion2B-s32B-b79K": (986_109_441, 224, 49408, 77, 1024),
    "laion/CLIP-ViT-g-14-laion2B-s12B-b42K": (1_366_678_273, 224, 49408, 77, 1024),
    "laion/CLIP-ViT-bigG-14-laion2B-39B-b160k": (2_539_567_105, 224, 49408, 77, 1280),
    "google/siglip-base-patch16-224": (203_155_970, 224, 32_000, 64, 768),
    "google/siglip-large-patch16-256": (652_150_786, 256, 32_000, 64, 1024),
    "google/siglip-so400m-patch14-384": (877_960_498, 378, 32_000, 64, 1152),
    "google/siglip2-base-patch16-224": (375_187_970, 224, 256_000, 64, 768),
    "google/siglip2-large-patch16-256": (881_526_786, 256, 256_000, 64, 1024),
    "google/siglip2-so400m-patch14-224": (1_135_463_602, 224, 256_000, 64, 1152),
    "google/siglip2-giant-opt-patch16-256": (1_871_393_906, 256, 256_000, 64, 1536),
}


@pytest.mark.parametrize("name", TOWERS)
def test_towers(name):
    parameters, side, vocabulary, context, width = TOWERS[name]
    config = resolve(name)[1]
    assert isinstance(config, ImageTextConfig)
    image, text = config.image, config.text
    assert parameter_count(config) == parameters
    assert (image.image_size, text.vocab_size, text.context_length) == ((side, side), vocabulary, context)
    assert image.output_width == text.num_classes == width
    assert forward_macs(config) == forward_macs(image) + forward_macs(text)
    siglip = "siglip" in name
    assert config.logit_bias == siglip
    assert (text.causal, text.pool == "last") == (not siglip, siglip)
    activation = "gelu_tanh" if siglip else "quick_gelu" if "openai" in name else "gelu"
    assert image.activation == text.activation == activation
    assert image.norm_epsilon == text.norm_epsilon == (1e-6 if siglip else 1e-5)


def test_preprocessing_of_towers():
    openai = resolve("openai/clip-vit-base-patch32")[1].image.preprocessing
    assert openai == Preprocessing(CLIP_MEAN, CLIP_STD, "bicubic", 1.0, "center", "down")
    assert resolve("laion/CLIP-ViT-L-14-laion2B-s32B-b82K")[1].image.preprocessing.mean == INCEPTION_MEAN
    squash = Preprocessing(INCEPTION_MEAN, INCEPTION_STD, "bicubic", 1.0, "squash")
    assert resolve("google/siglip-base-patch16-256")[1].image.preprocessing == squash
    # Patches of 14 pixels cover 378 of 384, from the top left.
    config = resolve("google/siglip-so400m-patch14-384")[1].image
    assert config.preprocessing.resized(config.image_size) == (384, 384)
    assert config.preprocessing.crop_rounding == "corner"


def test_short_texts_and_other_languages():
    assert resolve("google/siglip-so400m-patch14-224")[1].text.context_length == 16
    assert resolve("google/siglip-base-patch16-256-multilingual")[1].text.vocab_size == 250_000
    assert resolve("google/siglip-so400m-patch16-256-i18n")[1].text.vocab_size == 250_000


@pytest.mark.parametrize("prefix", ["hf-hub:", "hf_hub:", "hf://"])
def test_prefixes(prefix):
    assert resolve(prefix + "google/vit-base-patch16-224") == resolve("google/vit-base-patch16-224")


@pytest.mark.parametrize(
    "name",
    [
        "google/siglip2-base-patch16-naflex",
        "microsoft/beit-base-finetuned-ade-640-640",
        "google/vit-base",
        "facebook/dinov3-convnext-tiny-pretrain-lvd1689m",
        "somebody/vit-base-patch16-224",
        "hf-hub:",
    ],
)
def test_other_names_are_refused(name):
    with pytest.raises(ConfigError, match="does not exist") as caught:
        resolve(name)
    assert "\n" not in str(caught.value)
