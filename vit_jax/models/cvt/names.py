"""Names of CvTs: the paper's, and transformers' repositories. Needs no jax.

`cvt-13`, `cvt-21`, `cvt-w24`           the authors' models, whose activation is `quick_gelu`
`CvT-13`, `CvT-21@384`, `CvT-W24@384`   the same (Wu et al. 2021, arXiv 2103.15808)
`microsoft/cvt-13-384-22k`              transformers', whose activation is `gelu`
"""

import dataclasses
import re

from vit_jax.models.cvt.config import PREPROCESSING, SIZES, CvtConfig

_PUBLISHED = ("13", "21", "13-384", "21-384", "13-384-22k", "21-384-22k", "w24-384-22k")
_AUTHORS = re.compile(rf"(?:cvt|CvT)-({'|'.join(SIZES)}|W24)(?:@([1-9]\d*))?")
# transformers' processor crops images of less than 384 pixels, and squashes others.
SQUASH = dataclasses.replace(PREPROCESSING, crop=1.0, crop_mode="squash")


def resolve(name: str) -> tuple[str, CvtConfig] | None:
    """Return the canonical name and the configuration of a CvT; None if there is no such name."""
    if name.startswith("microsoft/cvt-"):
        return _repository(name)
    match = _AUTHORS.fullmatch(name)
    if match is None:
        return None
    size, usual = match[1].lower(), _pixels(match[1].lower())
    side = int(match[2] or usual)
    canonical = f"cvt-{size}" if side == usual else f"cvt-{size}@{side}"
    return canonical, CvtConfig(image_size=(side, side), activation="quick_gelu", **SIZES[size])


def architectures() -> list[str]:
    """Return the listed names."""
    return [f"cvt-{size}" for size in SIZES]


def aliases() -> list[str]:
    """Return the paper's names."""
    return [f"CvT-{size.upper()}" for size in SIZES]


def published() -> list[str]:
    """Return the names of repositories in transformers' layout; those of 22k were tuned to ImageNet's 1000 classes."""
    return [f"microsoft/cvt-{name}" for name in _PUBLISHED]


def _repository(name: str) -> tuple[str, CvtConfig] | None:
    if name not in published():
        return None
    size, *words = name.removeprefix("microsoft/cvt-").split("-")
    side = int(words[0]) if words else 224
    preprocessing = SQUASH if side >= 384 else dataclasses.replace(PREPROCESSING, crop_rounding="down")
    return name, CvtConfig(image_size=(side, side), preprocessing=preprocessing, **SIZES[size])


def _pixels(size: str) -> int:
    return 384 if size == "w24" else 224
