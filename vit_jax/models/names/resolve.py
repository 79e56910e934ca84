"""Models by the names that people use: each family knows its own. Needs no jax.

All are read without a network. A name of the hub may have `hf-hub:` before it, a name of timm `timm/`.
"""

import fnmatch
import re
from typing import Any

from vit_jax.errors import ConfigError, nearest
from vit_jax.models.families import families
from vit_jax.models.family import Names


def list_models(pattern: str = "*", pretrained: bool = False) -> list[str]:
    """Return the names of models that match a shell pattern, in natural order (`patch8` before `patch16`).

    Args:
      pattern: with the wildcards `*`, `?` and `[...]`: `vit_*_384`. One that begins with a wildcard is about timm's
        architectures; others also find the papers' names (`ViT-B*`), repositories of the hub (`timm/*`,
        `facebook/*`, `google/siglip*`) and Google's files (`gs://*`).
      pretrained: of architectures, name the published weights instead, `vit_base_patch16_224.augreg_in21k`.
    """
    found: list[str] = []
    for names in _named():
        tagged = [f"{name}.{tag}" for name, known in names.tags().items() for tag in known]
        found += tagged if pretrained else names.architectures()
        if pattern[:1] not in ("*", "?", "["):
            papers = [] if pretrained else names.aliases()
            found += [*papers, *(f"timm/{name}" for name in tagged), *names.others()]
    return sorted(fnmatch.filter(found, pattern), key=natural_order)


def resolve(name: str) -> tuple[str, Any]:
    """Return the canonical name and the configuration of a model.

    Args:
      name: `vit_base_patch16_224`, `timm/vit_base_patch16_clip_224.openai`, `ViT-B/16`, `ViT-B/16@384`, `R50+B/16`,
        `facebook/dinov2-base`, `gs://vit_models/imagenet21k/ViT-B_16.npz`.

    Raises:
      ConfigError: there is no such model (the nearest names are given), or the patch does not divide the
        resolution (the nearest that it divides are given).
    """
    bare = re.sub(r"^(hf[-_]hub:|hf://)", "", name).removeprefix("timm/")
    for names in _named():
        found = names.resolve(bare)
        if found is not None:
            return found
    known = [alias for names in _named() for alias in names.aliases()] if "/" in name else list_models()
    raise ConfigError(
        f"model {name!r} does not exist.{nearest(name, known)} `vit-jax models` lists them all."
    )


def published_tags(architecture: str) -> list[str]:
    """Return the tags of the published weights of an architecture."""
    return [tag for names in _named() for tag in names.tags().get(architecture, ())]


def _named() -> list[Names]:
    return [family.names for family in families() if family.names is not None]


def natural_order(name: str) -> list[tuple[int, str]]:
    """Return what names are sorted by, so that `patch8` stands before `patch16`."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]
