"""Whether a configuration says what it may, see `config_rules`; the first mistake is named by its key. Needs no jax."""

import dataclasses
import math
import re
import warnings
from typing import Any

from ml_collections import ConfigDict

from vit_jax.data.section import mixture_parts
from vit_jax.errors import ConfigError, choose, nearest
from vit_jax.models import names
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.models.vit_config import ViTConfig, replace
from vit_jax.objectives.options import parse_options
from vit_jax.training.config_rules import (
    BASELINES,
    CHECKPOINT_KEYS,
    CHOICES,
    DURATIONS,
    OPEN_SECTIONS,
    PATTERN_FACTORS,
    PATTERN_PAIRS,
    PATTERNS,
    POSITIVE,
    RANGES,
    REQUIRED_BY_SOURCE,
    STAND_INS,
    TACTIC,
    TYPES,
)
from vit_jax.training.defaults import default_config, flatten, tuples, unflatten
from vit_jax.training.durations import check


def normalise(config: ConfigDict) -> ConfigDict:
    """Return the configuration with tuples for lists, and floats where the default is one."""
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
            if not good(flat[key]):
                raise ConfigError(f"{key} is {flat[key]!r}; it must be {expected}.")
    for key, allowed in CHOICES.items():
        choose(flat[key], allowed, key)
    for key, interval in RANGES.items():
        _check_range(key, flat[key], interval)
    _check_patterns(flat)
    _check_transforms(flat)
    _check_combinations(flat)
    sections = tuples(unflatten(flat).to_dict())
    _check_model(sections["model"])
    parse_options(sections["objective"])


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


def _is_tactic(value: Any) -> bool:
    return isinstance(value, str) and TACTIC.fullmatch(value) is not None


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


def _check_patterns(flat: dict[str, Any]) -> None:
    for key in (*PATTERNS, *PATTERN_PAIRS):
        for entry in flat[key]:
            pattern = entry
            if key in PATTERN_PAIRS:
                if not isinstance(entry, tuple) or len(entry) != 2:
                    raise ConfigError(
                        f"{key} has {entry!r}; each entry must be a pair, a pattern and its value."
                    )
                pattern, value = entry
                if key == "sharding.rules" and not _is_tactic(value):
                    raise ConfigError(
                        f"sharding.rules has {entry!r}; a tactic is words of replicate, stacked, tensor(i) and fsdp."
                    )
                if key in PATTERN_FACTORS and not (TYPES[float][1](value) and 0 <= value < math.inf):
                    raise ConfigError(f"{key} has {entry!r}; the factor must be a number and at least 0.")
            if not isinstance(pattern, str):
                raise ConfigError(f"{key} has {pattern!r}; a pattern must be text.")
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("error")  # Of what may soon mean something else.
                    re.compile(pattern)
            except (re.error, OverflowError, RecursionError, Warning) as error:
                raise ConfigError(f"{key} has {pattern!r}, not a regular expression: {error}.") from error
    for name in flat["evaluation.baselines"]:
        if not isinstance(name, str):
            raise ConfigError(f"evaluation.baselines has {name!r}; a baseline must be named by text.")
        choose(name, BASELINES, "evaluation.baselines")


def _check_combinations(flat: dict[str, Any]) -> None:
    required = REQUIRED_BY_SOURCE.get(flat["data.source"])
    if required and not any(flat[key] for key in required):
        raise ConfigError(f"{' or '.join(required)} is empty; data.source {flat['data.source']!r} needs it.")
    if mixture_parts(flat["data.mixture"]) and flat["data.balanced"]:
        raise ConfigError(
            "data.balanced is on, but data.mixture has weights of its own; leave out one of them."
        )
    if flat["data.cache"] != "none" and flat["data.num_workers"]:
        raise ConfigError(
            f"data.cache is {flat['data.cache']!r}, but {flat['data.num_workers']} worker processes would each keep "
            "all records; set data.num_workers=0 or data.cache='none'."
        )
    cache = flat["compilation.cache"]
    if not cache or "://" in cache:
        raise ConfigError(
            f"compilation.cache is {cache!r}; it must be 'auto', 'off' or a folder (an address can be set as "
            "JAX_COMPILATION_CACHE_DIR)."
        )
    axes = {axis: flat[f"mesh.{axis}"] for axis in ("data", "fsdp", "tensor")}
    for axis, size in axes.items():
        if size == 0 or (size == -1 and list(axes.values()).count(-1) > 1):
            given = ", ".join(f"mesh.{name} {value}" for name, value in axes.items())
            raise ConfigError(
                f"mesh.{axis} is {size} ({given}); it must be at least 1, or -1 (the rest) for one axis only."
            )
    if flat["lora.rank"] and not flat["lora.targets"]:
        raise ConfigError("lora.targets is empty; name layers to adapt, for example ('query', 'value').")
    if flat.get("model.checkpoint") and flat["objective.name"] != "classification":
        raise ConfigError(
            f"model.checkpoint is {flat['model.checkpoint']!r}, but objective {flat['objective.name']!r} trains from "
            "scratch; use objective 'classification', or leave the checkpoint out."
        )
    if flat["data.batch_size"] % flat["accumulation"]:
        raise ConfigError(
            f"accumulation is {flat['accumulation']}, which does not divide "
            f"data.batch_size {flat['data.batch_size']}."
        )


def _check_model(section: dict[str, Any]) -> None:
    options = dict(section)
    name = options.pop("name", "")
    checkpoint, ignore = (options.pop(key, default) for key, default in CHECKPOINT_KEYS.items())
    if not isinstance(checkpoint, str):
        raise ConfigError(f"model.checkpoint is {checkpoint!r}; it must be text, as for vit_jax.load.")
    if not isinstance(ignore, tuple) or not all(isinstance(entry, str) for entry in ignore):
        raise ConfigError(f"model.ignore is {ignore!r}; it must be a sequence of names of arrays.")
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
            raise ConfigError(
                f"model.preprocessing.{key} is {value!r}; it must be numbers, one for each channel."
            )
    Preprocessing(**preprocessing)
    if not checkpoint and not name:
        raise ConfigError(
            "model has neither name nor checkpoint; set one, for example "
            "model.checkpoint=timm/vit_small_patch16_224.augreg_in21k."
        )
    if not checkpoint:
        if not isinstance(name, str):
            raise ConfigError(f"model.name is {name!r}; it must be text.")
        try:
            base = names.resolve(name)[1]
        except ConfigError as error:
            raise ConfigError(f"model.name is {name!r}: {error}") from error
        if not isinstance(base, ViTConfig):
            raise ConfigError(
                f"model.name is {name!r}, which is more than one image encoder; choose another."
            )
        replace(base, **{str(key): value for key, value in options.items()})
        return
    # Whether the values go with the checkpoint is known when it is read.
    fields = [field.name for field in dataclasses.fields(ViTConfig)]
    for key in options:
        if key not in fields:
            raise ConfigError(f"{key!r} is not a model option.{nearest(key, fields)}")
