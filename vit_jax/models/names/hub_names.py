"""Names of transformers' checkpoints on the Hugging Face hub (`facebook/dinov2-base`). Needs no jax.

What loads a checkpoint reads its `config.json`; this table says the same without a network. Facts are those of
transformers 5 and of the papers; the numbers differ from timm's of the same weights where transformers computes
otherwise (epsilons, activation, resampling of positions, preprocessing).
"""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from vit_jax.models.names.timm_kinds import SIZES
from vit_jax.models.preprocessing import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    INCEPTION_MEAN,
    INCEPTION_STD,
    Preprocessing,
)
from vit_jax.models.vit.config import ViTConfig

_HALF = Preprocessing(INCEPTION_MEAN, INCEPTION_STD, "bilinear", 1.0, "squash")
_NATURAL = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bilinear", 1.0, "squash")

# `small` and its like, or the letter that stands for it.
_LETTERS = {"s": "small", "b": "base", "l": "large", "h": "huge", "g": "giant"}
_NUMBER = r"([1-9]\d*)"


def resolve(name: str) -> ViTConfig | None:
    """Return the configuration of a Vision Transformer of transformers; None if there is no such name."""
    for pattern, build in _NAMES:
        match = re.fullmatch(pattern, name)
        if match:
            return build(*match.groups(default=""))
    return None


def vit(size: str, patch: str | int, resolution: str | int, **fields: Any) -> ViTConfig:
    """Return a Vision Transformer as transformers has them, with fields of its own."""
    side, patch = int(resolution), int(patch)
    defaults = dict(
        norm_epsilon=1e-12,
        resample_antialias=False,
        init="trunc_normal",
        num_classes=0,
        preprocessing=_NATURAL,
    )
    return ViTConfig(
        image_size=(side, side), patch_size=(patch, patch), **{**SIZES[size], **defaults, **fields}
    )


def _google(size: str, patch: str, resolution: str, pretrained: str) -> ViTConfig:
    head = dict(representation_size=SIZES[size]["width"]) if pretrained else dict(num_classes=1000)
    return vit(size, patch, resolution, preprocessing=_HALF, **head)


def _deit(size: str, distilled: str, patch: str, resolution: str) -> ViTConfig:
    resized = int(resolution) * 8 // 7  # 256 for 224, 438 for 384
    preprocessing = Preprocessing(
        IMAGENET_MEAN, IMAGENET_STD, "bicubic", int(resolution) / resized, "squash", "down"
    )
    return vit(
        size,
        patch,
        resolution,
        num_classes=1000,
        distillation_token=bool(distilled),
        preprocessing=preprocessing,
    )


def _msn(size: str, patch: str) -> ViTConfig:
    return vit(size, patch or 16, 224, norm_epsilon=1e-6)


def _dino(letter: str, patch: str) -> ViTConfig:
    return vit(_LETTERS[letter], patch, 224)


def _dinov2(registers: str, size: str, classifier: str) -> ViTConfig:
    gated = dict(width=1536, heads=24, mlp="swiglu", mlp_dim=4096) if size == "giant" else {}
    return vit(
        size,
        14,
        518,
        norm_epsilon=1e-6,
        layer_scale=1.0,
        mask_token=True,
        register_tokens=4 if registers else 0,
        resample_antialias=bool(registers),
        preprocessing=Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bicubic", 0.875, "center", "down"),
        **(dict(num_classes=1000, pool="cls_mean") if classifier else {}),
        **gated,
    )


def _dinov3(letter: str, plus: str, data: str) -> ViTConfig:
    size = _LETTERS.get(letter, letter) + ("_plus" if plus else "")
    preprocessing = _NATURAL
    if data == "sat493m":
        preprocessing = dataclasses.replace(_NATURAL, mean=(0.43, 0.411, 0.296), std=(0.213, 0.156, 0.143))
    return vit(
        size,
        16,
        224,
        norm_epsilon=1e-5,
        layer_scale=1.0,
        mask_token=True,
        register_tokens=4,
        position="none",
        rope="dinov3",
        dynamic_image_size=True,
        qkv_bias=size != "7b",
        k_bias=False,
        mlp="swiglu" if "plus" in size or size == "7b" else "mlp",
        preprocessing=preprocessing,
    )


def _beit(size: str, resolution: str, tuned: str) -> ViTConfig:
    fields: dict[str, Any] = dict(pool="mean", pool_norm="after", position_bias="blocks", num_classes=1000)
    if tuned == "-pt22k":
        fields = dict(pool="patches", position_bias="shared", num_classes=8192, mask_token=True)
    elif tuned.endswith("-ft22k"):
        fields.update(num_classes=21841)
    return vit(
        size,
        16,
        resolution,
        position="none",
        k_bias=False,
        layer_scale=0.1 if size == "base" else 1e-5,
        preprocessing=_HALF,
        **fields,
    )


def _data2vec(size: str, tuned: str) -> ViTConfig:
    config = _beit(size, "224", "")
    preprocessing = dataclasses.replace(_HALF, mean=IMAGENET_MEAN, std=IMAGENET_STD)
    if tuned:
        return dataclasses.replace(config, preprocessing=preprocessing)
    return dataclasses.replace(
        config, position_bias="shared", num_classes=0, mask_token=True, preprocessing=preprocessing
    )


def _ijepa(letter: str, patch: str, data: str) -> ViTConfig:
    resolution = 448 if (letter, patch) == ("h", "16") else 224
    return vit(_LETTERS[letter], patch, resolution, norm_epsilon=1e-6, class_token=False, pool="mean")


_SIZE = "(tiny|small|base|large|huge|giant)"
_NAMES: tuple[tuple[str, Callable[..., ViTConfig]], ...] = (
    (rf"google/vit-{_SIZE}-patch{_NUMBER}-{_NUMBER}(-in21k)?", _google),
    (r"facebook/deit-(tiny|small|base)(-distilled)?-patch(16)-(224|384)", _deit),
    (r"facebook/vit-msn-(small|base|large)(?:-(4|7))?", _msn),
    (r"facebook/dino-vit([sb])(8|16)", _dino),
    (r"facebook/dinov2-(with-registers-)?(small|base|large|giant)(-imagenet1k-1-layer)?", _dinov2),
    (r"facebook/dinov3-vit(s|b|l|h|7b)16(plus)?-pretrain-(lvd1689m|sat493m)", _dinov3),
    (r"facebook/data2vec-vision-(base|large)(-ft1k)?", _data2vec),
    (r"facebook/ijepa_vit([hg])(14|16)_(1k|22k)", _ijepa),
    (r"microsoft/beit-(base|large)-patch16-(224|384|512)((?:-pt22k)?(?:-ft22k)?)", _beit),
)
