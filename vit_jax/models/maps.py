"""Maps of features of any image encoder, `(b, h, w, c)`, for what stands on one: heads, pictures, explanations.

Needs no jax.
"""

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from vit_jax.errors import ConfigError
from vit_jax.models.families import family_of
from vit_jax.models.family import Level

if TYPE_CHECKING:
    import jax


def level_maps(
    encoder: Any, levels: Sequence[Level], images: "jax.Array", key: "jax.Array | None" = None
) -> "list[jax.Array]":
    """Return maps `(b, h, w, c)` of features, computed in one call of the encoder.

    Args:
      encoder: a module whose call captures by name; inside a head, its batch statistics change as in any other call.
      levels: of its family, see `named_levels`.
      images: normalised images `(b, height, width, channels)`.
      key: randomness of dropout and the like; None for evaluation.
    """
    _, captured = encoder(images, key, capture=tuple(dict.fromkeys(level.name for level in levels)))
    return [_as_map(captured[level.name], level, images) for level in levels]


def named_levels(config: Any, names: Sequence[str] | None = None) -> tuple[Level, ...]:
    """Return levels of an image encoder.

    Args:
      config: the encoder's.
      names: of the levels; a model whose maps are all alike has one for each name that it captures maps by, for example
        `blocks/3`. None takes those that its family names.

    Raises:
      ConfigError: the encoder has no such level.
    """
    family = family_of(config)
    levels, budget = family.levels(config), family.budget(config)
    if budget is not None:
        raise ConfigError(
            f"the model takes images of any shape as up to {budget.patches} patches, which are no map; set "
            "max_patches to 0."
        )
    if not levels:
        raise ConfigError(
            f"a model of family {family.name!r} gives no feature maps; choose an image encoder."
        )
    if names is None:
        return levels
    if len(levels) == 1:
        return tuple(dataclasses.replace(levels[0], name=name) for name in names)
    known = {level.name: level for level in levels}
    for name in names:
        if name not in known:
            raise ConfigError(f"{name!r} is not a level of this model; it has {', '.join(known)}.")
    return tuple(known[name] for name in names)


def _as_map(x: "jax.Array", level: Level, images: "jax.Array") -> "jax.Array":
    """Return tokens `(b, prefix + n, c)` as a map; images of another size than the model's have another grid."""
    if x.ndim == 4:
        return x
    rows, columns = (-(-side // stride) for side, stride in zip(images.shape[1:3], level.stride))
    return x[:, level.prefix :].reshape(len(x), rows, columns, x.shape[-1])
