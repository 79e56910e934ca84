"""Configurations: what is refused, and with which words; and models created from names and options."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from tests.tiny import TINY, pixels, tiny
from vit_jax.errors import ConfigError
from vit_jax.models.mae.config import MaeConfig, mae_encoder_config
from vit_jax.models.registry import create_model, model_config
from vit_jax.models.vit.config import ViTConfig, replace
from vit_jax.models.vit.resnet_config import ResNetConfig


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(image_size=18), "image_size has height 18, not divisible by patch size 4; .* are 16 or 20"),
        (dict(image_size=(16, 2)), "image_size has width 2, not divisible by patch size 4; .* are 4"),
        (dict(image_size=0), "image_size is 0; it must be a positive integer or two"),
        (dict(patch_size=(4, 4, 4)), r"patch_size is \(4, 4, 4\); it must be a positive integer or two"),
        (dict(patch_size="4"), "patch_size is '4'; it must be a positive integer or two"),
        (dict(in_channels=0), "in_channels is 0; it must be at least 1"),
        (dict(width=-4), "width is -4; it must be at least 1"),
        (dict(depth=0), "depth is 0; it must be at least 1"),
        (dict(heads=0), "heads is 0; it must be at least 1"),
        (dict(mlp_dim=0), "mlp_dim is 0; it must be at least 1"),
        (dict(stem=(8, 0)), r"stem is \(8, 0\); it must be at least 1"),
        (dict(stem=8), "stem is 8; it must be a list of integers"),
        (
            dict(stem=(8, 8), stem_strides=(2,)),
            r"stem_strides are \(2,\), for a stem of 2 convolutions; give one for",
        ),
        (dict(stem=(8, 8), stem_strides=(2, 0)), r"stem_strides is \(2, 0\); it must be at least 1"),
        (dict(stem=(8,), stem_strides=(16,)), "image_size has height 16, not divisible by patch size 64"),
        (dict(stem=("a",)), "stem is .*; it must be a list of integers"),
        (dict(num_classes=-1), "num_classes is -1; it must be 0 or more"),
        (dict(register_tokens=-1), "register_tokens is -1; it must be 0 or more"),
        (dict(representation_size=-1), "representation_size is -1; it must be 0 or more"),
        (dict(unroll=-1), "unroll is -1; it must be 0 or more"),
        (dict(dropout_rate=1.0), "dropout_rate is 1.0; it must be at least 0 and below 1"),
        (dict(attention_dropout_rate=-0.1), "attention_dropout_rate is -0.1; it must be"),
        (dict(drop_path_rate=1), "drop_path_rate is 1; it must be at least 0 and below 1"),
        (dict(patch_drop_rate=float("nan")), "patch_drop_rate is nan; it must be"),
        (dict(norm_epsilon=0.0), "norm_epsilon is 0.0; it must be above 0"),
        (dict(heads=3), "heads is 3, which does not divide width 32"),
        (dict(width=34, position="sincos2d_mae"), "width is 34; sincos2d_mae needs a multiple of 4"),
        (dict(class_token=False), "pool is 'cls' but class_token is False"),
        (
            dict(head_batch_norm=True, distillation_token=True),
            "head_batch_norm stands before one head; set it, or distillation_head, to False",
        ),
        (dict(pool="avg"), "pool is 'avg'; it must be one of cls, mean, cls_mean, map, patches, none"),
        (dict(pool_norm="middle"), "pool_norm is 'middle'; it must be one of before, after, none"),
        (dict(position="sincos"), "position is 'sincos'; .* Did you mean 'sincos2d_mae'"),
        (dict(mlp="swiglu2"), "mlp is 'swiglu2'; .* Did you mean 'swiglu'"),
        (dict(activation="gelu_new"), "activation is 'gelu_new'; .* Did you mean .*'gelu'"),
        (dict(drop_path_schedule="cosine"), "drop_path_schedule is 'cosine'"),
        (dict(init="xavier"), "init is 'xavier'; it must be one of jax, trunc_normal"),
        (dict(resample="cubic"), "resample is 'cubic'; .* Did you mean 'bicubic'"),
        (dict(dtype="float16"), "dtype is 'float16'; it must be one of float32, bfloat16"),
        (dict(attention="flash"), "attention is 'flash'; it must be one of auto"),
        (dict(remat="all"), "remat is 'all'; it must be one of none, full"),
        (dict(width=32.0), "width is 32.0; it must be an integer"),
        (dict(depth=True), "depth is True; it must be an integer"),
        (dict(qk_norm=1), "qk_norm is 1; it must be True or False"),
        (dict(dropout_rate="0.1"), "dropout_rate is '0.1'; it must be a number"),
        (dict(layer_scale=True), "layer_scale is True; it must be a number or None"),
        (dict(pool=None), "pool is None; it must be text"),
        (dict(drop_path=0.1), "'drop_path' is not a model option. Did you mean 'drop_path_rate'"),
        (dict(k_bias="no"), "k_bias is 'no'; it must be True or False"),
        (dict(attention_norm=1), "attention_norm is 1; it must be True or False"),
        (dict(mlp_norm=None), "mlp_norm is None; it must be True or False"),
        (dict(distillation_token=1), "distillation_token is 1; it must be True or False"),
        (dict(mask_token="yes"), "mask_token is 'yes'; it must be True or False"),
        (dict(head_bias=0), "head_bias is 0; it must be True or False"),
        (dict(dynamic_image_pad=2), "dynamic_image_pad is 2; it must be True or False"),
        (dict(position_bias="block"), "position_bias is 'block'; .* Did you mean 'blocks'"),
        (
            dict(position_bias="blocks", class_token=False, pool="mean"),
            "position_bias needs a class token and no",
        ),
        (dict(position_bias="shared", register_tokens=1), "position_bias needs a class token and no dist"),
        (
            dict(position_bias="blocks", distillation_token=True),
            "position_bias needs a class token and no dist",
        ),
        (
            dict(rope="eva02"),
            "rope is 'eva02'; it must be one of none, eva, dinov3, mixed. Did you mean 'eva'",
        ),
        (
            dict(rope="eva", width=36),
            "rope needs heads whose width is a multiple of 4; there are 2 of width 18",
        ),
        (dict(rope_theta=0), "rope_theta is 0; it must be above 0"),
        (dict(rope_theta="100"), "rope_theta is '100'; it must be a number"),
        (dict(rope="eva", rope_grid=[4, 0]), r"rope_grid is \[4, 0\]; it must be a positive integer or two"),
        (
            dict(rope="dinov3", rope_grid=4),
            r"rope_grid is \(4, 4\), which only rope 'eva' has; set it to None",
        ),
        (
            dict(position_bias="shared", patch_drop_rate=0.1),
            "patch_drop_rate needs positions of single patches, and position_bias is 'shared'",
        ),
        (dict(distillation_token=True, pool="mean"), "distillation_token needs a class token and pool 'cls'"),
        (dict(distillation_token=True, pool_norm="after"), "distillation_head needs pool_norm 'before' and"),
        (dict(distillation_token=True, representation_size=8), "distillation_head needs pool_norm 'before'"),
        (dict(pool="cls_mean", class_token=False), "pool is 'cls_mean' but class_token is False"),
        (dict(pool="cls_mean", pool_norm="after"), "pool 'cls_mean' is twice as wide as a token; it needs"),
        (
            dict(pool="cls_mean", representation_size=8),
            "pool 'cls_mean' is twice as wide as a token; it needs",
        ),
        (dict(resample_offset=-1.0), "resample_offset is -1.0; it must be 0 or more"),
        (dict(bias_resample="cubic"), "bias_resample is 'cubic'; it must be one of geometric, bilinear"),
        (dict(backbone=50), "backbone is 50; it must be None, a ResNetConfig or a dict of its fields"),
        (dict(backbone={"depth": (3,)}), "backbone has no 'depth'; .* Did you mean 'depths'"),
        (dict(backbone={"depths": 3}), "backbone: depths is 3; it must be a list of integers"),
        (dict(backbone={"depths": [1], "channels": ["a"]}), r"channels is \['a'\]; it must be a list of int"),
        (dict(backbone={"depths": [0], "channels": [128]}), r"depths is \(0,\); it must be at least 1"),
        (dict(backbone={"depths": [1, 2], "channels": [128]}), "backbone has 2 depths and 1 channels"),
        (dict(backbone={"depths": [1], "channels": [130]}), r"channels \(130,\); group norm needs multiples"),
        (dict(backbone={"stem_channels": 48}), "backbone has 48 stem_channels and .*; group norm needs mul"),
        (
            dict(backbone={"numerics": "torch"}),
            "backbone: numerics is 'torch'; it must be one of google, timm",
        ),
        (
            dict(backbone={}, image_size=20),
            "image_size has height 20, not divisible by patch size 16; .* 16 or 32",
        ),
        (dict(preprocessing=3), "preprocessing is 3; it must be a Preprocessing or a dict"),
        (dict(preprocessing={"means": (0.5,)}), "preprocessing has no 'means'; .* Did you mean 'mean'"),
    ],
)
def test_wrong_configurations_get_one_clear_line(changes, message):
    with pytest.raises(ConfigError, match=message) as info:
        replace(TINY, **changes)
    assert "\n" not in str(info.value)


def test_configurations_are_checked_however_they_are_made():
    with pytest.raises(ConfigError, match="width is '64'; it must be an integer"):
        ViTConfig(width="64")
    with pytest.raises(ConfigError, match="stem is 8; it must be a list of integers"):
        ViTConfig(stem=8)
    with pytest.raises(ConfigError, match="depths is 2; it must be a list of integers"):
        ResNetConfig(depths=2)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("deit3_small_patch16_224", dict(stem=(8, 8), image_size=(32, 64))),
        ("vit_base_r50_s16_224", {}),
        ("eva02_base_patch14_224", {}),
        ("beit_base_patch16_224", dict(resample_offset=1)),
    ],
)
def test_a_configuration_survives_json(name, options):
    config = model_config(name, **options)
    again = ViTConfig(**json.loads(json.dumps(dataclasses.asdict(config))))
    assert again == config
    assert hash(again) == hash(config)


ENCODER = mae_encoder_config(TINY)


@pytest.mark.parametrize(
    ("encoder", "decoder", "message"),
    [
        (dict(rope="eva"), {}, "the encoder of a masked autoencoder has rope 'eva'; it must be 'none'"),
        ({}, dict(rope="eva"), "the decoder of a masked autoencoder has rope 'eva'; it must be 'none'"),
        (dict(position_bias="blocks"), {}, "encoder .* has position_bias 'blocks'; it must be 'none'"),
        (dict(distillation_token=True), {}, "encoder .* has distillation_token True; it must be False"),
        (dict(pool_norm="after"), {}, "encoder .* has pool_norm 'after'; it must be 'before'"),
        (dict(patch_drop_rate=0.5), {}, "encoder .* has patch_drop_rate 0.5; it must be 0"),
        (dict(backbone={}), {}, "encoder .* has backbone ResNetConfig.*; it must be None"),
        ({}, dict(image_size=32), r"encoder has grid \(4, 4\) and its decoder \(8, 8\); they must be equal"),
        (
            dict(class_token=False),
            {},
            "encoder has class_token False and its decoder True; they must be equal",
        ),
    ],
)
def test_masked_autoencoders_that_cannot_be(encoder, decoder, message):
    with pytest.raises(ConfigError, match=message) as info:
        MaeConfig(replace(ENCODER, **encoder), replace(ENCODER, **decoder))
    assert "\n" not in str(info.value)
    with pytest.raises(ConfigError, match=r"decoder is \{\}; it must be a ViTConfig"):
        MaeConfig(ENCODER, {})


def test_any_encoder_becomes_one_of_a_masked_autoencoder():
    config = mae_encoder_config(
        tiny(class_token=False, pool="mean", pool_norm="after", representation_size=8)
    )
    assert MaeConfig(config, config).encoder.feature_width == 32


def test_create_model_takes_every_option_and_a_seed():
    options = dict(
        image_size=(8, 16), patch_size=4, in_channels=1, num_classes=7, drop_path_rate=0.1, depth=2
    )
    options |= dict(width=16, mlp_dim=32, unroll=1)
    model, other = (create_model("ViT-mu/16", seed=seed, **options) for seed in (0, 1))
    assert model.config == model_config("vit_mu_patch16_224", **options)
    logits = jax.jit(lambda model: model(pixels(2, 8, 16, 1)))(model)
    np.testing.assert_array_equal(logits, np.zeros((2, 7)))
    assert model.blocks.mlp.fc1.kernel.shape == (2, 16, 32)
    assert not np.array_equal(model.pos_embed[...], other.pos_embed[...])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("vit_bse_patch16_224", {}, "model 'vit_bse_patch16_224' does not exist. Did you mean"),
        ("mu/16", dict(num_class=3), "'num_class' is not a model option. Did you mean 'num_classes'"),
        ("mu/16", dict(image_size=100), "image_size has height 100, .* the nearest sizes are 96 or 112"),
    ],
)
def test_create_model_refuses(name, options, message):
    with pytest.raises(ConfigError, match=message):
        create_model(name, **options)


@pytest.mark.parametrize(
    ("name", "call"),
    [
        ("ViT-B/16", r"vit_jax\.load\('timm/vit_base_patch16_224\.\w+'\)"),
        ("vit_base_patch16_clip_224.openai", r"vit_jax\.load\('timm/vit_base_patch16_clip_224\.openai'\)"),
        ("facebook/dinov2-base", r"vit_jax\.load\('facebook/dinov2-base'\)"),
        (
            "vit_mu_patch16_224",
            r"vit_jax\.load with a file or folder \(no published weights of vit_mu_patch16_224 are",
        ),
    ],
)
def test_pretrained_says_what_to_call(name, call):
    with pytest.raises(
        ConfigError, match=rf"create_model makes fresh parameters, not pretrained ones; call {call}"
    ):
        create_model(name, pretrained=True)


def test_not_pretrained_is_what_it_does():
    model = create_model("vit_mu_patch2_8", pretrained=False, num_classes=3)
    images = np.zeros((1, 8, 8, 3), np.float32)
    # A name to capture is as good as a tuple of one.
    out, captured = model(images, capture="attention/-1")
    _, several = model(images, capture=("attention/-1",))
    assert out.shape == (1, 3)
    np.testing.assert_array_equal(captured["attention/-1"], several["attention/-1"])
