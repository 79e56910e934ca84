"""How many tokens go through each block of a Vision Transformer. Needs no jax."""

from typing import TYPE_CHECKING, Any

from vit_jax.errors import ConfigError
from vit_jax.models.layers.pixels.sizes import check_divides

if TYPE_CHECKING:
    from vit_jax.models.vit.config import ViTConfig


def several(merge_tokens: Any) -> Any:
    """Return the numbers of `merge_tokens`: one alone is that of all blocks, and 0 is none."""
    if isinstance(merge_tokens, int) and not isinstance(merge_tokens, bool):
        merge_tokens = (merge_tokens,)
    if not isinstance(merge_tokens, tuple | list):
        return merge_tokens  # which is refused where the types of all fields are looked at
    return tuple(merge_tokens) if any(merge_tokens) else ()


def merge_counts(config: "ViTConfig", tokens: int) -> tuple[int, ...]:
    """Return how many tokens each block merges; no more than half of those that may be.

    Args:
      config: the model.
      tokens: that go into the first block, with the prefix.
    """
    counts = []
    for wanted in _wanted(config):
        counts.append(min(wanted, max(0, (tokens - config.prefix_tokens) // 2)))
        tokens -= counts[-1]
    return tuple(counts)


def block_tokens(config: "ViTConfig", tokens: int) -> tuple[tuple[int, int], ...]:
    """Return how many tokens the attention and the MLP of each block see; arguments as `merge_counts`."""
    seen = []
    for count in merge_counts(config, tokens):
        seen.append((tokens, tokens - count))
        tokens -= count
    return tuple(seen)


def check_merging(config: "ViTConfig") -> None:
    """Raise ConfigError unless the model can merge as many tokens as it says."""
    given, limit = config.merge_tokens, config.num_patches // 2
    if not given:
        return
    if len(given) not in (1, config.depth):
        raise ConfigError(
            f"merge_tokens has {len(given)} numbers; give one for each of the {config.depth} blocks, or one for all."
        )
    if len(given) > 1 and config.merge_schedule != "constant":
        raise ConfigError(
            f"merge_schedule is {config.merge_schedule!r} beside merge_tokens of each block; give one number for all."
        )
    wanted = _wanted(config)
    for block, count in enumerate(wanted):
        if not 0 <= count <= limit:
            raise ConfigError(
                f"merge_tokens is {count} in block {block}; of {config.num_patches} patches a block can merge 0 to "
                f"{limit}."
            )
    for field, value in (("differential", False), ("parallel", "none")):
        if getattr(config, field) != value:
            raise ConfigError(
                f"merge_tokens needs attention alone before the MLP, and {field} is {getattr(config, field)!r}; set "
                "merge_tokens=0."
            )
    for field, value in (("rope", "none"), ("position_bias", "none")):
        if getattr(config, field) != value:
            raise ConfigError(
                f"merge_tokens needs positions that are added to tokens, and {field} is "
                f"{getattr(config, field)!r}; set merge_tokens=0."
            )


def check_patch_sizes(config: "ViTConfig") -> None:
    """Raise ConfigError unless training can draw any of the patch sizes that it says."""
    if not config.patch_sizes:
        return
    for field, empty in (("stem", ()), ("backbone", None)):
        if getattr(config, field) != empty:
            raise ConfigError(f"patch_sizes cannot change behind a {field}; leave them out.")
    for size in config.patch_sizes:
        if size < 1:
            raise ConfigError(f"patch_sizes are {config.patch_sizes}; each must be at least 1.")
        check_divides(config.image_size, (size, size), "one of patch_sizes,")


def _wanted(config: "ViTConfig") -> tuple[int, ...]:
    depth, given = config.depth, config.merge_tokens
    if len(given) != 1:
        return given or (0,) * depth
    if config.merge_schedule == "constant" or depth == 1:
        return given * depth
    first = 2 * given[0]
    return tuple(int(first - first / (depth - 1) * block) for block in range(depth))
