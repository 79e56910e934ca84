"""Names of Hieras: the papers' `Hiera-B+`, timm's `hiera_base_plus_224`, and those of the hub. Needs no jax.

`hiera_base_224[.mae_in1k_ft_in1k]`               timm's; `hiera_small_abswin_256` with positions by mask unit
`facebook/hiera-base-224-in1k-hf`                 transformers' on the hub; `-hf` without classes
`facebook/hiera_base_224.mae_in1k_ft_in1k`        the authors' on the hub
"""

import dataclasses
import re
from typing import Any

from vit_jax.models.hiera.config import SIZES, HieraConfig
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing

LETTERS = {"T": "tiny", "S": "small", "B": "base", "B+": "base_plus", "L": "large", "H": "huge"}
_CHECKPOINTS = ("mae_in1k_ft_in1k", "mae_in1k")
# Classes by timm's tags; what is not here has those of ImageNet-1k.
_CLASSES = {"mae": 0, "sbb2_e200_in12k": 11821, "sbb2_pd_e200_in12k": 11821}
_ABSWIN = {"small": dict(shortcut="pool", position_grid=(16, 16)), "base": dict(position_grid=(14, 14))}
_TAGS = {
    **{f"hiera_{size}_224": ("mae", "mae_in1k_ft_in1k") for size in SIZES},
    "hiera_small_abswin_256": (
        "sbb2_e200_in12k", "sbb2_e200_in12k_ft_in1k", "sbb2_pd_e200_in12k", "sbb2_pd_e200_in12k_ft_in1k",
    ),
}  # fmt: skip
_TIMM = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bicubic", 0.9)
# What the authors evaluated with, and what transformers' files say.
AUTHORS = Preprocessing(IMAGENET_MEAN, IMAGENET_STD, "bicubic", 224 / 256)
TRANSFORMERS = dataclasses.replace(AUTHORS, crop_rounding="down")


def architectures() -> list[str]:
    """Return timm's names without tags."""
    return [*(f"hiera_{size}_224" for size in SIZES), *(f"hiera_{size}_abswin_256" for size in _ABSWIN)]


def tags() -> dict[str, tuple[str, ...]]:
    """Return timm's tags of published weights, by architecture; those of timm 1.0.31."""
    return _TAGS


def aliases() -> list[str]:
    """Return the paper's names."""
    return [f"Hiera-{letter}" for letter in LETTERS]


def others() -> list[str]:
    """Return the names of published weights on the hub that are not timm's."""
    sizes = [size.replace("_", "-") for size in SIZES]
    theirs = [f"facebook/hiera-{size}-224{kind}-hf" for size in sizes for kind in ("", "-in1k")]
    return theirs + [f"facebook/hiera_{size}_224.{tag}" for size in SIZES for tag in _CHECKPOINTS]


def resolve(name: str) -> tuple[str, HieraConfig] | None:
    """Return the canonical name and the configuration of a Hiera; None if there is no such name."""
    if match := re.fullmatch(r"(?i:hiera)-([A-Za-z]\+?)", name):
        size = LETTERS.get(match[1].upper())
        return _architecture(f"hiera_{size}_224", "") if size else None
    if match := re.fullmatch(r"facebook/hiera-([a-z-]+?)-224(-in1k)?-hf", name):
        size, classes = match[1].replace("-", "_"), 1000 if match[2] else 0
        if size not in SIZES:
            return None
        return name, HieraConfig(**SIZES[size], num_classes=classes, preprocessing=TRANSFORMERS)
    if match := re.fullmatch(rf"facebook/hiera_([a-z_]+)_224\.({'|'.join(_CHECKPOINTS)})", name):
        classes = 1000 if "_ft_" in match[2] else 0
        if match[1] not in SIZES:
            return None
        return name, HieraConfig(**SIZES[match[1]], num_classes=classes, preprocessing=AUTHORS)
    architecture, dot, tag = name.partition(".")
    return (
        None
        if dot and tag not in _TAGS.get(_default_size(architecture), ())
        else _architecture(architecture, tag)
    )


def _architecture(name: str, tag: str) -> tuple[str, HieraConfig] | None:
    match = re.fullmatch(r"hiera_([a-z_]+?)(_abswin)?_([1-9]\d*)", name)
    known = match and match[1] in (_ABSWIN if match[2] else SIZES)
    if not match or not known:
        return None
    fields: dict[str, Any] = dict(SIZES[match[1]], preprocessing=_TIMM)
    if match[2]:
        fields |= dict(position="window", resample_antialias=True, layer_scale=1e-5, **_ABSWIN[match[1]])
        fields["preprocessing"] = dataclasses.replace(_TIMM, crop=0.95)
    side = int(match[3])
    config = HieraConfig(image_size=(side, side), num_classes=_CLASSES.get(tag, 1000), **fields)
    return (f"{name}.{tag}" if tag else name), config


def _default_size(architecture: str) -> str:
    """Return an architecture with the resolution that its weights are published in: they go with any."""
    side = 256 if "_abswin_" in architecture else 224
    return re.sub(r"_\d+$", f"_{side}", architecture)
