"""Files of timm's Swin Transformers and of the authors', read; and timm's written."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.registry import ModelConfig
from vit_jax.models.swin import names
from vit_jax.models.swin.config import SwinConfig
from vit_jax.weights.formats.tensors import RawCheckpoint
from vit_jax.weights.layouts.layout import Layout, Reading, Written, check_model
from vit_jax.weights.layouts.problem_type import problem_type, read_problem
from vit_jax.weights.layouts.timm import swin
from vit_jax.weights.layouts.timm.config import class_names, values_of
from vit_jax.weights.preprocessing_formats import from_timm, to_timm

# Arguments of timm's classes, and ours.
_PLAIN = {
    "img_size": "image_size", "patch_size": "patch_size", "in_chans": "in_channels", "num_classes": "num_classes",
    "embed_dim": "width", "depths": "depths", "num_heads": "heads", "mlp_ratio": "mlp_ratio", "qkv_bias": "qkv_bias",
}  # fmt: skip
_SECOND = _PLAIN | {"pretrained_window_sizes": "pretrained_windows", "act_layer": "activation"}
# What says how a model trains, says again what the weights say, or that images may have any size, as ours may.
_WITHOUT_EFFECT = {
    "drop_rate", "proj_drop_rate", "pos_drop_rate", "attn_drop_rate", "drop_path_rate", "weight_init",
    "strict_img_size", "dynamic_img_size", "pretrained", "features_only",
}  # fmt: skip


def _read(raw: RawCheckpoint, model: ModelConfig | None) -> tuple[RawCheckpoint, Layout]:
    check_model(raw, model, "a Swin Transformer", "swin")
    about = raw.documents.get("config.json", {})
    if model is not None:
        config = model
    else:
        config = from_document(raw, about) if "architecture" in about else swin.from_shapes(raw)
    found = swin.rules(config, swin.is_authors(raw.tensors))
    return raw, Layout(config, found, swin.COMPUTED, class_names=class_names(about))


READING = Reading("timm's Swin and Microsoft's code", swin.claims, _read)


def from_document(raw: RawCheckpoint, about: Mapping[str, Any]) -> SwinConfig:
    """Return the model that timm's `config.json` describes.

    Raises:
      CheckpointError: it says something we do not know.
    """
    known, arguments = (values_of(about, name, raw.origin) for name in ("pretrained_cfg", "model_args"))
    found = names.resolve(str(about["architecture"]))
    if found is None:
        raise CheckpointError(
            f"{raw.origin}: config.json says architecture {about['architecture']!r:.60}, which this library does not "
            "have yet; `vit-jax models` lists those it has."
        )
    config = found[1]
    preprocessing, size = from_timm({"input_size": (config.in_channels, *config.image_size), **known})
    if not {"mean", "std"} <= known.keys():
        preprocessing = config.preprocessing
    for name in ("num_classes", "global_pool"):
        if about.get(name) is not None:
            arguments.setdefault(name, about[name])
    arguments.setdefault("img_size", size)
    given = {name: value for name, value in arguments.items() if name not in _WITHOUT_EFFECT}
    words = _arguments(config)
    changes = {ours: _plain(given.pop(theirs)) for theirs, ours in words.items() if theirs in given}
    windows = given.pop("window_size", None)
    if given.get("global_pool") == "avg":
        del given["global_pool"]
    for name, value in given.items():
        raise CheckpointError(
            f"{raw.origin}: config.json has model_args {name}={value!r:.60}, which this library does not know."
        )
    try:
        stages = len(changes.get("depths", config.depths))
        if windows is not None or stages != len(config.depths):
            changes["window_size"] = _windows(config.window_size[0] if windows is None else windows)
        config = replace(config, **changes)
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"{raw.origin}: config.json describes no model: {error}") from None
    return replace(config, preprocessing=preprocessing, problem=read_problem(about, raw.origin))


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _windows(value: Any) -> Any:
    """Return the side of windows, of all stages or of each; two numbers are height and width to timm."""
    if isinstance(value, list) and len(value) == 2 and all(isinstance(side, int) for side in value):
        return _side(value)
    return tuple(map(_side, value)) if isinstance(value, list) else value


def _side(value: Any) -> Any:
    """Return the side of a window, a number or height and width."""
    if isinstance(value, list) and len(set(map(str, value))) > 1:
        raise ConfigError(f"window_size is {value}; windows are squares here.")
    return value[0] if isinstance(value, list) and value else value


def _arguments(config: SwinConfig) -> dict[str, str]:
    """Return the arguments of the class of a model's version, and ours."""
    return _SECOND if config.cosine else _PLAIN


def write(config: SwinConfig, params: Mapping[str, Any], names_of_classes: Sequence[str]) -> Written:
    """Return a model in timm's words.

    Raises:
      ConfigError: timm has no such model.
    """
    if config.pool != "mean":
        raise ConfigError(
            "timm's Swin Transformer has one output for an image; save it without a head, or choose 'hf'."
        )
    architecture, base = _architecture(config)
    arguments: dict[str, Any] = {"img_size": list(config.image_size)}
    for theirs, ours in _arguments(base).items():
        value = getattr(config, ours)
        if value != getattr(base, ours) and ours not in ("image_size", "num_classes"):
            arguments[theirs] = list(value) if isinstance(value, tuple) else value
    if config.window_size != base.window_size or config.depths != base.depths:
        sides = list(config.window_size)
        if len(sides) == 2:  # two numbers would be one window, see `_windows`
            sides = [[side, side] for side in sides]
        arguments["window_size"] = sides if len(sides) > 1 else sides[0]
    if not config.pretrained_windows and base.pretrained_windows:
        arguments["pretrained_window_sizes"] = [0] * len(config.depths)
    about = {
        "architecture": architecture,
        "num_classes": config.num_classes,
        "num_features": config.feature_width,
        "global_pool": "avg",
        "model_args": arguments,
        "pretrained_cfg": {
            **to_timm(config.preprocessing, config.image_size, config.in_channels),
            "num_classes": config.num_classes,
            "fixed_input_size": True,
            "first_conv": "patch_embed.proj",
            "classifier": "head.fc",
        },
    }
    if config.problem != "single_label":
        about |= problem_type(config)
    if names_of_classes:
        about["label_names"] = list(names_of_classes)
    return Written(config, params, swin.rules(replace(config, mask_token=False)), {"config.json": about})


def _architecture(config: SwinConfig) -> tuple[str, SwinConfig]:
    """Return the published architecture nearest to a model: of its version, with the fewest differences."""
    fields = [field.name for field in dataclasses.fields(SwinConfig)]

    def distance(name: str) -> int:
        known = names.resolve(name)
        assert known is not None
        differs = {field for field in fields if getattr(known[1], field) != getattr(config, field)}
        return len(differs) + 100 * len(differs & {"position_bias", "cosine", "branch_norm"})

    name = min(names.architectures(), key=distance)
    found = names.resolve(name)
    assert found is not None
    return found
