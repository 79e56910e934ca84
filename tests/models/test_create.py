"""Configurations: what is refused, and with which words; and models created from names and options."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from tests.tiny import TINY, pixels
from vit_jax.errors import ConfigError
from vit_jax.models.registry import create_model, model_config
from vit_jax.models.vit_config import ViTConfig, replace


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(image_size=18), "image height 18 is not divisible by patch size 4; .* are 16 or 20"),
        (dict(image_size=(16, 2)), "image width 2 is not divisible by patch size 4; .* are 4"),
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
        (dict(pool="avg"), "pool is 'avg'; it must be one of cls, mean, cls_mean, map, patches, none"),
        (dict(pool_norm="none"), "pool_norm is 'none'; it must be one of before, after"),
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
        (dict(preprocessing=3), "preprocessing is 3; it must be a Preprocessing or a dict"),
        (dict(preprocessing={"means": (0.5,)}), "preprocessing has no 'means'; .* Did you mean 'mean'"),
    ],
)
def test_wrong_configurations_get_one_clear_line(changes, message):
    with pytest.raises(ConfigError, match=message) as info:
        replace(TINY, **changes)
    assert "\n" not in str(info.value)


def test_a_configuration_survives_json():
    config = model_config("deit3_small_patch16_224", stem=(8, 8), image_size=(32, 64))
    again = ViTConfig(**json.loads(json.dumps(dataclasses.asdict(config))))
    assert again == config
    assert hash(again) == hash(config)


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
        ("mu/16", dict(image_size=100), "image height 100 .* the nearest sizes are 96 or 112"),
    ],
)
def test_create_model_refuses(name, options, message):
    with pytest.raises(ConfigError, match=message):
        create_model(name, **options)
