"""Names of masked autoencoders on the Hugging Face hub. Needs no jax."""

import dataclasses
import re

from vit_jax.models.mae.config import MaeConfig
from vit_jax.models.names.hub_names import vit

_SIZES = ("base", "large", "huge")
PUBLISHED = tuple(f"facebook/vit-mae-{size}" for size in _SIZES)


def resolve(name: str) -> tuple[str, MaeConfig] | None:
    """Return the name and the configuration of a masked autoencoder; None if there is no such name."""
    match = re.fullmatch(rf"facebook/vit-mae-({'|'.join(_SIZES)})", name)
    if match is None:
        return None
    encoder = vit(match[1], 14 if match[1] == "huge" else 16, 224)
    p = encoder.patch_size[0]
    decoder = dataclasses.replace(
        encoder, width=512, depth=8, heads=16, mlp_dim=2048, num_classes=3 * p * p, pool="patches"
    )
    return name, MaeConfig(encoder, decoder)
