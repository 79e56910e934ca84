"""Names of pairs of an image and a text tower: transformers' on the Hugging Face hub, and Google's. Needs no jax."""

import dataclasses
import re
from collections.abc import Callable
from typing import Any

from vit_jax.models.preprocessing import (
    CLIP_MEAN,
    CLIP_STD,
    INCEPTION_MEAN,
    INCEPTION_STD,
    Preprocessing,
    covered,
)
from vit_jax.models.text.config import ImageTextConfig
from vit_jax.models.text.towers import clip_config, siglip_config

_CLIP = Preprocessing(CLIP_MEAN, CLIP_STD, "bicubic", 1.0, "center", "down")
_SIGLIP = Preprocessing(INCEPTION_MEAN, INCEPTION_STD, "bicubic", 1.0, "squash")
_GOOGLE = Preprocessing(INCEPTION_MEAN, INCEPTION_STD, "bilinear", 1.0, "squash")
_BUCKET = re.compile(r"(?:gs://|https?://storage\.googleapis\.com/)?big_vision/(.+?)(?:\.npz)?")
_PUBLISHED: str = """
openai/clip-vit-base-patch32 openai/clip-vit-base-patch16 openai/clip-vit-large-patch14
openai/clip-vit-large-patch14-336 laion/CLIP-ViT-B-32-laion2B-s34B-b79K laion/CLIP-ViT-B-16-laion2B-s34B-b88K
laion/CLIP-ViT-L-14-laion2B-s32B-b82K laion/CLIP-ViT-H-14-laion2B-s32B-b79K laion/CLIP-ViT-g-14-laion2B-s12B-b42K
laion/CLIP-ViT-g-14-laion2B-s34B-b88K laion/CLIP-ViT-bigG-14-laion2B-39B-b160k
laion/CLIP-ViT-B-32-DataComp.XL-s13B-b90K laion/CLIP-ViT-B-16-DataComp.XL-s13B-b90K
laion/CLIP-ViT-L-14-DataComp.XL-s13B-b90K laion/CLIP-ViT-B-32-256x256-DataComp-s34B-b86K
google/siglip-base-patch16-224 google/siglip-base-patch16-256 google/siglip-base-patch16-384
google/siglip-base-patch16-512 google/siglip-base-patch16-256-multilingual google/siglip-large-patch16-256
google/siglip-large-patch16-384 google/siglip-so400m-patch14-224 google/siglip-so400m-patch14-384
google/siglip-so400m-patch16-256-i18n google/siglip2-base-patch16-224 google/siglip2-base-patch16-256
google/siglip2-base-patch16-384 google/siglip2-base-patch16-512 google/siglip2-base-patch32-256
google/siglip2-large-patch16-256 google/siglip2-large-patch16-384 google/siglip2-large-patch16-512
google/siglip2-so400m-patch14-224 google/siglip2-so400m-patch14-384 google/siglip2-so400m-patch16-256
google/siglip2-so400m-patch16-384 google/siglip2-so400m-patch16-512 google/siglip2-giant-opt-patch16-256
google/siglip2-giant-opt-patch16-384
"""


def resolve(name: str) -> tuple[str, ImageTextConfig] | None:
    """Return the canonical name and the configuration of a pair of towers; None if there is no such name."""
    for pattern, build in _NAMES:
        match = re.fullmatch(pattern, name)
        if match:
            return name, build(*match.groups(default=""))
    match = _BUCKET.fullmatch(name)
    config = _google(match[1]) if match else None
    return None if match is None or config is None else (f"gs://big_vision/{match[1]}.npz", config)


def published() -> list[str]:
    """Return the names of repositories in transformers' layout."""
    return _PUBLISHED.split()


def _openai(size: str, patch: str, resolution: str) -> ImageTextConfig:
    return _clip(size, patch, resolution or "224", activation="quick_gelu", text_pool="argmax")


def _laion(letter: str, patch: str, rest: str) -> ImageTextConfig:
    size = {"B": "base", "L": "large", "H": "huge", "g": "giant", "bigG": "gigantic"}[letter]
    config = _clip(size, patch, "256" if rest.startswith("256x256") else "224")
    if size == "large" and rest.startswith("laion2B"):
        image = dataclasses.replace(
            config.image,
            preprocessing=dataclasses.replace(_CLIP, mean=INCEPTION_MEAN, std=INCEPTION_STD),
        )
        return dataclasses.replace(config, image=image)
    return config


def _clip(size: str, patch: str, resolution: str, **fields: Any) -> ImageTextConfig:
    shared = dict(resample_antialias=False, preprocessing=_CLIP)
    return clip_config(size, int(patch), int(resolution), image_fields=shared, **fields)


def _siglip(version: str, size: str, patch: str, resolution: str, language: str) -> ImageTextConfig:
    size = "giantopt" if size == "giant-opt" else size
    side, p = int(resolution), int(patch)
    vocabulary = 256_000 if version == "2" else 250_000 if language else 32_000
    short = (version, size, side) == ("", "so400m", 224)
    preprocessing, image_size = covered(_SIGLIP, (side, side), (p, p))
    shared = dict(resample_antialias=False, preprocessing=preprocessing)
    return siglip_config(size, p, image_size[0], vocabulary, 16 if short else 64, image_fields=shared)


def _google(path: str) -> ImageTextConfig | None:
    match = re.fullmatch(
        r"siglip/webli_(en|i18n)_(b|l|so400m)_?(?:patch)?(14|16)?_(224|256|384|512)(?:_\d+)?", path
    )
    if match:
        language, size, patch, resolution = match.groups()
        vocabulary = 32_000 if language == "en" else 250_000
        return _google_siglip(
            size, patch or "14", resolution, vocabulary, short=(size, resolution) == ("so400m", "224")
        )
    match = re.fullmatch(r"siglip2/siglip2_(b|l|so400m|g-opt)(14|16|32)_(224|256|384|512)", path)
    return _google_siglip(*match.groups(), vocabulary=256_000) if match else None


def _google_siglip(
    size: str, patch: str, resolution: str, vocabulary: int, short: bool = False
) -> ImageTextConfig:
    names = {"b": "base", "l": "large", "g-opt": "giantopt"}
    side, p = int(resolution), int(patch)
    preprocessing, image_size = covered(_GOOGLE, (side, side), (p, p))
    fields = dict(preprocessing=preprocessing, resample="zoom")
    context = 16 if short else 64
    return siglip_config(names.get(size, size), p, image_size[0], vocabulary, context, image_fields=fields)


_NAMES: tuple[tuple[str, Callable[..., ImageTextConfig]], ...] = (
    (r"openai/clip-vit-(base|large)-patch(14|16|32)(?:-(336))?", _openai),
    (r"laion/CLIP-ViT-(B|L|H|g|bigG)-(14|16|32)-((?:256x256-)?(?:laion2B|DataComp|CommonPool).*)", _laion),
    (
        r"google/siglip(2?)-(base|large|so400m|giant-opt)-patch(14|16|32)-(224|256|384|512)(-multilingual|-i18n)?",
        _siglip,
    ),
)
