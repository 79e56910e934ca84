"""Maps of features of any image encoder, `(b, h, w, c)`, for what stands on one: heads, pyramids, pictures.

Needs no jax.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from vit_jax.errors import ConfigError, argument, nearest
from vit_jax.models.families import family_of
from vit_jax.models.family import Level

if TYPE_CHECKING:
    import jax

Chosen = int | str | Sequence[int | str]  # levels as they are asked for: strides or names


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
    return output_and_maps(encoder, levels, images, key)[1]


def output_and_maps(
    encoder: Any, levels: Sequence[Level], images: "jax.Array", key: "jax.Array | None" = None
) -> "tuple[jax.Array, list[jax.Array]]":
    """Return what the encoder's call returns, and the maps of `level_maps`, computed in the same call."""
    names = tuple(dict.fromkeys((level.of or level).name for level in levels))
    if not names:
        return encoder(images, key), []
    output, captured = encoder(images, key, capture=names)
    return output, [_as_map(captured[(level.of or level).name], level, images) for level in levels]


def named_levels(config: Any, levels: Chosen | None = None, resample: bool = False) -> tuple[Level, ...]:
    """Return levels of an image encoder, in the order in which they are asked for.

    Args:
      config: the encoder's.
      levels: strides in pixels (of the family's levels) or names of maps that the model captures, such as `stages/1` or
        `blocks/-1`; `encoded@8` is the map `encoded` resampled to stride 8. None takes the family's levels.
      resample: take of a stride that no map has the map of the nearest, resampled.

    Raises:
      ConfigError: there is no such level, or none or one twice is asked for.
    """
    family = family_of(config)
    own, budget = family.levels(config), family.budget(config)
    if budget is not None:
        raise ConfigError(
            f"the model takes images of any shape as up to {budget.patches} patches, which are no map; set "
            "max_patches to 0."
        )
    if not own:
        raise ConfigError(
            f"a model of family {family.name!r} gives no feature maps; choose an image encoder."
        )
    if levels is None:
        return own
    asked = list(levels) if isinstance(levels, Iterable) and not isinstance(levels, str) else [levels]
    if not asked:
        raise ConfigError(f"{argument('levels')} is empty; give some of {listed(own)}.")
    known = {level.name: level for level in (*own, *family.maps(config))}
    found: dict[str, Level] = {}
    for one in asked:
        level = _named(one, known, config) if isinstance(one, str) else _of_stride(one, own, config, resample)
        if level.name in found:
            raise ConfigError(f"{argument('levels')} has {level.name!r} twice (as {one!r}); leave one out.")
        found[level.name] = level
    return tuple(found.values())


def _of_stride(stride: Any, own: Sequence[Level], config: Any, resample: bool) -> Level:
    if isinstance(stride, bool) or not hasattr(stride, "__index__") or int(stride) < 1:
        raise ConfigError(
            f"{argument('levels')} has {stride!r}; give strides in whole pixels, or names, of {listed(own)}."
        )
    stride = int(stride)
    found = next((level for level in own if level.stride == (stride, stride)), None)
    if found is not None:
        return found
    near = min(own, key=lambda level: abs(math.log(level.stride[0] / stride)))
    if resample:
        return _resampled(near, stride, config)
    raise ConfigError(
        f"{argument('levels')} has stride {stride}, which no map of this model has; it has {listed(own)}, and "
        f"{argument('resample', True)} makes {near.name}@{stride} of {near.name}, without weights."
    )


def _named(name: str, known: dict[str, Level], config: Any) -> Level:
    plain, at, stride = name.partition("@")
    if at and not (stride.isdecimal() and int(stride)):
        raise ConfigError(f"{argument('levels')} has {name!r}; after @ stands a stride in whole pixels.")
    kind, slash, number = plain.partition("/")
    if slash and re.fullmatch(r"-\d+", number):
        count = sum(other.startswith(f"{kind}/") for other in known)
        plain = f"{kind}/{int(number) + count}"
    if plain not in known:
        raise ConfigError(
            f"{name!r} is not a level of this model; it has {listed(known.values())}.{nearest(plain, known)}"
        )
    return _resampled(known[plain], int(stride), config) if at else known[plain]


def _resampled(level: Level, stride: int, config: Any) -> Level:
    if level.stride == (stride, stride):
        return level
    height, width = config.image_size
    name, grid = f"{level.name}@{stride}", (-(-height // stride), -(-width // stride))
    return Level(name, (stride, stride), level.channels, grid, of=level)


def listed(levels: Iterable[Level]) -> str:
    """Return levels in words, layers that are alike as one: `blocks/0 to blocks/11 (stride 16)`."""
    runs: list[list[Level]] = []
    for level in levels:
        last = runs[-1][-1] if runs else None
        alike = last and "/" in level.name and last.stride == level.stride
        if last and alike and last.name.partition("/")[0] == level.name.partition("/")[0]:
            runs[-1].append(level)
        else:
            runs.append([level])
    words = []
    for run in runs:
        (h, w), names = run[0].stride, run[0].name
        if len(run) > 1:
            names += f" to {run[-1].name}"
        words.append(f"{names} (stride {h if h == w else f'{h}x{w}'})")
    return ", ".join(words)


def _as_map(x: "jax.Array", level: Level, images: "jax.Array") -> "jax.Array":
    """Return tokens `(b, prefix + n, c)` as a map; images of another size than the model's have another grid."""
    rows, columns = (-(-side // stride) for side, stride in zip(images.shape[1:3], level.stride))
    if level.of is not None:
        from vit_jax.models.heads.parts import resized

        return resized(_as_map(x, level.of, images), (rows, columns), antialias=True)
    return x if x.ndim == 4 else x[:, level.prefix :].reshape(len(x), rows, columns, x.shape[-1])


def described(level: Level) -> dict[str, Any]:
    """Return what is known of a level before it is computed, as JSON has it."""
    return {name: value for name, value in dataclasses.asdict(level).items() if name not in ("of", "prefix")}
