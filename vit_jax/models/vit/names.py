"""Names of Vision Transformers: the papers', timm's, transformers' and Google's. Needs no jax.

  `ViT-B/16`, `B/16@384`                     the papers' (Dosovitskiy et al. 2020, arXiv 2010.11929)
  `vit_base_patch16_224[.augreg_in21k]`      timm's, with or without a tag: `models.names.timm_names`
  `facebook/dinov2-base`                     transformers' on the Hugging Face hub: `models.names.hub_names`
  `gs://vit_models/augreg/....npz`           Google's: `models.names.google_names`

Of the papers' letters, `g` (giant) and `G` (gigantic) are different models; elsewhere case does not matter.
"""

import re

from vit_jax.models.names import google_names, hub_names, timm_names
from vit_jax.models.vit.config import ViTConfig

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


def resolve(name: str) -> tuple[str, ViTConfig] | None:
    """Return the canonical name and the configuration of a Vision Transformer; None if there is no such name."""
    canonical = _from_alias(name)
    config = timm_names.resolve(canonical) or hub_names.resolve(canonical)
    return google_names.resolve(canonical) if config is None else (canonical, config)


def aliases() -> list[str]:
    """Return the papers' names of what is listed."""
    letters = {size: letter for letter, size in LETTERS.items()}
    plain = (re.fullmatch(r"vit_([a-z0-9]+)_patch(\d+)_\d+", name) for name in timm_names.architectures())
    names = [f"ViT-{letters[found[1]]}/{found[2]}" for found in plain if found and found[1] in letters]
    return list(dict.fromkeys((*names, *HYBRIDS)))


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
