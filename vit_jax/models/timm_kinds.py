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

from vit_jax.models import vit_config
from vit_jax.models.preprocessing import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    INCEPTION_MEAN,
    INCEPTION_STD,
    Preprocessing,
)
from vit_jax.models.resnet_config import ResNetConfig

HALF = Preprocessing(INCEPTION_MEAN, INCEPTION_STD)
NATURAL = Preprocessing(IMAGENET_MEAN, IMAGENET_STD)
CLIP = Preprocessing(CLIP_MEAN, CLIP_STD, crop=1.0)
UNIT = Preprocessing((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))

SIZES = vit_config.SIZES | {
    name: dict(width=width, depth=depth, heads=heads, mlp_dim=mlp_dim)
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
      tags: the tags there are.
      listed: sizes, patches and resolutions that are listed: `base 16 224,384`, separated by `;`.
      changes: fields of the configuration other than the defaults.
      sizes: per size, more such fields.
      patch, resolution: where the pattern says none.
    """

    pattern: str
    tags: str
    listed: str
    changes: dict[str, Any] = field(default_factory=dict)
    sizes: dict[str, dict[str, Any]] = field(default_factory=dict)
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
    _DINO2, norm_epsilon=1e-5, register_tokens=4, position="none", rope="dinov3", pool="mean", k_bias=False
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
_SBB_ROPE = dict(
    _REGISTERS, position="none", rope="eva", rope_theta=10000.0, rope_grid=(16, 16), k_bias=False
)


def _resnet(*depths: int) -> ResNetConfig:
    return ResNetConfig(depths, tuple(256 * 2**stage for stage in range(len(depths))), numerics="timm")


_AUGREG = "augreg_in21k augreg_in21k_ft_in1k"
_ORIGINAL = "orig_in21k orig_in21k_ft_in1k"
_CLIP_TAGS = (
    "openai laion2b laion400m_e32 datacompxl dfn2b dfn2b_s39b dfn5b metaclip_400m metaclip_2pt5b "
    "metaclip_altogether metaclip2_worldwide apple_mclip2_dfndr2b tinyclip_laion400m tinyclip_yfcc15m "
    "openai_ft_in1k openai_ft_in12k openai_ft_in12k_in1k laion2b_ft_in1k laion2b_ft_in12k laion2b_ft_in12k_in1k"
)
_PALI = "pali_pt pali_mix pali_ocrvqa pali_refcoco_seg " + " ".join(
    f"pali2_{size}_{kind}" for size in ("3b", "10b") for kind in ("pt", "docci")
)
_WEBLI = "webli webli_i18n webli_ft_in1k v2_webli"
_SBB = "sbb_in1k sbb_in12k sbb_in12k_ft_in1k"
_SIGLIP_LISTED = (
    "base 16 224,256,384,512; base 32 256; large 16 256,384,512; so400m 14 224,378,384; so400m 16 256,384,512; "
    "giantopt 16 256,384"
)
_DINO_LISTED = "small 14 518; base 14 518; large 14 518; giant 14 518"
_FLEXI_TAGS = "300ep_in1k 600ep_in1k 1200ep_in1k 300ep_in21k 1000ep_in21k patch16_in21k patch30_in21k"
_EVA2_TAGS = "mim_in22k mim_m38m " + " ".join(
    f"mim_{data}_ft_{tuned}" for data in ("in22k", "m38m") for tuned in ("in1k", "in22k", "in22k_in1k")
)

KINDS = (
    Kind(
        "vit_{size}_patch{patch}_{resolution}",
        f"augreg_in1k {_AUGREG} augreg2_in21k_ft_in1k {_ORIGINAL} sam_in1k bamboo dino mae",
        "mu 16 224; tiny 16 224,384; small 8 224; small 16,32 224,384; medium 16 224; base 8 224; base 16,32 224,384; "
        "large 14 224; large 16,32 224,384; huge 14,16 224; so400m 14 224,378; giant 14 224; giantopt 16 256,384; "
        "gigantic 14 224; enormous 14 224",
    ),
    Kind(
        "vit_{size}_patch{patch}_{resolution}_miil",
        "in21k in21k_ft_in1k",
        "base 16 224",
        dict(qkv_bias=False),
    ),
    Kind(
        "vit_{size}_patch{patch}_plus_{resolution}",
        "",
        "base 16 240; base 32 256",
        dict(layer_scale=1e-5),
        {"base": dict(width=896, heads=14, mlp_dim=3584)},
    ),
    Kind(
        "vit_{size}_patch{patch}_gap_{resolution}",
        "sw_in12k sw_in12k_ft_in1k in1k_ijepa in22k_ijepa",
        "medium 16 240,256,384; huge 14 224; huge 16 448; giant 16 224",
        dict(_TORCH, **_GAP),
        {"medium": dict(qkv_bias=False, layer_scale=1e-6, preprocessing=dataclasses.replace(HALF, crop=0.95))}
        | {size: dict(num_classes=0, preprocessing=NATURAL) for size in ("huge", "giant")},
    ),
    Kind(
        "vit_{size}_patch{patch}_reg1_gap_{resolution}",
        _SBB,
        "wee 16 256; little 16 256; medium 16 256; betwixt 16 256",
        dict(_REGISTERS, register_tokens=1),
    ),
    Kind(
        "vit_{size}_patch{patch}_reg4_gap_{resolution}",
        f"{_SBB} sbb2_e200_in12k sbb2_e200_in12k_ft_in1k",
        "little 16 256; medium 16 256; mediumd 16 256,384; betwixt 16 256,384; base 16 256",
        dict(_REGISTERS, register_tokens=4),
        {"base": dict(layer_scale=None)},
    ),
    Kind(
        "vit_{size}_patch{patch}_rope_reg1_gap_{resolution}",
        "sbb_in1k",
        "medium 16 256; mediumd 16 256; base 16 256",
        dict(_SBB_ROPE, register_tokens=1),
        {"mediumd": dict(qkv_bias=False)},
    ),
    Kind(
        "vit_{size}_patch{patch}_rope_reg4_gap_{resolution}",
        "sbb_in1k",
        "betwixt 16 256",
        dict(_SBB_ROPE, register_tokens=4),
    ),
    Kind(
        "vit_{size}_patch{patch}_clip_{resolution}",
        _CLIP_TAGS,
        "xsmall 16 224; medium 16,32 224; betwixt 32 224; base 16 224,384; base 32 224,256,384,448; large 14 224,336; "
        "huge 14 224,336,378; giant 14 224; gigantic 14 224,378",
        _CLIP,
        _CLIP_SIZES,
    ),
    Kind(
        "vit_{size}_patch{patch}_clip_quickgelu_{resolution}",
        "openai laion400m_e32 dfn2b dfn5b metaclip_400m metaclip_2pt5b metaclip2_worldwide",
        "base 16,32 224; large 14 224,336; huge 14 224,378; gigantic 14 224",
        dict(_CLIP, activation="quick_gelu"),
        _CLIP_SIZES,
    ),
    Kind(
        "vit_{size}_patch{patch}_plus_clip_{resolution}",
        "laion400m_e32",
        "base 16 240",
        _CLIP,
        {"base": dict(width=896, heads=14, mlp_dim=3584, num_classes=640)},
    ),
    Kind(
        "vit_{size}_patch{patch}_siglip_{resolution}",
        _WEBLI,
        _SIGLIP_LISTED,
        dict(_SIGLIP, pool="map"),
    ),
    Kind(
        "vit_{size}_patch{patch}_siglip_gap_{resolution}",
        f"{_WEBLI} {_PALI}",
        f"{_SIGLIP_LISTED}; so400m 14 448,896",
        dict(_SIGLIP, pool="mean"),
    ),
    Kind("vit_{size}_patch{patch}_dinov2", "lvd142m", _DINO_LISTED, _DINO2, _GIANT2, resolution=518),
    Kind(
        "vit_{size}_patch{patch}_reg4_dinov2",
        "lvd142m",
        _DINO_LISTED,
        dict(_DINO2, register_tokens=4, class_position=False),
        _GIANT2,
        resolution=518,
    ),
    Kind(
        "vit_{size}_patch{patch}_reg1_tipsv2",
        "webli",
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
        "lvd1689m sat493m",
        "small 16 256; small_plus 16 256; base 16 256; large 16 256; huge_plus 16 256; 7b 16 256",
        dict(_DINO3, qkv_bias=False),
        _DINO3_SIZES,
        resolution=256,
    ),
    Kind(
        "vit_{size}_patch{patch}_dinov3_qkvb",
        "lvd1689m sat493m eupe_lvd1689m",
        "tiny 16 256; small 16 256; small_plus 16 256; base 16 256; large 16 256; huge_plus 16 256",
        _DINO3,
        _DINO3_SIZES,
        resolution=256,
    ),
    Kind(
        "vit_{size}_patch{patch}_lingbot",
        "robbyant",
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
        _AUGREG,
        "tiny 8 224,384",
        dict(backbone=_resnet()),
    ),
    *(
        Kind(f"vit_{{size}}_{name}_{{resolution}}", tags, listed, dict(backbone=_resnet(*depths)), patch=1)
        for name, tags, listed, depths in (
            ("r26_s32", _AUGREG, "small 1 224,384; base 1 224", (2, 2, 2, 2)),
            ("r50_s16", _ORIGINAL, "base 1 224,384", (3, 4, 9)),
            ("r50_s32", _AUGREG, "large 1 224,384", (3, 4, 6, 3)),
        )
    ),
    Kind(
        "flexivit_{size}",
        _FLEXI_TAGS,
        "small 16 240; base 16 240; large 16 240",
        dict(class_position=False),
        resolution=240,
    ),
    Kind(
        "deit_{size}_patch{patch}_{resolution}",
        "fb_in1k",
        "tiny 16 224; small 16 224; base 16 224,384",
        _DEIT,
    ),
    Kind(
        "deit_{size}_distilled_patch{patch}_{resolution}",
        "fb_in1k",
        "tiny 16 224; small 16 224; base 16 224,384",
        dict(_DEIT, distillation_token=True),
    ),
    Kind(
        "deit3_{size}_patch{patch}_{resolution}",
        "fb_in1k fb_in22k_ft_in1k",
        "small 16 224,384; medium 16 224; base 16 224,384; large 16 224,384; huge 14 224",
        _DEIT3,
    ),
    Kind(
        "beit_{size}_patch{patch}_{resolution}",
        "in22k_ft_in22k in22k_ft_in22k_in1k",
        "base 16 224,384; large 16 224,384,512",
        _BEIT,
        {"base": dict(layer_scale=0.1)},
    ),
    Kind(
        "beitv2_{size}_patch{patch}_{resolution}",
        "in1k_ft_in1k in1k_ft_in22k in1k_ft_in22k_in1k",
        "base 16 224; large 16 224",
        dict(_BEIT, preprocessing=NATURAL),
    ),
    Kind(
        "beit3_{size}_patch{patch}_{resolution}",
        "pt indomain_pt in22k_ft_in1k indomain_in22k_ft_in1k",
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
        "in22k_ft_in1k in22k_ft_in22k_in1k clip_ft_in1k m30m_ft_in22k_in1k",
        "large 14 196,336; giant 14 224,336,560",
        _EVA,
        {"large": dict(k_bias=True)},
    ),
    Kind(
        "eva_{size}_patch{patch}_clip_{resolution}",
        "laion400m merged2b",
        "giant 14 224",
        dict(_EVA, pool="cls", pool_norm="before"),
        _CLIP_SIZES,
    ),
    Kind(
        "eva02_{size}_patch{patch}_{resolution}",
        _EVA2_TAGS,
        "tiny 14 224,336; small 14 224,336; base 14 224,448; large 14 224,448",
        _EVA2,
        _EVA2_SIZES,
    ),
    Kind(
        "eva02_{size}_patch{patch}_clip_{resolution}",
        "merged2b",
        "base 16 224; large 14 224,336",
        dict(_EVA2, pool="cls", pool_norm="before", attention_norm=True),
        {size: _EVA2_SIZES[size] | _CLIP_SIZES[size] for size in ("base", "large")},
    ),
)
