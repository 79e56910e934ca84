"""Names of ResNets: torchvision's and timm's, and transformers' repositories. Needs no jax."""

import dataclasses

from vit_jax.models.resnet.config import PREPROCESSING, SIZES, ResNetConfig

_REPOSITORIES = ("18", "26", "34", "50", "101", "152")
_PAPER = ("18", "34", "50", "101", "152")


def resolve(name: str) -> tuple[str, ResNetConfig] | None:
    """Return the canonical name and the configuration of a ResNet; None if there is no such name."""
    if name.startswith("microsoft/resnet-"):
        size = name.removeprefix("microsoft/resnet-")
        if size not in _REPOSITORIES:
            return None
        preprocessing = dataclasses.replace(PREPROCESSING, interpolation="bicubic", crop_rounding="down")
        return name, ResNetConfig(**SIZES[f"resnet{size}"], preprocessing=preprocessing)
    canonical = name.lower().replace("-", "") if name in aliases() else name
    return (canonical, ResNetConfig(**SIZES[canonical])) if canonical in SIZES else None


def architectures() -> list[str]:
    """Return the listed names."""
    return list(SIZES)


def aliases() -> list[str]:
    """Return the paper's names."""
    return [f"ResNet-{size}" for size in _PAPER]


def published() -> list[str]:
    """Return the names of repositories in transformers' layout."""
    return [f"microsoft/resnet-{size}" for size in _REPOSITORIES]
