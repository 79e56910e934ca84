"""Names of Swin Transformers: the papers', timm's, transformers' and torchvision's. Needs no jax.

  `Swin-B`, `Swin-B@384`, `SwinV2-T`            the papers' (arXiv 2103.14030, 2111.09883)
  `swin_tiny_patch4_window7_224[.ms_in1k]`      timm's; a tag says the classes
  `microsoft/swinv2-tiny-patch4-window8-256`    transformers' on the Hugging Face hub
  `swin_t`, `swin_v2_t`                         torchvision's

The weights of one model compute otherwise in each library where windows do not divide a map, see `models.swin.fitting`.
"""

import dataclasses
import re
from typing import Any

from vit_jax.models.preprocessing import IMAGENET, Preprocessing
from vit_jax.models.swin.config import SIZES, VERSION_2, SwinConfig

TAGS: dict[str, tuple[str, ...]] = {
    "swin_tiny_patch4_window7_224": ("ms_in1k", "ms_in22k_ft_in1k", "ms_in22k"),
    "swin_small_patch4_window7_224": ("ms_in22k_ft_in1k", "ms_in1k", "ms_in22k"),
    "swin_base_patch4_window7_224": ("ms_in22k_ft_in1k", "ms_in1k", "ms_in22k"),
    "swin_base_patch4_window12_384": ("ms_in22k_ft_in1k", "ms_in1k", "ms_in22k"),
    "swin_large_patch4_window7_224": ("ms_in22k_ft_in1k", "ms_in22k"),
    "swin_large_patch4_window12_384": ("ms_in22k_ft_in1k", "ms_in22k"),
    "swin_s3_tiny_224": ("ms_in1k",),
    "swin_s3_small_224": ("ms_in1k",),
    "swin_s3_base_224": ("ms_in1k",),
    "swinv2_tiny_window8_256": ("ms_in1k",),
    "swinv2_tiny_window16_256": ("ms_in1k",),
    "swinv2_small_window8_256": ("ms_in1k",),
    "swinv2_small_window16_256": ("ms_in1k",),
    "swinv2_base_window8_256": ("ms_in1k",),
    "swinv2_base_window16_256": ("ms_in1k",),
    "swinv2_base_window12_192": ("ms_in22k",),
    "swinv2_base_window12to16_192to256": ("ms_in22k_ft_in1k",),
    "swinv2_base_window12to24_192to384": ("ms_in22k_ft_in1k",),
    "swinv2_large_window12_192": ("ms_in22k",),
    "swinv2_large_window12to16_192to256": ("ms_in22k_ft_in1k",),
    "swinv2_large_window12to24_192to384": ("ms_in22k_ft_in1k",),
}
HUB = (
    *(f"microsoft/swin-{size}-patch4-window7-224" for size in SIZES),
    *(f"microsoft/swin-{size}-patch4-window12-384" for size in ("base", "large")),
    *(
        f"microsoft/swin-{size}-patch4-{windows}-in22k"
        for size in ("base", "large")
        for windows in ("window7-224", "window12-384")
    ),
    "microsoft/swin-base-simmim-window6-192",  # the large one's last map is smaller than its windows
    *(
        f"microsoft/swinv2-{size}-patch4-window{window}-256"
        for size in ("tiny", "small", "base")
        for window in (8, 16)
    ),
    *(
        f"microsoft/swinv2-{size}-patch4-{windows}"
        for size in ("base", "large")
        for windows in (
            "window12-192-22k",
            "window12to16-192to256-22kto1k-ft",
            "window12to24-192to384-22kto1k-ft",
        )
    ),
)
ALIASES = {
    "Swin-T": "swin_tiny_patch4_window7_224",
    "Swin-S": "swin_small_patch4_window7_224",
    "Swin-B": "swin_base_patch4_window7_224",
    "Swin-B@384": "swin_base_patch4_window12_384",
    "Swin-L": "swin_large_patch4_window7_224",
    "Swin-L@384": "swin_large_patch4_window12_384",
    "SwinV2-T": "swinv2_tiny_window8_256",
    "SwinV2-S": "swinv2_small_window8_256",
    "SwinV2-B": "swinv2_base_window8_256",
    "SwinV2-B@384": "swinv2_base_window12to24_192to384",
    "SwinV2-L": "swinv2_large_window12to16_192to256",
    "SwinV2-L@384": "swinv2_large_window12to24_192to384",
}
# Windows of the searched models by stage, and blocks of the third one.
_SEARCHED = {"tiny": ((7, 7, 14, 7), 6), "small": ((14, 14, 14, 7), 18), "base": ((7, 7, 14, 7), 30)}
# Of torchvision's: the size that images are resized to.
_TORCHVISION = {
    "swin_t": 232,
    "swin_s": 246,
    "swin_b": 238,
    "swin_v2_t": 260,
    "swin_v2_s": 260,
    "swin_v2_b": 272,
}

_SIZE, _NUMBER = f"({'|'.join(SIZES)})", r"([1-9]\d*)"
_FIRST = re.compile(rf"swin_{_SIZE}_patch{_NUMBER}_window{_NUMBER}_{_NUMBER}")
_S3 = re.compile(rf"swin_s3_(tiny|small|base)_{_NUMBER}")
_SECOND = re.compile(rf"swinv2_{_SIZE}_window{_NUMBER}(?:to{_NUMBER})?_{_NUMBER}(?:to{_NUMBER})?")
_HUB = re.compile(
    rf"microsoft/swin(v2)?-{_SIZE}-(?:patch4|(simmim))-window{_NUMBER}(?:to{_NUMBER})?-{_NUMBER}(?:to{_NUMBER})?"
    r"(-(?:in22k|22k))?(?:-22kto1k-ft)?"
)


def resolve(name: str) -> tuple[str, SwinConfig] | None:
    """Return the canonical name and the configuration of a Swin Transformer; None if there is no such name."""
    name = ALIASES.get(name, name)
    config = _timm(name) or _hub(name) or torchvision(name)
    return None if config is None else (name, config)


def architectures() -> list[str]:
    """Return timm's names, without tags."""
    return list(TAGS)


def aliases() -> list[str]:
    """Return the papers' names."""
    return list(ALIASES)


def others() -> list[str]:
    """Return repositories of the hub, and torchvision's names."""
    return [*HUB, *_TORCHVISION]


def made(
    size: str, window: Any, resolution: int, version: int = 1, before: int = 0, **fields: Any
) -> SwinConfig:
    """Return a Swin Transformer of a size.

    Args:
      size: one of `SIZES`.
      window: see `SwinConfig`.
      resolution: height and width of images.
      version: 1 or 2.
      before: the window that version 2 was pretrained with; 0 for this one.
      **fields: any others of `SwinConfig`.
    """
    own = dict(VERSION_2) if version == 2 else {}
    if before:
        # At the pretraining's resolution the last map was as large as half a window.
        own["pretrained_windows"] = (before, before, before, before // 2)
    return SwinConfig(
        image_size=(resolution, resolution), window_size=window, **{**SIZES[size], **own, **fields}
    )


def torchvision(name: str) -> SwinConfig | None:
    """Return the configuration of a name of torchvision's."""
    if name not in _TORCHVISION:
        return None
    *version, letter = name.split("_")[1:]
    size = {"t": "tiny", "s": "small", "b": "base"}[letter]
    window, resolution = (8, 256) if version else (7, 224)
    preprocessing = dataclasses.replace(IMAGENET, crop=resolution / _TORCHVISION[name])
    own: dict[str, Any] = dict(window_fit="pad", bias_resample="bicubic", preprocessing=preprocessing)
    return made(size, window, resolution, 2 if version else 1, **own)


def _timm(name: str) -> SwinConfig | None:
    architecture, dot, tag = name.partition(".")
    known = {tag for tags in TAGS.values() for tag in tags}
    if dot and tag not in known:
        return None
    classes: dict[str, Any] = dict(num_classes=21841) if tag == "ms_in22k" else {}
    if found := _FIRST.fullmatch(architecture):
        size, patch, window, resolution = found.groups()
        side = int(patch)
        own: dict[str, Any] = dict(
            patch_size=(side, side), preprocessing=_cropped(int(resolution)), **classes
        )
        return made(size, int(window), int(resolution), **own)
    if found := _S3.fullmatch(architecture):
        windows, depth = _SEARCHED[found[1]]
        own = dict[str, Any](width=96, depths=(2, 2, depth, 2), heads=SIZES["tiny"]["heads"], **classes)
        return made("tiny", windows, int(found[2]), preprocessing=_cropped(int(found[2])), **own)
    if found := _SECOND.fullmatch(architecture):
        size, first, window, low, resolution = found.groups()
        side = int(resolution or low)
        before = int(first) if window else 0
        return made(size, int(window or first), side, 2, before, preprocessing=_cropped(side), **classes)
    return None


def _cropped(resolution: int) -> Preprocessing:
    return dataclasses.replace(IMAGENET, crop=1.0 if resolution >= 384 else 0.9)


def _hub(name: str) -> SwinConfig | None:
    found = _HUB.fullmatch(name)
    if found is None or (found[3] and found[2] != "base"):
        return None
    second, size, simmim, first, window, low, resolution, classes = found.groups()
    own: dict[str, Any] = {}
    if simmim:  # pixels of the patches that were hidden
        own = dict(num_classes=3 * 32 * 32, pool="patches", mask_token=True)
    elif classes:
        own = dict(num_classes=21841)
    return made(
        size,
        int(window or first),
        int(resolution or low),
        2 if second else 1,
        int(first) if window else 0,
        **transformers_fields(bool(second)),
        preprocessing=TRANSFORMERS,
        **own,
    )


TRANSFORMERS = Preprocessing(IMAGENET.mean, IMAGENET.std, "bicubic", 1.0, "squash")


def transformers_fields(second: bool) -> dict[str, Any]:
    """Return what transformers computes in its own way, of version 1 or 2: it adds the mask of version 2 twice."""
    if second:
        return dict(window_fit="clamp_once", mask_bias=-200.0, bias_resample="bicubic")
    return dict(window_fit="pad_together", bias_resample="bicubic")
