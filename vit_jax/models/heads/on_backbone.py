"""What families say alike whose models are a head on an `encoder` of any family. Needs no jax."""

from typing import Any

from vit_jax.models.families import family_of


def depth(config: Any) -> int:
    """Return the number of blocks, which are the backbone's."""
    return family_of(config.encoder).depth(config.encoder)


def layer_of(config: Any, path: str, rule: str) -> int | range:
    """Return the layer of a parameter: the backbone's own, and the last of all for those of the head."""
    family, (part, _, rest) = family_of(config.encoder), path.partition("/")
    return family.layer_of(config.encoder, rest, rule) if part == "encoder" else depth(config) + 1


def widest(config: Any) -> int:
    """Return the units of the widest hidden layer of the backbone."""
    return family_of(config.encoder).widest(config.encoder)


# Of the record of such a family.
COMMON: dict[str, Any] = dict(
    parts={"image": "encoder"}, depth=depth, layer_of=layer_of, widest=widest, per_image=lambda config: False
)
