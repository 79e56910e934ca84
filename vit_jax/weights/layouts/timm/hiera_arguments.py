"""Arguments of timm's class Hiera, which are those of the authors' class too, and our fields for them."""

from collections.abc import Mapping
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.hiera.config import HieraConfig
from vit_jax.models.layers.encoder_config import replace

# How a model trains, or what says again what the weights say.
_WITHOUT_EFFECT = {
    "drop_rate", "head_dropout", "patch_drop_rate", "drop_path_rate", "fix_init", "weight_init", "head_init_scale",
    "pretrained", "features_only", "norm_layer",
}  # fmt: skip
# What has one value in all published models, and here.
_FIXED: dict[str, Any] = {
    "q_stride": [2, 2], "dim_mul": 2.0, "head_mul": 2.0, "sep_pos_embed": False, "global_pool": "avg",
}  # fmt: skip
_PLAIN = {
    "img_size": "image_size", "input_size": "image_size", "in_chans": "in_channels", "num_classes": "num_classes",
    "embed_dim": "width", "num_heads": "heads", "stages": "depths", "mlp_ratio": "mlp_ratio", "q_pool": "pooled_stages",
    "init_values": "layer_scale", "global_pos_size": "position_grid",
}  # fmt: skip
_SQUARE = {"mask_unit_size": "mask_unit", "patch_kernel": "patch_kernel", "patch_stride": "patch_stride"}


def with_arguments(config: HieraConfig, arguments: Mapping[str, Any], origin: str) -> HieraConfig:
    """Return a configuration with arguments in place of its own.

    Args:
      config: the architecture's.
      arguments: by name.
      origin: for messages.

    Raises:
      CheckpointError: an argument we do not know, or a value it cannot have.
    """
    given = {name: _listed(value) for name, value in arguments.items() if name not in _WITHOUT_EFFECT}
    changes: dict[str, Any] = {}
    for name, value in given.items():
        if name in _FIXED:
            if value != _FIXED[name]:
                raise CheckpointError(f"{_said(origin, name, value)}; this library knows {_FIXED[name]!r}.")
        elif name in _PLAIN:
            changes[_PLAIN[name]] = tuple(value) if isinstance(value, list) else value
        elif name in _SQUARE:
            changes[_SQUARE[name]] = square(value, name, origin)
        elif name == "mask_unit_attn":
            changes["windowed_stages"] = windowed_stages(value, name, origin)
        elif name == "use_expand_proj":
            changes["shortcut"] = "project" if value else "pool"
        elif name == "abs_win_pos_embed":
            changes |= dict(position="window" if value else "learned", resample_antialias=bool(value))
        elif name != "patch_padding":
            raise CheckpointError(f"{_said(origin, name, value)}, which this library does not know.")
    try:
        found = replace(config, **changes)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{origin}: config.json describes no model: {error}") from None
    check_padding(found, given.get("patch_padding"), origin)
    return found


def arguments_of(config: HieraConfig, base: HieraConfig) -> dict[str, Any]:
    """Return the arguments that a model has and an architecture has not, but for the size of images."""
    theirs = {ours: name for name, ours in {**_PLAIN, **_SQUARE}.items()}
    found: dict[str, Any] = {}
    for field in theirs.keys() - {"image_size", "num_classes", "position_grid", "layer_scale"}:
        if getattr(config, field) != getattr(base, field):
            value = getattr(config, field)
            square = theirs[field] in _SQUARE
            found[theirs[field]] = (
                [value, value] if square else list(value) if isinstance(value, tuple) else value
            )
    if config.patch_kernel != base.patch_kernel:
        found["patch_padding"] = [config.patch_kernel // 2] * 2
    if (config.layer_scale is None) != (base.layer_scale is None):
        found["init_values"] = config.layer_scale
    if config.shortcut != base.shortcut:
        found["use_expand_proj"] = config.shortcut == "project"
    if config.position != base.position:
        found["abs_win_pos_embed"] = config.position == "window"
    if config.position == "window" and config.position_grid != base.position_grid:
        found["global_pos_size"] = list(config.position_grid)
    stages = len(config.depths)
    if config.windowed_stages != base.windowed_stages or stages != len(base.depths):
        found["mask_unit_attn"] = [stage < config.windowed_stages for stage in range(stages)]
    return dict(sorted(found.items()))


def square(value: Any, name: str, origin: str) -> int:
    """Return the side of what a file says in height and width.

    Raises:
      CheckpointError: they differ.
    """
    sides = set(value) if isinstance(value, list) else {value}
    if len(sides) != 1 or not all(isinstance(side, int) for side in sides):
        raise CheckpointError(
            f"{_said(origin, name, value)}; it must be one whole number for height and width."
        )
    return sides.pop()


def windowed_stages(value: Any, name: str, origin: str) -> int:
    """Return in how many of the first stages attention stays within mask units.

    Raises:
      CheckpointError: it does in others too.
    """
    if not isinstance(value, list) or value != sorted(map(bool, value), reverse=True):
        raise CheckpointError(
            f"{_said(origin, name, value)}; it must be true of the first stages, then false."
        )
    return sum(value)


def check_padding(config: HieraConfig, padding: Any, origin: str) -> None:
    """Raise CheckpointError if patches are not padded by half of their kernel."""
    half = config.patch_kernel // 2
    if padding is not None and padding != [half, half]:
        raise CheckpointError(f"{_said(origin, 'patch_padding', padding)}; this library pads by {half}.")


def _listed(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _said(origin: str, name: str, value: Any) -> str:
    return f"{origin}: config.json says {name} {value!r:.60}"
