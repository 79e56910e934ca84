"""What is written is read again, bit for bit, by whatever format; what a format cannot say is said."""

import pytest

from tests.weights.models import (
    BEIT,
    CLIP_PAIR,
    DINOV2,
    DINOV3,
    GOOGLE,
    HYBRID,
    MAE,
    PLAIN,
    SIGLIP_PAIR,
    SQUASH,
    assert_same,
    computing,
    flat,
    opened,
    write,
)
from vit_jax.models.encoder_config import replace

ROUND_TRIPS = {
    "timm": {
        "plain": PLAIN,
        "no head": replace(PLAIN, num_classes=0),
        "mean": replace(PLAIN, pool="mean", pool_norm="after"),
        "no class token": replace(PLAIN, class_token=False, pool="mean"),
        "map": replace(PLAIN, class_token=False, pool="map"),
        "registers": replace(PLAIN, register_tokens=2, class_position=False),
        "scaled": replace(PLAIN, layer_scale=0.1, qkv_bias=False, qk_norm=True),
        "pre_norm": replace(PLAIN, pre_norm=True, patch_bias=False, norm_epsilon=1e-5, activation="quick_gelu"),
        "distilled": replace(PLAIN, distillation_token=True),
        "swiglu": replace(PLAIN, mlp="swiglu", layer_scale=0.1, activation="silu", mlp_dim=48),
        "beit": BEIT,
        "beit shared": replace(BEIT, position_bias="shared"),
        "grey": replace(PLAIN, in_channels=1),
        "wide images": replace(PLAIN, image_size=(16, 24)),
        "dinov3": replace(DINOV3, mask_token=False),
    },
    "hf": {
        "plain": PLAIN,
        "no head": replace(PLAIN, num_classes=0),
        "pooler": replace(PLAIN, num_classes=0, representation_size=24),
        "pixels": replace(PLAIN, num_classes=48, pool="patches", mask_token=True),
        "distilled": replace(PLAIN, distillation_token=True),
        "no bias": replace(PLAIN, qkv_bias=False),
        "ijepa": replace(PLAIN, class_token=False, pool="mean"),
        "beit": BEIT,
        "beit codes": replace(BEIT, pool="patches", pool_norm="before", mask_token=True),
        "dinov2": DINOV2,
        "dinov2 registers": replace(DINOV2, register_tokens=2),
        "dinov2 swiglu": replace(DINOV2, mlp="swiglu", mlp_dim=88),
        "dinov3": DINOV3,
        "dinov3 gated": replace(DINOV3, mlp="swiglu", activation="silu"),
        "mae": MAE,
        "clip": CLIP_PAIR,
        "siglip": SIGLIP_PAIR,
    },
    "npz": {
        "google": GOOGLE,
        "pre_logits": replace(GOOGLE, representation_size=24),
        "no class token": replace(GOOGLE, class_token=False, pool="mean"),
        "class without position": replace(GOOGLE, class_position=False),
        "sincos": replace(
            GOOGLE, position="sincos2d_big_vision", class_token=False, pool="mean", image_size=224, patch_size=32
        ),
        "map": replace(GOOGLE, class_token=False, pool="map"),
        "hybrid": HYBRID,
        "siglip": replace(SIGLIP_PAIR, image=replace(SIGLIP_PAIR.image, preprocessing=SQUASH)),
    },
    "orbax": {"plain": PLAIN, "mae": MAE, "clip": CLIP_PAIR, "hybrid": HYBRID},
}  # fmt: skip


@pytest.mark.parametrize(
    ("format", "kind"), [(format, kind) for format, kinds in ROUND_TRIPS.items() for kind in kinds]
)
def test_a_model_is_read_as_it_was_written(format, kind, tmp_path):
    config = ROUND_TRIPS[format][kind]
    path = tmp_path / ("model.npz" if format == "npz" else "model")
    write(config, path, format)
    read, params = opened(path, native_size=True)
    assert computing(read) == computing(config)
    assert_same(flat(config), params)
