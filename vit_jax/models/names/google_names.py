"""Paths of Google's checkpoints: `gs://vit_models/augreg/....npz`, `gs://big_vision/...`. Needs no jax.

Where pixels are resized, Google's code resizes both sides, bilinearly. All compute the tanh approximation of GELU,
and positions go to other grids by `zoom`. Sources: Dosovitskiy et al. 2020 (arXiv 2010.11929) for `imagenet21k`;
Steiner et al. 2021 (arXiv 2106.10270) for `augreg`; Chen et al. 2021 (arXiv 2106.01548) for `sam`; Zhuang et al. 2022
(arXiv 2203.08065) for `gsam`; Beyer et al. 2022 (arXiv 2205.01580) for `vit_s16_i1k`; Touvron et al. 2022 (arXiv
2204.07118) for `deit3`; Zhai et al. 2023 (arXiv 2303.15343) for `siglip`.
"""

import dataclasses
import re
from typing import Any

from vit_jax.models.preprocessing import INCEPTION_MEAN, INCEPTION_STD, Preprocessing
from vit_jax.models.vit.config import SIZES, ViTConfig
from vit_jax.models.vit.resnet_config import ResNetConfig

_BUCKET = re.compile(r"(?:gs://|https?://storage\.googleapis\.com/)?(vit_models|big_vision)/(.+?)(?:\.npz)?")
_SQUASH = Preprocessing(INCEPTION_MEAN, INCEPTION_STD, "bilinear", 1.0, "squash")
_LETTERS = dict(Ti="tiny", S="small", B="base", L="large", H="huge")
_CHANNELS = (256, 512, 1024, 2048)
_DEPTHS = {"R_": (), "R26_": (2, 2, 2, 2), "R50_": (3, 4, 6, 3)}

# What AugReg's checkpoints were fine-tuned to tell apart.
_CLASSES = dict(
    imagenet2012=1000,
    cifar10=10,
    cifar100=100,
    oxford_iiit_pet=37,
    oxford_flowers102=102,
    resisc45=45,
    kitti=4,
)


def resolve(name: str) -> tuple[str, ViTConfig] | None:
    """Return the path in full and the configuration; None if the name is no known path in these buckets."""
    match = _BUCKET.fullmatch(name)
    if match is None:
        return None
    bucket, path = match.groups()
    config = (_vit_models if bucket == "vit_models" else _big_vision)(path)
    return None if config is None else (f"gs://{bucket}/{path}.npz", config)


def _vit_models(path: str) -> ViTConfig | None:
    folder, _, file = path.partition("/")
    if folder == "augreg":
        return _augreg(file)
    match = re.fullmatch(r"(?:R(50|26)\+)?ViT-([SBLH])_(8|14|16|32)(-224)?", file)
    if match is None:
        return None
    blocks, letter, patch, low = match.groups()
    backbone, p = None, int(patch)
    if blocks:
        # R50+ViT-B/16 ends one stage earlier, to have patches of 16 pixels.
        depths = (3, 4, 9) if (blocks, patch) == ("50", "16") else _DEPTHS[f"R{blocks}_"]
        backbone, p = ResNetConfig(depths, _CHANNELS[: len(depths)]), 1
    if folder == "imagenet21k" and not low:
        width = SIZES[_LETTERS[letter]]["width"]
        return _vit(letter, p, 224, backbone=backbone, num_classes=21843, representation_size=width)
    if folder == "imagenet21k+imagenet2012":
        return _vit(letter, p, 224 if low else 384, backbone=backbone)
    return _vit(letter, p, 224) if folder in ("sam", "gsam") and not blocks and not low else None


def _augreg(file: str) -> ViTConfig | None:
    pretraining, _, tuning = file.partition("--")
    match = re.fullmatch(r"(R_|R26_|R50_)?(Ti|S|B|L)_(8|16|32)-(i21k|i1k)(?:-.*)?", pretraining)
    if match is None:
        return None
    stem, letter, patch, data = match.groups()
    classes, resolution = (21843 if data == "i21k" else 1000), 224
    if tuning:
        tuned = re.fullmatch(rf"({'|'.join(_CLASSES)})-.*?res_(\d+)(?:-.*)?", tuning)
        if tuned is None:
            return None
        classes, resolution = _CLASSES[tuned[1]], int(tuned[2])
    backbone, p = None, int(patch)
    if stem:
        depths = _DEPTHS[stem]
        # R+Ti/16 has patches of 8 on a map of stride 4: 32 pixels.
        backbone, p = ResNetConfig(depths, _CHANNELS[: len(depths)]), 1 if depths else 8
    return _vit(letter, p, resolution, backbone=backbone, num_classes=classes)


def _big_vision(path: str) -> ViTConfig | None:
    if re.fullmatch(r"vit_s16_i1k_(90|150|300)ep", path):
        crop = dataclasses.replace(_SQUASH, crop=0.875, crop_mode="center", crop_rounding="down")
        return _vit(
            "S",
            16,
            224,
            class_token=False,
            pool="mean",
            position="sincos2d_big_vision",
            representation_size=384,
            preprocessing=crop,
        )
    match = re.fullmatch(r"zoo/deit3/bv_deit_3_(small|base|large)_(224|384)_(1k|21k)", path)
    if match:
        crop = dataclasses.replace(_SQUASH, interpolation="bicubic", crop_mode="center")
        letter = match[1][0].upper()
        return _vit(letter, 16, int(match[2]), class_position=False, preprocessing=crop)
    return None


def _vit(letter: str, patch: int, resolution: int, **fields: Any) -> ViTConfig:
    fields = dict(activation="gelu_tanh", resample="zoom", preprocessing=_SQUASH) | fields
    return ViTConfig(
        image_size=(resolution, resolution), patch_size=(patch, patch), **SIZES[_LETTERS[letter]], **fields
    )
