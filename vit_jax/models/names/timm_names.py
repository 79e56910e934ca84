"""Names of timm: architectures (`vit_base_patch16_clip_224`), with or without a tag (`.openai`). Needs no jax.

A tag says which weights are meant, and with them the number of classes and the preprocessing; these follow from
rules, of which later ones go first.
"""

import dataclasses
import re
from functools import cache
from typing import Any

from vit_jax.models.names.later_kinds import LATER
from vit_jax.models.names.published import timm_tags
from vit_jax.models.names.timm_kinds import HALF, SIZES, UNIT, Kind
from vit_jax.models.names.timm_kinds import KINDS as FIRST
from vit_jax.models.preprocessing import (
    CLIP_MEAN,
    CLIP_STD,
    IMAGENET_MEAN,
    IMAGENET_STD,
    INCEPTION_MEAN,
    INCEPTION_STD,
    covered,
)
from vit_jax.models.vit.config import ViTConfig

KINDS = (*FIRST, *LATER)

SATELLITE_MEAN = (0.43, 0.411, 0.296)
SATELLITE_STD = (0.213, 0.156, 0.143)

# Number of classes, by the end of the tag; what says nothing has what the kind has.
_CLASSES = (
    (r"(orig|mim)_in2.k|mim_m38m|dino|mae|.*_?pt", 0),
    (r".*in1k", 1000),
    (r".*in12k", 11821),
    (r".*ft_in22k", 21841),
    (r"(augreg|\d+ep|patch\d+)_in21k", 21843),
    (r"in21k", 11221),  # the cleaned classes of Ridnik et al. 2021, arXiv 2104.10972
    (r"bamboo", 115217),
)

# Fields of architectures that their kind does not say.
_FIELDS: tuple[tuple[str, dict[str, Any]], ...] = (
    (
        r"vit_(base_patch32|giantopt_patch16|so400m_patch16)_siglip_.*|vit_large_patch16_siglip_(gap_)?512",
        dict(activation="gelu_tanh"),
    ),
)

_HALF = dict(mean=INCEPTION_MEAN, std=INCEPTION_STD)
_NATURAL = dict(mean=IMAGENET_MEAN, std=IMAGENET_STD)
_CLIP_COLOURS = dict(mean=CLIP_MEAN, std=CLIP_STD)
_SQUASH = dict(crop_mode="squash")

# Preprocessing, by name with tag and least resolution; all that match apply, in this order.
_PREPROCESSING: tuple[tuple[str, int, dict[str, Any]], ...] = (
    (r"vit_[a-z0-9]+_(patch\d+|r\d*_s\d+(_p\d+)?)_\d+.*|(deit|beit_).*", 378, dict(crop=1.0)),
    (r".*\.(dino|mae)", 0, _NATURAL),
    (r".*\.bamboo", 0, dict(**_CLIP_COLOURS, crop=1.0)),
    (r".*_miil.*", 0, dict(mean=UNIT.mean, std=UNIT.std, interpolation="bilinear", crop=0.875)),
    (r"flexivit.*", 0, dict(crop=0.95)),
    (r"deit3.*\.fb_in22k_ft_in1k", 0, dict(crop=1.0)),
    (r".*\.sat493m", 0, dict(mean=SATELLITE_MEAN, std=SATELLITE_STD)),
    # mean pooling
    (r".*\.in1k_ijepa|.*_reg4_gap.*", 378, dict(crop=1.0)),
    (r"vit_medium_patch16_gap.*", 378, _SQUASH),
    (r"vit_so150m2_.*", 0, dict(crop=1.0)),
    (r"vit_so150m2_.*", 448, _SQUASH),
    (r"vit_betwixt_.*_rope_.*", 0, _CLIP_COLOURS),
    (r".*_siglip_gap_.*\.pali.*", 448, dict(crop=1.0)),
    (r"vit_so400m_.*_siglip_gap_.*\.webli", 378, dict(crop=1.0)),
    (r".*\.webli_ft_in1k", 0, dict(**_SQUASH, crop=1.0)),
    # BEiT and EVA
    (r"beitv2_large.*in1k", 0, dict(crop=0.95)),
    (r"eva_large.*", 0, dict(crop=1.0)),
    (r"eva_(large|giant).*", 336, dict(**_SQUASH, crop=1.0)),
    (r".*\.m30m.*", 0, _NATURAL),
    (r"eva02.*", 336, dict(crop=1.0)),
    (r"eva02.*_ft_in22k.*", 0, _SQUASH),
    # CLIP
    (r"vit_large_.*_clip_.*\.laion2b.*", 0, _HALF),
    (r".*_clip_.*\.(.*in1k|metaclip2_worldwide)", 336, _SQUASH),
    (r"vit_base_patch32_clip_.*\.laion2b.*", 336, dict(crop_mode="center")),
    (r"vit_base_.*_clip_(quickgelu_)?224\.(openai(_ft_in1k|_ft_in12k)?|laion2b_ft_in12k)", 0, dict(crop=0.9)),
    (r"vit_base_patch32_clip_(quickgelu_)?224\.laion.*|.*\.tinyclip.*", 0, dict(crop=0.9)),
    (
        r"vit_base_patch16_clip_224\..*in12k_in1k|vit_base_.*_clip_384\.openai_ft_in12k_in1k",
        0,
        dict(crop=0.95),
    ),
)


def architectures() -> list[str]:
    """Return the listed names, without tags."""
    names = []
    for kind in KINDS:
        for entry in kind.listed.split("; "):
            size, patches, resolutions = entry.split()
            for patch in patches.split(","):
                for resolution in resolutions.split(","):
                    names.append(kind.pattern.format(size=size, patch=patch, resolution=resolution))
    return names


def resolve(name: str) -> ViTConfig | None:
    """Return the configuration of a name of timm, with or without a tag; None if there is no such name."""
    architecture, _, tag = name.partition(".")
    for kind in KINDS:
        match = _regex(kind.pattern, (*kind.sizes,)).fullmatch(architecture)
        if match and (name == architecture or tag in _tags(kind.pattern, (*kind.sizes,))):
            return _config(kind, match.groupdict(), architecture, tag)
    return None


def _config(kind: Kind, parts: dict[str, str], architecture: str, tag: str) -> ViTConfig:
    size = parts.get("size", kind.size)
    patch, resolution = int(parts.get("patch", kind.patch)), int(parts.get("resolution", kind.resolution))
    fields: dict[str, Any] = (
        SIZES.get(size, {}) | dict(preprocessing=HALF) | kind.changes | kind.sizes.get(size, {})
    )
    for pattern, changes in _FIELDS:
        if re.fullmatch(pattern, architecture):
            fields |= changes
    classes = next((classes for pattern, classes in _CLASSES if re.fullmatch(pattern, tag)), None)
    if classes is not None:
        fields["num_classes"] = classes
    preprocessing = fields["preprocessing"]
    for pattern, least, changes in _PREPROCESSING:
        if resolution >= least and re.fullmatch(pattern, f"{architecture}.{tag}" if tag else architecture):
            preprocessing = dataclasses.replace(preprocessing, **changes)
    image_size = (resolution, resolution)
    if "siglip" in kind.pattern:  # so400m_patch14 at 384
        preprocessing, image_size = covered(preprocessing, image_size, (patch, patch))
    fields["preprocessing"] = preprocessing
    return ViTConfig(**{"image_size": image_size, "patch_size": (patch, patch), **fields})


@cache
def _tags(pattern: str, sizes: tuple[str, ...]) -> set[str]:
    """Return the tags of all published architectures of a kind: what they say goes with any patch and resolution."""
    regex = _regex(pattern, sizes)
    return {tag for name, tags in timm_tags().items() if regex.fullmatch(name) for tag in tags}


@cache
def _regex(pattern: str, sizes: tuple[str, ...]) -> re.Pattern[str]:
    number = r"[1-9]\d*"
    return re.compile(
        pattern.format(
            size=f"(?P<size>{'|'.join((*SIZES, *sizes))})",
            patch=f"(?P<patch>{number})",
            resolution=f"(?P<resolution>{number})",
        )
    )
