"""More kinds of architectures that timm names, as `timm_kinds`: those whose blocks or positions are not ViT's own.

Sources: Fini et al. 2024 (arXiv 2411.14402) for `aimv2`; Heinrich et al. 2024 (arXiv 2412.07679) for `radio`; Chen et
al. 2023 (arXiv 2312.14238) for `intern`; Heo et al. 2024 (arXiv 2403.13298) for `rope` and `rope_mixed`; Bolya et al.
2025 (arXiv 2504.13181) for `pe`; Khirodkar et al. 2026 (arXiv 2604.21681) for `sapiens2`; Ye et al. 2024 (arXiv
2410.05258) for `d` and Dehghani et al. 2023 (arXiv 2302.05442) for `p` before a size; Vasu et al. 2023 (arXiv
2311.17049) for `mci`.
"""

import dataclasses
from typing import Any

from vit_jax.models.names.timm_kinds import CLIP, HALF, NATURAL, UNIT, Kind
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

_WHOLE = dataclasses.replace(NATURAL, crop=1.0)
_TORCH: dict[str, Any] = dict(init="trunc_normal")
_FEATURES: dict[str, Any] = dict(_TORCH, num_classes=0)

_AIM: dict[str, Any] = dict(
    _FEATURES,
    class_token=False,
    pool="mean",
    norm="rms",
    norm_epsilon=1e-5,
    patch_norm=True,
    qkv_bias=False,
    branch_bias=False,
    mlp="swiglu",
    activation="silu",
    preprocessing=CLIP,
)
_AIM_SIZES = {
    name: dict(width=width, depth=24, heads=width // 128, mlp_dim=mlp_dim)
    for name, width, mlp_dim in (
        ("large", 1024, 2816),
        ("huge", 1536, 4096),
        ("1b", 2048, 5632),
        ("3b", 3072, 8192),
    )
}

_RADIO: dict[str, Any] = dict(
    _FEATURES,
    class_position=False,
    pool_norm="none",
    load_resample="bilinear",
    load_antialias=False,
    preprocessing=CLIP,
)
_RADIO_GIANT = dict(width=1536, heads=24, mlp_dim=6144)

_PE: dict[str, Any] = dict(
    _FEATURES,
    patch_bias=False,
    pre_norm=True,
    norm_epsilon=1e-5,
    rope="eva",
    rope_theta=10000.0,
    rope_grid=(32, 32),
    rope_first="columns",
    rope_offset=1.0,
    preprocessing=dataclasses.replace(HALF, crop=1.0),
)
_PE_CORE = dict(_PE, pool="map", pool_heads=8)
_PE_LATE = dict(_PE, pool="mean", pool_norm="none")
_PE_GIGANTIC = dict(
    width=1536, depth=50, heads=16, mlp_dim=8960, class_token=False, rope_offset=0.0, layer_scale=0.1
)

_ROPE: dict[str, Any] = dict(
    _TORCH,
    layer_scale=1e-5,
    position="none",
    rope="eva",
    rope_theta=100.0,
    rope_first="columns",
    preprocessing=dataclasses.replace(NATURAL, crop=0.9),
)
_MIXED: dict[str, Any] = dict(_ROPE, rope="mixed", rope_theta=10.0)
_ABSOLUTE: dict[str, Any] = dict(position="learned", class_position=False)
_ROPE_LISTED = "small 16 224; base 16 224; large 16 224"

_SBB: dict[str, Any] = dict(
    _TORCH,
    class_token=False,
    register_tokens=1,
    pool="mean",
    pool_norm="after",
    layer_scale=1e-5,
    preprocessing=dataclasses.replace(HALF, crop=0.95),
)
_PWEE = dict(_SBB, depth=16)

_TEST: dict[str, Any] = dict(
    width=64, depth=6, heads=2, mlp_dim=192, preprocessing=dataclasses.replace(HALF, crop=0.95)
)
_TEST_REGISTER = dict(_TEST, class_token=False, register_tokens=1, register_position=True, layer_scale=1e-5)

LATER = (
    Kind(
        "aimv2_{size}_patch{patch}_{resolution}",
        "; ".join(f"{size} 14 224,336,448" for size in _AIM_SIZES),
        _AIM,
        _AIM_SIZES,
    ),
    Kind(
        "vit_{size}_patch{patch}_radio_v3",
        "base 16 512; large 16 512; huge 16 512; giant 16 512",
        dict(_RADIO, register_tokens=7),
        {
            "base": dict(layer_scale=1e-5, load_resample="zoom"),
            "large": dict(layer_scale=1e-5),
            "huge": dict(load_resample="zoom"),
            "giant": _RADIO_GIANT,
        },
        resolution=512,
    ),
    Kind(
        "vit_{size}_patch{patch}_radio_v4",
        "so400m 16 512; huge 16 512",
        dict(_RADIO, register_tokens=9),
        resolution=512,
    ),
    Kind(
        "vit_intern300m_patch{patch}_{resolution}",
        "large 14 448",
        dict(_FEATURES, layer_scale=0.1, pool_norm="none", dynamic_image_size=True, preprocessing=_WHOLE),
        size="large",
    ),
    Kind(
        "vit_{size}_patch{patch}_rpn_{resolution}",
        "base 16 224",
        dict(_TORCH, class_token=False, qkv_bias=False, branch_norm="after", pool="mean", pool_norm="after"),
    ),
    Kind(
        "vit_{size}_patch{patch}_rope_{resolution}",
        _ROPE_LISTED,
        _ROPE,
    ),
    Kind("vit_{size}_patch{patch}_rope_ape_{resolution}", _ROPE_LISTED, _ROPE | _ABSOLUTE),
    Kind("vit_{size}_patch{patch}_rope_mixed_{resolution}", _ROPE_LISTED, _MIXED),
    Kind("vit_{size}_patch{patch}_rope_mixed_ape_{resolution}", _ROPE_LISTED, _MIXED | _ABSOLUTE),
    Kind(
        "vit_pe_core_{size}_patch{patch}_{resolution}",
        "tiny 16 384; small 16 384; base 16 224; large 14 336; gigantic 14 448",
        dict(_PE_CORE, num_classes=1024, rope_grid=(24, 24)),
        {
            "tiny": dict(num_classes=512),
            "small": dict(num_classes=512),
            "base": dict(rope_grid=(14, 14)),
            "gigantic": dict(
                _PE_GIGANTIC, num_classes=1280, rope_grid=(32, 32), layer_scale=None, pool_mlp_dim=6144
            ),
        },
    ),
    Kind(
        "vit_pe_lang_{size}_patch{patch}_{resolution}",
        "large 14 448; gigantic 14 448",
        dict(_PE_LATE, layer_scale=0.1),
        {"large": dict(depth=23), "gigantic": dict(_PE_GIGANTIC, depth=47)},
    ),
    Kind(
        "vit_pe_spatial_{size}_patch{patch}_{resolution}",
        "tiny 16 512; small 16 512; base 16 512; large 14 448; gigantic 14 448",
        _PE_LATE,
        {"gigantic": _PE_GIGANTIC},
    ),
    Kind(
        "vit_base_patch{patch}_sapiens2",
        "base 16 1024",
        dict(
            _FEATURES,
            image_size=(1024, 768),
            norm="rms",
            qk_norm=True,
            mlp="swiglu",
            activation="silu",
            layer_scale=1.0,
            mlp_scale=False,
            register_tokens=8,
            position="none",
            rope="dinov3",
            dynamic_image_size=True,
            preprocessing=Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bilinear", 1.0, "squash"),
        ),
        resolution=1024,
    ),
    Kind(
        "vit_{size}_mci_{resolution}",
        "base 2 224",
        dict(
            _TORCH,
            num_classes=512,
            stem=(192, 192),
            stem_strides=(4, 2),
            stem_kind="mci",
            class_position=False,
            preprocessing=UNIT,
        ),
        patch=2,
    ),
    Kind(
        "vit_dwee_patch{patch}_reg1_gap_{resolution}", "wee 16 256", dict(_SBB, differential=True), size="wee"
    ),
    Kind(
        "vit_dlittle_patch{patch}_reg1_gap_{resolution}",
        "little 16 256",
        dict(_SBB, differential=True),
        size="little",
    ),
    Kind(
        "vit_pwee_patch{patch}_reg1_gap_{resolution}",
        "wee 16 256",
        dict(_PWEE, parallel="two_biases"),
        size="wee",
    ),
    Kind(
        "vit_dpwee_patch{patch}_reg1_gap_{resolution}",
        "wee 16 256",
        dict(_PWEE, parallel="one_bias", differential=True),
        size="wee",
    ),
    Kind("test_vit", "base 16 160", dict(_TEST, dynamic_image_size=True), resolution=160),
    Kind(
        "test_vit2",
        "base 16 160",
        dict(_TEST_REGISTER, depth=8, pool="mean", pool_norm="after", dynamic_image_size=True),
        resolution=160,
    ),
    Kind(
        "test_vit3",
        "base 16 160",
        dict(_TEST_REGISTER, width=96, depth=9, heads=3, pool="map"),
        resolution=160,
    ),
)
