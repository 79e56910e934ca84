"""Whether a configuration says what it may, see `config_rules`; the first mistake is named by its key. Needs no jax."""

import dataclasses
import math
import re
from collections.abc import Iterator
from typing import Any

from ml_collections import ConfigDict

from vit_jax.data.section import LABELS, check_source, mixture_parts
from vit_jax.errors import ConfigError, choose, nearest
from vit_jax.models.families import is_image_encoder, option_defaults
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.names import resolve as names
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.problem import LOSSES
from vit_jax.objectives.options import parse_options
from vit_jax.training.config.defaults import default_config, flatten, tuples, unflatten
from vit_jax.training.config.durations import check
from vit_jax.training.config.patterns import check_patterns, check_times
from vit_jax.training.config.probes import check_probes
from vit_jax.training.config.rules import (
    CHECKPOINT_KEYS,
    CHOICES,
    DURATIONS,
    NAMES,
    OPEN_SECTIONS,
    POSITIVE,
    RANGES,
    STAND_INS,
    TYPES,
)


def checked(config: Any) -> ConfigDict:
    """Return a configuration normalised, after everything that `validate` looks for: what every way in goes through.

    Raises:
      ConfigError: it is no configuration, or the first key that does not exist, is missing or has a wrong value.
    """
    if not isinstance(config, ConfigDict):
        raise ConfigError(
            f"config is a {type(config).__name__}; it must come from load_config or default_config()."
        )
    config = normalise(config)
    validate(config)
    return config


def normalise(config: ConfigDict) -> ConfigDict:
    """Return the configuration with tuples for lists, and floats where the default is one."""
    _check_empty_sections(config)  # which its flat form does not have
    flat, defaults = flatten(config), flatten(default_config())
    for key, value in flat.items():
        if isinstance(defaults.get(key), float) and type(value) is int and abs(value) < 2**63:
            flat[key] = float(value)
    return unflatten(flat)


def validate(config: ConfigDict) -> None:
    """Raise `ConfigError` naming the first key that does not exist, is missing or has a wrong value."""
    flat, defaults = flatten(config), flatten(default_config())
    for key, value in flat.items():
        _check_numbers(key, value)
    _check_keys(flat, defaults)
    for key, default in defaults.items():
        if key in DURATIONS:
            check(flat[key], key, percent=DURATIONS[key])
            if key in POSITIVE and re.match(r"[0.]*(\D|$)", str(flat[key]).strip()):
                raise ConfigError(f"{key} is {flat[key]!r}; it must be at least one step.")
        elif key in flat:
            expected, good = TYPES[type(default)]
            if key in NAMES:
                expected = f"a sequence of names, for example {NAMES[key][:1]!r}"
            if not good(flat[key]):
                raise ConfigError(f"{key} is {flat[key]!r}; it must be {expected}.")
    for key, allowed in CHOICES.items():
        choose(flat[key], allowed, key)
    for key, interval in RANGES.items():
        _check_range(key, flat[key], interval)
    for key, allowed in NAMES.items():
        for name in flat[key]:
            if not isinstance(name, str):
                raise ConfigError(f"{key} has {name!r}; names must be strings.")
            choose(name, allowed, key)
    check_patterns(flat)
    check_times(flat)
    check_probes(flat)
    _check_transforms(flat)
    _check_combinations(flat)
    sections = tuples(unflatten(flat).to_dict())
    _check_model(sections["model"])
    parse_options(sections["objective"])


def _check_empty_sections(config: Any) -> None:
    known = [path for path, _ in _sections(default_config())]
    for path, section in _sections(config):
        if section or path in known or path == "model.preprocessing":
            continue
        raise ConfigError(
            f"{path} is a section without keys; remove it or set one of its keys.{nearest(path, known)}"
        )


def _sections(config: Any, parents: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every section and what is in it, by path."""
    for key, value in dict(config).items():
        if isinstance(value, ConfigDict | dict):
            yield f"{parents}{key}", value
            yield from _sections(value, f"{parents}{key}.")


def _check_keys(flat: dict[str, Any], defaults: dict[str, Any]) -> None:
    for key, value in flat.items():
        if key in defaults or key.startswith(OPEN_SECTIONS):
            continue
        inside = [name for name in defaults if name.startswith(f"{key}.")]
        if inside:
            raise ConfigError(f"{key} is {value!r}; it must be a section with {', '.join(inside)}.")
        raise ConfigError(f"{key!r} is not a configuration key.{nearest(key, defaults)}")
    for key in defaults:
        if key == "model.name" and "model.checkpoint" in flat:
            continue
        if key not in flat:
            raise ConfigError(f"{key} is missing; start the configuration from default_config().")


def _check_numbers(key: str, value: Any) -> None:
    """Raise ConfigError for numbers that JSON cannot say, or that no computer counts to."""
    if isinstance(value, tuple | dict):
        for inner in value.values() if isinstance(value, dict) else value:
            _check_numbers(key, inner)
    elif isinstance(value, int) and abs(value) >= 2**63:
        raise ConfigError(f"{key} is an integer of {value.bit_length()} bits; it must be below 2**63.")
    elif isinstance(value, float) and not math.isfinite(value):
        raise ConfigError(f"{key} is {value}; it must be a finite number.")


def _check_transforms(flat: dict[str, Any]) -> None:
    for key in ("data.train_transforms", "data.eval_transforms"):
        if flat[key].strip():
            # Here because it imports NumPy and OpenCV, which other configurations need not wait for.
            from vit_jax.data.transforms.spec import parse

            text = flat[key]
            for name, value in STAND_INS.items():
                text = text.replace(name, value)
            parse(text, key)


def _check_range(key: str, value: float, interval: str) -> None:
    low, high = (float(bound) for bound in interval[1:-1].split(","))
    above = value > low if interval[0] == "(" else value >= low
    below = value < high if interval[-1] == ")" else value <= high
    if above and below and math.isfinite(value):
        return
    words = [f"{'above' if interval[0] == '(' else 'at least'} {low:.0f}"]
    if math.isfinite(high):
        words.append(f"{'below' if interval[-1] == ')' else 'at most'} {high:.0f}")
    raise ConfigError(f"{key} is {value}; it must be {' and '.join(words)}.")


def _check_combinations(flat: dict[str, Any]) -> None:
    check_source(flat["data.source"], {key.removeprefix("data."): value for key, value in flat.items()})
    if mixture_parts(flat["data.mixture"]) and flat["data.balanced"]:
        raise ConfigError("data.balanced is on, but data.mixture has its own weights; leave one of them out.")
    if flat["data.cache"] != "none" and flat["data.num_workers"]:
        raise ConfigError(
            f"data.cache is {flat['data.cache']!r}, but {flat['data.num_workers']} worker processes would each "
            "cache all records; set data.num_workers=0 or data.cache='none'."
        )
    cache = flat["compilation.cache"]
    if not cache or "://" in cache:
        raise ConfigError(
            f"compilation.cache is {cache!r}; it must be 'auto', 'off' or a local folder (for a URL, set "
            "JAX_COMPILATION_CACHE_DIR)."
        )
    axes = {axis: flat[f"mesh.{axis}"] for axis in ("data", "fsdp", "tensor")}
    for axis, size in axes.items():
        if size == 0 or (size == -1 and list(axes.values()).count(-1) > 1):
            given = ", ".join(f"mesh.{name} {value}" for name, value in axes.items())
            raise ConfigError(
                f"mesh.{axis} is {size} ({given}); it must be at least 1, or -1 (the rest) for one axis only."
            )
    if flat["optimizer.frozen_blocks"] and flat["optimizer.trained_blocks"] >= 0:
        raise ConfigError(
            f"optimizer.frozen_blocks is {flat['optimizer.frozen_blocks']} and optimizer.trained_blocks "
            f"{flat['optimizer.trained_blocks']}; give only one of them."
        )
    last = flat["optimizer.weight_decay_end"]
    if last and flat["optimizer.weight_decay_schedule"] == "constant":
        raise ConfigError(
            f"optimizer.weight_decay_end is {last}, but the decay is constant; set "
            "optimizer.weight_decay_schedule to 'linear' or 'cosine'."
        )
    if flat["optimizer.clip_per_tensor"] and not flat["optimizer.clip_norm"]:
        raise ConfigError(
            "optimizer.clip_per_tensor is on, but optimizer.clip_norm is 0; set the norm to clip to."
        )
    if flat["lora.rank"] and not flat["lora.targets"]:
        raise ConfigError("lora.targets is empty; name layers to adapt, for example ('query', 'value').")
    loss, problem = flat.get("objective.loss", "softmax"), flat.get("model.problem")
    if flat["objective.name"] == "classification" and problem not in (None, LOSSES.get(loss, problem)):
        raise ConfigError(
            f"model.problem is {problem!r}, but objective.loss {loss!r} trains {LOSSES[loss]!r}; leave model.problem "
            "out, or choose the loss that matches it."
        )
    if flat["data.batch_size"] % flat["accumulation"]:
        raise ConfigError(
            f"accumulation is {flat['accumulation']}, which does not divide "
            f"data.batch_size {flat['data.batch_size']}."
        )


def _check_model(section: dict[str, Any]) -> None:
    options = dict(section)
    name = options.pop("name", "")
    checkpoint, ignore, weights, labels, head_std = (
        options.pop(key, default) for key, default in CHECKPOINT_KEYS.items()
    )
    if not isinstance(checkpoint, str):
        raise ConfigError(f"model.checkpoint is {checkpoint!r}; it must be a string, as for vit_jax.load.")
    if not isinstance(weights, str):
        raise ConfigError(f"model.weights is {weights!r}; it must name a set of weights in model.checkpoint.")
    if weights and not checkpoint:
        raise ConfigError(
            f"model.weights is {weights!r}, but there is no model.checkpoint to take them from; give one, such as the "
            "workdir of an earlier run."
        )
    if not isinstance(ignore, tuple) or not all(isinstance(entry, str) for entry in ignore):
        raise ConfigError(f"model.ignore is {ignore!r}; it must be a sequence of array names.")
    choose(labels, LABELS, "model.labels")
    if labels != LABELS[0] and not checkpoint:
        raise ConfigError(
            f"model.labels is {labels!r}, but there is no model.checkpoint whose head could be kept."
        )
    if not isinstance(head_std, float) or not 0 <= head_std < math.inf:
        raise ConfigError(f"model.head_std is {head_std!r}; it must be a finite number, 0 or more.")
    if head_std and not checkpoint:
        raise ConfigError(
            f"model.head_std is {head_std!r}, but there is no model.checkpoint that gets a new head; leave it out."
        )
    preprocessing = options.get("preprocessing", {})
    if not isinstance(preprocessing, dict):
        raise ConfigError(
            f"model.preprocessing is {preprocessing!r}; it must be a section, a dict of its fields."
        )
    known = {field.name: field.default for field in dataclasses.fields(Preprocessing)}
    for key, value in preprocessing.items():
        if key not in known:
            raise ConfigError(f"model.preprocessing.{key} is not an option.{nearest(key, known)}")
        expected, good = TYPES[type(known[key])]
        if not good(value):
            raise ConfigError(f"model.preprocessing.{key} is {value!r}; it must be {expected}.")
        if isinstance(value, tuple) and not (value and all(TYPES[float][1](entry) for entry in value)):
            raise ConfigError(f"model.preprocessing.{key} is {value!r}; it must be numbers, one per channel.")
    Preprocessing(**preprocessing)
    if not checkpoint and not name:
        raise ConfigError(
            "model has neither name nor checkpoint; set one, for example "
            "model.checkpoint=timm/vit_small_patch16_224.augreg_in21k."
        )
    if not checkpoint:
        if not isinstance(name, str):
            raise ConfigError(f"model.name is {name!r}; it must be a string.")
        try:
            base = names.resolve(name)[1]
        except ConfigError as error:
            raise ConfigError(f"model.name is {name!r}: {error}") from error
        if not is_image_encoder(base):
            raise ConfigError(f"model.name is {name!r}, which is not a single image encoder; choose another.")
        replace(base, **{str(key): value for key, value in options.items()})
        return
    # Whether the values go with the checkpoint is known when it is read.
    fields = option_defaults()
    for key in options:
        if key not in fields:
            raise ConfigError(f"{key!r} is not a model option.{nearest(key, fields)}")
