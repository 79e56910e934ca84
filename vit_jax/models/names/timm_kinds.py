"""Kinds of architectures that timm names: patterns, and the fields that they stand for. Needs no jax.

The facts are those of timm 1.0 (Wightman, github.com/huggingface/pytorch-image-models). Sources beside those in
`vit_config`: Steiner et al. 2021 (arXiv 2106.10270) for `augreg`; Caron et al. 2021 (arXiv
2104.14294) for `dino`; He et al. 2021 (arXiv 2111.06377) for `mae`; Radford et al. 2021 (arXiv 2103.00020) for
`clip`; Zhai et al. 2023 (arXiv 2303.15343) for `siglip`; Bao et al. 2021 (arXiv 2106.08254) for `beit`; Peng et al.
2022 (arXiv 2208.06366) for `beitv2`; Wang et al. 2022 (arXiv 2208.10442) for `beit3`; Fang et al. 2022 (arXiv
2211.07636) for `eva`; Fang et al. 2023 (arXiv 2303.11331) for `eva02`; Oquab et al. 2023 (arXiv 2304.07193) for
`dinov2`; Simeoni et al. 2025 (arXiv 2508.10104) for `dinov3`; Assran et al. 2023 (arXiv 2301.08243) for `ijepa`;
Beyer et al. 2022 (arXiv 2212.08013) for `flexivit`.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from vit_jax.models.preprocessing import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    INCEPTION_MEAN,
    INCEPTION_STD,
    Preprocessing,
)
from vit_jax.models.vit import config as vit_config
from vit_jax.models.vit.resnet_config import ResNetConfig

HALF = Preprocessing(INCEPTION_MEAN, INCEPTION_STD)
NATURAL = Preprocessing(IMAGENET_MEAN, IMAGENET_STD)
CLIP = Preprocessing(CLIP_MEAN, CLIP_STD, crop=1.0)
UNIT = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def _size(width: int, depth: int, heads: int, mlp_dim: int) -> dict[str, Any]:
    return dict(width=width, depth=depth, heads=heads, mlp_dim=mlp_dim)


SIZES = vit_config.SIZES | {
    name: _size(width, depth, heads, mlp_dim)
    for name, width, depth, heads, mlp_dim in (
        ("xsmall", 256, 10, 4, 1024),
        ("wee", 256, 14, 4, 1280),
        ("little", 320, 14, 5, 1792),
        ("mediumd", 512, 20, 8, 2048),
        ("betwixt", 640, 12, 10, 2560),
        ("small_plus", 384, 12, 6, 1536),
        ("huge_plus", 1280, 32, 20, 5120),
        ("7b", 4096, 40, 32, 8192),
    )
}

# Width of the space that images and texts share.
EMBEDDING = dict(
    xsmall=512, medium=512, betwixt=512, base=512, large=768, huge=1024, giant=1024, gigantic=1280
)


@dataclass(frozen=True)
class Kind:
    """A pattern of names and what they mean.

    Attributes:
      pattern: the name, with `{size}`, `{patch}` and `{resolution}` where it says them.
      listed: sizes, patches and resolutions that are listed: `base 16 224,384`, separated by `;`.
      changes: fields of the configuration other than the defaults.
      sizes: per size, more such fields; a size of this kind alone has all of them.
      size, patch, resolution: where the pattern says none.
    """

    pattern: str
    listed: str
    changes: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, dict[str, Any]] = field(default_factory=dict)
    size: str = "base"
    patch: int = 16
    resolution: int = 224


_TORCH: dict[str, Any] = dict(init="trunc_normal")
_DEIT = dict(**_TORCH, preprocessing=NATURAL)
_DEIT3 = dict(
    **_DEIT,
    class_position=False,
    layer_scale=1e-6,  # timm's; 1e-4 in the official code. It is only where training starts.
    drop_path_schedule="constant",
)
_AFTER = dict(pool="mean", pool_norm="after")
_GAP = dict(pool="mean", class_token=False)
_GAP_MEDIUM = dict(qkv_bias=False, layer_scale=1e-6, preprocessing=dataclasses.replace(HALF, crop=0.95))
_CLIP = dict(_TORCH, pre_norm=True, patch_bias=False, norm_epsilon=1e-5, preprocessing=CLIP)
_CLIP_SIZES = {size: dict(num_classes=width) for size, width in EMBEDDING.items()}
_SIGLIP = dict(class_token=False, num_classes=0)
_DINO2 = dict(_TORCH, num_classes=0, layer_scale=1e-5, preprocessing=dataclasses.replace(NATURAL, crop=1.0))
_GIANT2 = {"giant": dict(width=1536, heads=24, mlp="swiglu", mlp_dim=4096)}
_REGISTERS = dict(
    _TORCH,
    **_GAP,
    pool_norm="after",
    layer_scale=1e-5,
    preprocessing=dataclasses.replace(HALF, crop=0.95),
)
_DINO3 = dict(
    _DINO2,
    norm_epsilon=1e-5,
    register_tokens=4,
    position="none",
    rope="dinov3",
    pool="mean",
    k_bias=False,
    dynamic_image_size=True,
)
_SWIGLU = dict(mlp="swiglu")
_DINO3_SIZES = {"small_plus": _SWIGLU, "huge_plus": _SWIGLU, "7b": _SWIGLU}
_BEIT = dict(_TORCH, **_AFTER, position="none", position_bias="blocks", k_bias=False, layer_scale=1e-5)
_EVA = dict(_TORCH, **_AFTER, k_bias=False, preprocessing=dataclasses.replace(CLIP, crop=0.9))
_EVA2 = dict(_EVA, rope="eva", rope_theta=10000.0, rope_grid=(16, 16), mlp="swiglu", mlp_norm=True)
_EVA2_SIZES = {
    "tiny": dict(mlp_dim=512, mlp_norm=False),
    "small": dict(mlp_dim=1024, mlp_norm=False),
    "base": dict(mlp_dim=2048),
    "large": dict(mlp_dim=2730),
}
_ENORMOUS = dict(
    depth=64,
    num_classes=1024,
    rope="none",
    rope_grid=None,
    mlp="mlp",
    mlp_norm=False,
    attention_norm=False,
    branch_norm="after",
)
_SBB_ROPE = dict(
    _REGISTERS, position="none", rope="eva", rope_theta=10000.0, rope_grid=(16, 16), k_bias=False
)


def _resnet(*depths: int) -> ResNetConfig:
    return ResNetConfig(depths, tuple(256 * 2**stage for stage in range(len(depths))), numerics="timm")


_SIGLIP_LISTED = (
    "base 16 224,256,384,512; base 32 256; large 16 256,384,512; so400m 14 224,378,384; so400m 16 256,384,512; "
    "giantopt 16 256,384"
)
_DINO_LISTED = "small 14 518; base 14 518; large 14 518; giant 14 518"

KINDS = (
    Kind(
        "vit_{size}_patch{patch}_{resolution}",
        "mu 16 224; tiny 16 224,384; small 8 224; small 16,32 224,384; medium 16 224; base 8 224; base 16,32 224,384; "
        "large 14 224; large 16,32 224,384; huge 14,16 224; so400m 14 224,378; giant 14 224; giantopt 16 256,384; "
        "gigantic 14 224; enormous 14 224",
    ),
    Kind(
        "vit_{size}_patch{patch}_{resolution}_miil",
        "base 16 224",
        dict(qkv_bias=False),
    ),
    Kind(
        "vit_{size}_patch{patch}_plus_{resolution}",
        "base 16 240; base 32 256",
        dict(layer_scale=1e-5),
        {"base": dict(width=896, heads=14, mlp_dim=3584)},
    ),
    Kind(
        "vit_{size}_patch{patch}_gap_{resolution}",
        "medium 16 240,256,384; huge 14 224; huge 16 448; giant 16 224",
        dict(_TORCH, **_GAP),
        {size: _GAP_MEDIUM for size in ("medium", "betwixt")}
        | {size: dict(num_classes=0, preprocessing=NATURAL) for size in ("huge", "giant")},
    ),
    Kind(
        "vit_{size}_patch{patch}_reg1_gap_{resolution}",
        "wee 16 256; little 16 256; medium 16 256; betwixt 16 256; so150m2 16 256,384,448",
        dict(_REGISTERS, register_tokens=1),
        {"so150m2": dict(_size(832, 21, 13, 2176), qkv_bias=False, register_position=True)},
    ),
    Kind(
        "vit_{size}_patch{patch}_reg4_gap_{resolution}",
        "little 16 256; medium 16 256; mediumd 16 256,384; betwixt 16 256,384; base 16 256; so150m 16 256,384",
        dict(_REGISTERS, register_tokens=4),
        {
            "base": dict(layer_scale=None),
            "so150m": dict(
                _size(896, 18, 14, 2304), layer_scale=None, pool_norm="before", register_position=True
            ),
        },
    ),
    Kind(
        "vit_{size}_patch{patch}_rope_reg1_gap_{resolution}",
        "medium 16 256; mediumd 16 256; base 16 256",
        dict(_SBB_ROPE, register_tokens=1),
        {"mediumd": dict(qkv_bias=False)},
    ),
    Kind(
        "vit_{size}_patch{patch}_rope_reg4_gap_{resolution}",
        "betwixt 16 256",
        dict(_SBB_ROPE, register_tokens=4),
    ),
    Kind(
        "vit_{size}_patch{patch}_clip_{resolution}",
        "xsmall 16 224; medium 16,32 224; betwixt 32 224; base 16 224,384; base 32 224,256,384,448; large 14 224,336; "
        "huge 14 224,336,378; giant 14 224; gigantic 14 224,378",
        _CLIP,
        _CLIP_SIZES,
    ),
    Kind(
        "vit_{size}_patch{patch}_clip_quickgelu_{resolution}",
        "base 16,32 224; large 14 224,336; huge 14 224,378; gigantic 14 224",
        dict(_CLIP, activation="quick_gelu"),
        _CLIP_SIZES,
    ),
    Kind(
        "vit_{size}_patch{patch}_plus_clip_{resolution}",
        "base 16 240",
        _CLIP,
        {"base": dict(width=896, heads=14, mlp_dim=3584, num_classes=640)},
    ),
    Kind(
        "vit_{size}_patch{patch}_siglip_{resolution}",
        _SIGLIP_LISTED,
        dict(_SIGLIP, pool="map"),
    ),
    Kind(
        "vit_{size}_patch{patch}_siglip_gap_{resolution}",
        f"{_SIGLIP_LISTED}; so400m 14 448,896",
        dict(_SIGLIP, pool="mean"),
    ),
    Kind("vit_{size}_patch{patch}_dinov2", _DINO_LISTED, _DINO2, _GIANT2, resolution=518),
    Kind(
        "vit_{size}_patch{patch}_reg4_dinov2",
        _DINO_LISTED,
        dict(_DINO2, register_tokens=4, class_position=False),
        _GIANT2,
        resolution=518,
    ),
    Kind(
        "vit_{size}_patch{patch}_reg1_tipsv2",
        "base 14 448; large 14 448; so400m 14 448; giant 14 448",
        dict(
            _DINO2,
            register_tokens=1,
            class_position=False,
            layer_scale=1.0,
            preprocessing=dataclasses.replace(UNIT, crop=1.0),
        ),
        _GIANT2,
        resolution=448,
    ),
    Kind(
        "vit_{size}_patch{patch}_dinov3",
        "small 16 256; small_plus 16 256; base 16 256; large 16 256; huge_plus 16 256; 7b 16 256",
        dict(_DINO3, qkv_bias=False),
        _DINO3_SIZES,
        resolution=256,
    ),
    Kind(
        "vit_{size}_patch{patch}_dinov3_qkvb",
        "tiny 16 256; small 16 256; small_plus 16 256; base 16 256; large 16 256; huge_plus 16 256",
        _DINO3,
        _DINO3_SIZES,
        resolution=256,
    ),
    Kind(
        "vit_{size}_patch{patch}_lingbot",
        "small 16 512; base 16 512; large 16 512; giant 16 512",
        dict(
            _DINO3,
            pool="cls",
            preprocessing=Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bilinear", 1.0, "squash"),
        ),
        {"giant": dict(_GIANT2["giant"], qkv_bias=False)},
        resolution=512,
    ),
    Kind(
        "vit_{size}_r_s16_p{patch}_{resolution}",
        "tiny 8 224,384",
        dict(backbone=_resnet()),
    ),
    *(
        Kind(f"vit_{{size}}_{name}_{{resolution}}", listed, dict(backbone=_resnet(*depths)), patch=1)
        for name, listed, depths in (
            ("r26_s32", "small 1 224,384; base 1 224", (2, 2, 2, 2)),
            ("r50_s16", "base 1 224,384", (3, 4, 9)),
            ("r50_s32", "large 1 224,384", (3, 4, 6, 3)),
        )
    ),
    Kind(
        "flexivit_{size}",
        "small 16 240; base 16 240; large 16 240",
        dict(class_position=False, load_resample="bilinear", load_antialias=False),
        resolution=240,
    ),
    Kind(
        "deit_{size}_patch{patch}_{resolution}",
        "tiny 16 224; small 16 224; base 16 224,384",
        _DEIT,
    ),
    Kind(
        "deit_{size}_distilled_patch{patch}_{resolution}",
        "tiny 16 224; small 16 224; base 16 224,384",
        dict(_DEIT, distillation_token=True),
    ),
    Kind(
        "deit3_{size}_patch{patch}_{resolution}",
        "small 16 224,384; medium 16 224; base 16 224,384; large 16 224,384; huge 14 224",
        _DEIT3,
    ),
    Kind(
        "beit_{size}_patch{patch}_{resolution}",
        "base 16 224,384; large 16 224,384,512",
        _BEIT,
        {"base": dict(layer_scale=0.1)},
    ),
    Kind(
        "beitv2_{size}_patch{patch}_{resolution}",
        "base 16 224; large 16 224",
        dict(_BEIT, preprocessing=NATURAL),
    ),
    Kind(
        "beit3_{size}_patch{patch}_{resolution}",
        "base 16 224; large 16 224; giant 14 224,336",
        dict(
            _TORCH,
            **_AFTER,
            attention_norm=True,
            mlp_norm=True,
            norm_epsilon=1e-5,
            preprocessing=dataclasses.replace(NATURAL, crop=1.0),
        ),
    ),
    Kind(
        "eva_{size}_patch{patch}_{resolution}",
        "large 14 196,336; giant 14 224,336,560",
        _EVA,
        {"large": dict(k_bias=True)},
    ),
    Kind(
        "eva_{size}_patch{patch}_clip_{resolution}",
        "giant 14 224",
        dict(_EVA, pool="cls", pool_norm="before"),
        _CLIP_SIZES,
    ),
    Kind(
        "eva02_{size}_patch{patch}_{resolution}",
        "tiny 14 224,336; small 14 224,336; base 14 224,448; large 14 224,448",
        _EVA2,
        _EVA2_SIZES,
    ),
    Kind(
        "eva02_{size}_patch{patch}_clip_{resolution}",
        "base 16 224; large 14 224,336; enormous 14 224",
        dict(_EVA2, pool="cls", pool_norm="before", attention_norm=True),
        {size: _EVA2_SIZES[size] | _CLIP_SIZES[size] for size in ("base", "large")} | {"enormous": _ENORMOUS},
    ),
)
