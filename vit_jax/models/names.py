"""Names of models: timm's (`vit_base_patch16_224`) and the papers' (`ViT-B/16`). Needs no jax.

A name says family, size, patch and resolution; any patch and any resolution parse, and the usual combinations
are listed. Families:

  `vit`    Dosovitskiy et al. 2020, arXiv 2010.11929
  `deit`   the same network with ImageNet preprocessing and another initialisation (Touvron et al. 2020, arXiv
           2012.12877)
  `deit3`  also without a position for the class token, and with scaled residual branches (Touvron et al.
           2022, arXiv 2204.07118)
"""

import dataclasses
import fnmatch
import re
from typing import Any

from vit_jax.errors import ConfigError, nearest
from vit_jax.models.preprocessing import IMAGENET_MEAN, IMAGENET_STD, Preprocessing
from vit_jax.models.vit_config import SIZES, ViTConfig

FAMILIES: dict[str, dict[str, Any]] = {
    "vit": {},
    "deit": dict(init="trunc_normal", preprocessing=Preprocessing(IMAGENET_MEAN, IMAGENET_STD)),
    "deit3": dict(
        init="trunc_normal",
        class_position=False,
        layer_scale=1e-6,  # timm's; 1e-4 in the official code. It is only where training starts.
        drop_path_schedule="constant",
        preprocessing=Preprocessing(IMAGENET_MEAN, IMAGENET_STD),
    ),
}

LETTERS = {
    "mu": "mu",
    "Ti": "tiny",
    "S": "small",
    "M": "medium",
    "B": "base",
    "L": "large",
    "H": "huge",
    "So400m": "so400m",
    "g": "giant",
    "g-opt": "giantopt",
    "G": "gigantic",
    "e": "enormous",
}

# Family, size, patch sizes, resolutions.
_LISTED = (
    ("vit", "mu", (16,), (224,)),
    ("vit", "tiny", (16,), (224, 384)),
    ("vit", "small", (8,), (224,)),
    ("vit", "small", (16, 32), (224, 384)),
    ("vit", "medium", (16,), (224,)),
    ("vit", "base", (8,), (224,)),
    ("vit", "base", (16, 32), (224, 384)),
    ("vit", "large", (14,), (224,)),
    ("vit", "large", (16, 32), (224, 384)),
    ("vit", "huge", (14, 16), (224,)),
    ("vit", "so400m", (14,), (224, 378)),
    ("vit", "giant", (14,), (224,)),
    ("vit", "giantopt", (16,), (256, 384)),
    ("vit", "gigantic", (14,), (224,)),
    ("vit", "enormous", (14,), (224,)),
    ("deit", "tiny", (16,), (224,)),
    ("deit", "small", (16,), (224,)),
    ("deit", "base", (16,), (224, 384)),
    ("deit3", "small", (16,), (224, 384)),
    ("deit3", "medium", (16,), (224,)),
    ("deit3", "base", (16,), (224, 384)),
    ("deit3", "large", (16,), (224, 384)),
    ("deit3", "huge", (14,), (224,)),
)

_ALIASES = [
    f"ViT-{letter}/{patch}"
    for letter, size in LETTERS.items()
    for family, listed_size, patches, _ in _LISTED
    for patch in patches
    if (family, listed_size) == ("vit", size)
]
_ANY_CASE = {letter.lower(): size for letter, size in LETTERS.items() if letter[0] not in "gG"}

_NAME = re.compile(rf"({'|'.join(FAMILIES)})_({'|'.join(SIZES)})_patch([1-9]\d*)_([1-9]\d*)")
_ALIAS = re.compile(r"(?:(?i:vit)-)?([A-Za-z0-9-]+)/([1-9]\d*)(?:@([1-9]\d*))?")


def list_models(pattern: str = "*") -> list[str]:
    """Return the listed names that match a shell pattern, in natural order (`patch8` before `patch16`).

    Args:
      pattern: with the wildcards `*`, `?` and `[...]`, for example `vit_*_384`.
    """
    names = [
        f"{family}_{size}_patch{patch}_{resolution}"
        for family, size, patches, resolutions in _LISTED
        for patch in patches
        for resolution in resolutions
    ]
    return sorted(fnmatch.filter(names, pattern), key=_natural)


def resolve(name: str) -> tuple[str, ViTConfig]:
    """Return the canonical name and the configuration of a model.

    Args:
      name: `vit_base_patch16_224`, `deit3_small_patch16_384`, `ViT-B/16`, `B/16`, `ViT-B/16@384`. Of the
        papers' letters, `g` (giant) and `G` (gigantic) are different models; elsewhere case does not matter.

    Raises:
      ConfigError: there is no such model (the nearest names are given), or the patch does not divide the
        resolution (the nearest that it divides are given).
    """
    canonical = _from_alias(name)
    match = _NAME.fullmatch(canonical)
    if match is None:
        hint = nearest(name, _ALIASES if "/" in name else list_models())
        raise ConfigError(f"model {name!r} does not exist.{hint} `vit-jax models` lists all.")
    family, size, (patch, resolution) = match[1], match[2], map(int, match.group(3, 4))
    config = ViTConfig(
        image_size=(resolution, resolution), patch_size=(patch, patch), **SIZES[size], **FAMILIES[family]
    )
    # As timm evaluates: no margin at high resolution. 378 is what patches of 14 make of 384.
    crop = 1.0 if resolution >= 378 else 0.9
    return canonical, dataclasses.replace(
        config, preprocessing=dataclasses.replace(config.preprocessing, crop=crop)
    )


def _from_alias(name: str) -> str:
    """Return `vit_base_patch16_384` for `ViT-B/16@384`, and any other text as it is."""
    match = _ALIAS.fullmatch(name)
    if match is None:
        return name
    letter, patch, resolution = match.groups(default="224")
    size = LETTERS.get(letter) or _ANY_CASE.get(letter.lower())
    return f"vit_{size}_patch{patch}_{resolution}" if size else name


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
