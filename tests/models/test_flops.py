import pytest

from vit_jax.models.arithmetic import encoder_macs
from vit_jax.models.flops import forward_flops, forward_macs, parameter_count, training_flops
from vit_jax.models.names.resolve import resolve
from vit_jax.models.vit.config import ViTConfig, replace


def model(name, **changes):
    return replace(resolve(name)[1], **changes)


# Published, or counted on the reference classes: 1000 classes, class token.
TOKEN = dict(
    vit_tiny_patch16_224=5_717_416,
    vit_tiny_patch16_384=5_790_376,
    vit_small_patch32_224=22_878_952,
    vit_small_patch32_384=22_915_432,
    vit_small_patch16_224=22_050_664,
    vit_small_patch16_384=22_196_584,
    vit_base_patch32_224=88_224_232,
    vit_base_patch32_384=88_297_192,
    vit_base_patch16_224=86_567_656,
    vit_base_patch16_384=86_859_496,
    vit_base_patch8_224=86_576_872,
    vit_large_patch32_224=306_535_400,
    vit_large_patch16_224=304_326_632,
    vit_large_patch16_384=304_715_752,
    vit_large_patch14_224=304_203_752,
    vit_huge_patch14_224=632_045_800,
    vit_giant_patch14_224=1_012_611_432,
    vit_gigantic_patch14_224=1_844_440_680,
    deit_tiny_patch16_224=5_717_416,
    deit_base_patch16_384=86_859_496,
    deit3_small_patch16_224=22_059_496,
    deit3_medium_patch16_224=38_849_512,
    deit3_base_patch16_224=86_585_320,
    deit3_large_patch16_224=304_374_760,
    deit3_huge_patch14_224=632_126_440,
)


@pytest.mark.parametrize("name", TOKEN)
def test_parameters_of_named_models(name):
    assert parameter_count(model(name)) == TOKEN[name]


HEADLESS = dict(
    vit_tiny_patch16_224=5_524_416,
    vit_small_patch16_224=21_665_664,
    vit_small_patch8_224=21_670_272,
    vit_base_patch16_224=85_798_656,
    vit_large_patch16_224=303_301_632,
    vit_huge_patch14_224=630_764_800,
)


@pytest.mark.parametrize("name", HEADLESS)
def test_parameters_without_head(name):
    assert parameter_count(model(name, num_classes=0)) == HEADLESS[name]


# big_vision: mean over patches, no class token, learned positions.
MEAN = dict(
    vit_small_patch16_224=22_049_896,
    vit_base_patch16_224=86_566_120,
    vit_so400m_patch14_224=413_595_352,
    vit_giant_patch14_224=1_012_608_616,
    vit_gigantic_patch14_224=1_844_437_352,
    vit_enormous_patch14_224=3_807_210_728,
)


@pytest.mark.parametrize("name", MEAN)
def test_parameters_with_mean_pooling(name):
    config = model(name, class_token=False, pool="mean")
    assert parameter_count(config) == MEAN[name]
    assert parameter_count(replace(config, pool_norm="after")) == MEAN[name]


def test_parameters_with_representation_layer():
    original = model("vit_base_patch16_224", num_classes=21843, representation_size=768)
    assert parameter_count(original) == 103_186_515
    baseline = model(
        "vit_small_patch16_224",
        class_token=False,
        pool="mean",
        position="sincos2d_big_vision",
        representation_size=384,
    )
    assert parameter_count(baseline) == 22_122_472


@pytest.mark.parametrize(
    ("name", "changes", "count"),
    [
        ("vit_small_patch14_518", {}, 22_056_192),
        ("vit_small_patch14_518", dict(register_tokens=4, class_position=False), 22_057_344),
        ("vit_base_patch14_518", {}, 86_579_712),
        ("vit_large_patch14_518", {}, 304_367_616),
        ("vit_giantopt_patch14_518", dict(heads=24, mlp="swiglu", mlp_dim=4096), 1_136_479_232),
    ],
)
def test_parameters_of_dinov2(name, changes, count):
    assert parameter_count(model(name, num_classes=0, layer_scale=1e-5, **changes)) == count


SIGLIP = dict(class_token=False, pool="map", num_classes=0)


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("vit_base_patch16_224", 92_884_224),
        ("vit_large_patch16_256", 315_956_224),
        ("vit_so400m_patch14_378", 428_225_600),
        ("vit_giantopt_patch16_256", 1_163_168_256),
    ],
)
def test_parameters_of_siglip_towers(name, count):
    assert parameter_count(model(name, **SIGLIP)) == count


CLIP = dict(pre_norm=True, patch_bias=False, num_classes=0)


def clip_text_parameters(width, embedding):
    blocks = 12 * (12 * width**2 + 13 * width)
    return (49408 + 77) * width + blocks + 2 * width + width * embedding + 1


@pytest.mark.parametrize(
    ("name", "text_width", "embedding", "total"),
    [
        ("vit_base_patch32_224", 512, 512, 151_277_313),
        ("vit_base_patch16_224", 512, 512, 149_620_737),
        ("vit_large_patch14_224", 768, 768, 427_616_513),
        ("vit_large_patch14_336", 768, 768, 427_944_193),
    ],
)
def test_parameters_of_clip_towers(name, text_width, embedding, total):
    vision = model(name, **CLIP)
    projection = vision.width * embedding
    assert parameter_count(vision) + projection + clip_text_parameters(text_width, embedding) == total


def test_every_other_option_counts_by_itself():
    base = ViTConfig(
        image_size=8, patch_size=4, in_channels=1, width=8, depth=3, heads=2, mlp_dim=16, num_classes=5
    )
    # patches 4*4*1*8+8, class token 8, positions 5*8, norm 16, head 8*5+5
    # block: norms 32, qkv 8*24+24, out 72, mlp 8*16+16+16*8+8
    assert parameter_count(base) == 136 + 8 + 40 + 16 + 45 + 3 * (32 + 216 + 72 + 280)

    def added(**changes):
        return parameter_count(replace(base, **changes)) - parameter_count(base)

    # Convolutions 3x3 with bias and norm, 1 -> 6 -> 4; the patches then have 4 channels.
    assert added(stem=(6, 4)) == (9 * 1 * 6 + 6 + 12) + (9 * 6 * 4 + 4 + 8) + 3 * 4 * 4 * 8
    assert added(stem=(6, 4), stem_strides=(1, 2), patch_size=2) == added(stem=(6, 4)) - 12 * 4 * 8
    assert added(in_channels=3) == 2 * 4 * 4 * 8
    assert added(patch_bias=False) == -8
    assert added(qkv_bias=False) == -3 * 24
    assert added(pre_norm=True) == 16
    assert added(qk_norm=True) == 3 * 2 * 2 * 4
    assert added(layer_scale=0.1) == 3 * 16
    assert added(register_tokens=2) == 16
    assert added(class_position=False) == -8
    assert added(position="none") == added(position="sincos2d_mae") == -40
    assert added(mlp="swiglu") == 3 * (8 * 16 + 16)
    assert added(pool="map") == 8 + 4 * 72 + 16 + 280
    assert added(pool="mean") == added(pool="none") == added(pool_norm="after") == 0
    assert added(representation_size=6) == (8 * 6 + 6) + (6 - 8) * 5


def test_parameters_of_what_other_families_add():
    base = ViTConfig(
        image_size=(8, 12), patch_size=4, in_channels=1, width=8, depth=3, heads=2, mlp_dim=16, num_classes=5
    )

    def added(**changes):
        return parameter_count(replace(base, **changes)) - parameter_count(base)

    assert added(k_bias=False) == -3 * 8
    assert added(attention_norm=True) == 3 * 16
    assert added(mlp_norm=True) == 3 * 32
    assert added(mask_token=True) == 8
    assert added(head_bias=False) == -5
    assert added(pool="cls_mean") == 8 * 5
    assert added(pool="patches") == added(rope="eva") == 0
    # token, its position, its head
    assert added(distillation_token=True) == 8 + 8 + 45
    # A grid of 2x3 has offsets of 3x5, and 3 entries for the class token.
    assert added(position_bias="shared") == 18 * 2
    assert added(position_bias="blocks") == 3 * 18 * 2


HYBRIDS = dict(
    vit_tiny_r_s16_p8=(6_337_704, "0.43", "1.33"),
    vit_small_r26_s32=(36_431_912, "3.46", "10.26"),
    vit_base_r26_s32=(101_383_976, "6.71", None),
    vit_base_r50_s16=(98_659_112, "21.5", "67.2"),
    vit_large_r50_s32=(328_994_856, "19.4", "57.1"),
)


@pytest.mark.parametrize("name", HYBRIDS)
def test_hybrids(name):
    parameters, low, high = HYBRIDS[name]
    assert parameter_count(model(f"{name}_224")) == parameters
    for resolution, gmacs in ((224, low), (384, high)):
        if gmacs:
            decimals = len(gmacs.partition(".")[2])
            assert f"{forward_macs(model(f'{name}_{resolution}')) / 1e9:.{decimals}f}" == gmacs


def test_operations_of_both_towers():
    # As OpenCLIP prints them.
    assert f"{forward_flops(resolve('openai/clip-vit-base-patch32')[1]) / 1e9:.2f}" == "14.78"


# What is printed for SigLIP is the tower without its pooling head, which adds up to 0.6 %.
BARE = dict(class_token=False, pool="none", num_classes=0)


@pytest.mark.parametrize(
    ("name", "changes", "gmacs"),
    [
        ("vit_tiny_patch16_224", {}, "1.25"),
        ("vit_small_patch32_224", {}, "1.14"),
        ("vit_small_patch16_224", {}, "4.60"),
        ("vit_base_patch32_224", {}, "4.41"),
        ("vit_base_patch16_224", {}, "17.56"),
        ("vit_base_patch8_224", {}, "78.15"),
        ("vit_large_patch32_224", {}, "15.4"),
        ("vit_large_patch16_224", {}, "61.6"),
        ("vit_large_patch14_224", {}, "81.0"),
        ("vit_huge_patch14_224", {}, "167.3"),
        ("vit_giant_patch14_224", {}, "267.0"),
        ("vit_gigantic_patch14_224", {}, "483.75"),
        ("vit_base_patch32_224", CLIP, "4.41"),
        ("vit_base_patch16_224", CLIP, "17.56"),
        ("vit_large_patch14_224", CLIP, "81.0"),
        ("vit_large_patch14_336", CLIP, "191.0"),
        ("vit_base_patch16_224", BARE, "17.5"),
        ("vit_large_patch16_256", BARE, "80.7"),
        ("vit_so400m_patch14_224", BARE, "109.5"),
        ("vit_so400m_patch14_378", BARE, "333.2"),
        ("vit_giantopt_patch16_256", BARE, "298.3"),
        ("vit_small_patch14_224", dict(num_classes=0), "6.1"),
        ("vit_base_patch14_224", dict(num_classes=0), "23.2"),
        ("vit_giantopt_patch14_224", dict(num_classes=0, heads=24, mlp="swiglu", mlp_dim=4096), "299.4"),
    ],
)
def test_gmacs_as_printed(name, changes, gmacs):
    digits = len(gmacs.split(".")[1])
    assert f"{forward_macs(model(name, **changes)) / 1e9:.{digits}f}" == gmacs


def test_macs_by_hand():
    config = ViTConfig(
        image_size=8, patch_size=4, in_channels=2, width=8, depth=3, heads=2, mlp_dim=16, num_classes=5
    )
    block = 5 * (4 * 64 + 2 * 8 * 16) + 2 * 25 * 8
    assert encoder_macs(5, 8, 3, 16) == 3 * block
    assert encoder_macs(5, 8, 3, 16, "swiglu") == 3 * (block + 5 * 8 * 16)
    assert forward_macs(config) == 4 * 32 * 8 + 3 * block + 8 * 5
    stem = 64 * 9 * (2 * 6 + 6 * 4) + (4 - 2) * 64 * 8
    assert forward_macs(replace(config, stem=(6, 4))) == forward_macs(config) + stem
    strided = replace(config, stem=(6, 4), stem_strides=(2, 2), patch_size=1)
    assert forward_macs(strided) == forward_macs(config) + 16 * 9 * 2 * 6 + 4 * 9 * 6 * 4 + 4 * (4 - 32) * 8
    assert forward_macs(replace(config, pool="none")) == forward_macs(config) + 4 * 8 * 5
    assert forward_macs(replace(config, representation_size=6)) == forward_macs(config) + 8 * 6 - 2 * 5
    # Keys and values of 5 tokens, both products, query, output and MLP of one.
    pooling = 5 * 2 * 64 + 2 * 5 * 8 + 2 * 64 + 2 * 8 * 16
    assert forward_macs(replace(config, pool="map")) == forward_macs(config) + pooling


def test_visible_patches_and_training():
    config = model("vit_large_patch16_224", num_classes=0)
    embedding = 196 * 768 * 1024
    assert forward_macs(config, visible=0.25) == embedding + encoder_macs(50, 1024, 24, 4096)
    assert forward_flops(config) == 2 * forward_macs(config)
    assert training_flops(config) == 6 * forward_macs(config)
    assert training_flops(config, visible=0.25) == 6 * forward_macs(config, visible=0.25)
    assert training_flops(replace(config, patch_drop_rate=0.5)) == 6 * forward_macs(config, visible=0.5)
