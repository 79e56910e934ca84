"""Models by the names that people use: the papers', timm's, transformers' and Google's. Needs no jax.

  `ViT-B/16`, `B/16@384`                     the papers' (Dosovitskiy et al. 2020, arXiv 2010.11929)
  `vit_base_patch16_224[.augreg_in21k]`      timm's, with or without a tag: `models.timm_names`
  `facebook/dinov2-base`                     transformers' on the Hugging Face hub: `models.hub_names`
  `gs://vit_models/augreg/....npz`           Google's: `models.google_names`

All are read without a network. A name of the hub may have `hf-hub:` before it, a name of timm `timm/`.
"""

import fnmatch
import re

from vit_jax.errors import ConfigError, nearest
from vit_jax.models import google_names, hub_names, timm_names
from vit_jax.models.text_config import ImageTextConfig
from vit_jax.models.vit_config import MaeConfig, ViTConfig

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
HYBRIDS = {
    "R+Ti/16": "vit_tiny_r_s16_p8",
    "R26+S/32": "vit_small_r26_s32",
    "R26+B/32": "vit_base_r26_s32",
    "R50+B/16": "vit_base_r50_s16",
    "R50+L/32": "vit_large_r50_s32",
}
_ANY_CASE = {letter.lower(): size for letter, size in LETTERS.items() if letter[0] not in "gG"}
_ALIAS = re.compile(r"(?:(?i:vit)-)?([A-Za-z0-9-]+)/([1-9]\d*)(?:@([1-9]\d*))?")


def list_models(pattern: str = "*") -> list[str]:
    """Return the listed architectures that match a shell pattern, in natural order (`patch8` before `patch16`).

    Args:
      pattern: with the wildcards `*`, `?` and `[...]`, for example `vit_*_384`.
    """
    return sorted(fnmatch.filter(timm_names.architectures(), pattern), key=_natural)


def resolve(name: str) -> tuple[str, ViTConfig | MaeConfig | ImageTextConfig]:
    """Return the canonical name and the configuration of a model.

    Args:
      name: `vit_base_patch16_224`, `timm/vit_base_patch16_clip_224.openai`, `ViT-B/16`, `ViT-B/16@384`, `R50+B/16`,
        `facebook/dinov2-base`, `gs://vit_models/imagenet21k/ViT-B_16.npz`. Of the papers' letters, `g` (giant)
        and `G` (gigantic) are different models; elsewhere case does not matter.

    Raises:
      ConfigError: there is no such model (the nearest names are given), or the patch does not divide the
        resolution (the nearest that it divides are given).
    """
    bare = re.sub(r"^(hf[-_]hub:|hf://)", "", name)
    canonical = _from_alias(bare.removeprefix("timm/"))
    config = timm_names.resolve(canonical) or hub_names.resolve(canonical)
    if config is not None:
        return canonical, config
    found = google_names.resolve(canonical)
    if found is None:
        hint = nearest(name, _aliases() if "/" in name else list_models())
        raise ConfigError(f"model {name!r} does not exist.{hint} `vit-jax models` lists all.")
    return found


def _from_alias(name: str) -> str:
    """Return `vit_base_patch16_384` for `ViT-B/16@384`, and any other text as it is."""
    hybrid, _, size = name.replace("+ViT-", "+").partition("@")
    if hybrid in HYBRIDS:
        return f"{HYBRIDS[hybrid]}_{size or 224}"
    match = _ALIAS.fullmatch(name)
    if match is None:
        return name
    letter, patch, resolution = match.groups(default="224")
    size = LETTERS.get(letter) or _ANY_CASE.get(letter.lower())
    return f"vit_{size}_patch{patch}_{resolution}" if size else name


def _aliases() -> list[str]:
    """Return the papers' names of what is listed."""
    letters = {size: letter for letter, size in LETTERS.items()}
    plain = (re.fullmatch(r"vit_([a-z0-9]+)_patch(\d+)_\d+", name) for name in timm_names.architectures())
    names = [f"ViT-{letters[found[1]]}/{found[2]}" for found in plain if found]
    return list(dict.fromkeys((*names, *HYBRIDS)))


def _natural(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
