"""Changes of single configuration keys from text, `optimizer.learning_rate=3e-4`. Needs no jax."""

import ast
import dataclasses
from typing import Any

from ml_collections import ConfigDict

from vit_jax.errors import ConfigError, nearest
from vit_jax.models.families import option_defaults
from vit_jax.models.preprocessing import Preprocessing
from vit_jax.objectives.options import OBJECTIVES, option_fields
from vit_jax.training.config.defaults import default_config, flatten
from vit_jax.training.config.rules import CHECKPOINT_KEYS, DURATIONS, NAMES, OPEN_SECTIONS

MAX_DIGITS = 20  # of a number


def apply_override(config: ConfigDict, override: str) -> None:
    """Set one key of `config` from `key.sub=value`, read as the type of the key's default.

    Integers may be written `1e4`, booleans are true or false, sequences are Python literals, text is taken as
    it is; keys of `model` and `objective` may be new.

    Raises:
      ConfigError: there is no such key (the nearest are named), or the value cannot be read.
    """
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r} must be written key=value, for example seed=1.")
    defaults = settable(config)
    if key not in defaults:
        inside = [name for name in defaults if name.startswith(f"{key}.")]
        if inside:
            raise ConfigError(f"{key} is a section; set one of its keys: {', '.join(inside)}.")
        raise ConfigError(f"{key!r} is not a configuration key.{nearest(key, defaults)}")
    *parents, last = key.split(".")
    section: Any = config
    for parent in parents:
        if parent not in section:
            section[parent] = ConfigDict(type_safe=False)
        section = section[parent]
        if not isinstance(section, ConfigDict):
            raise ConfigError(f"{parent} is {section!r}; it must be a section, so {key} cannot be set.")
    section[last] = parse_value(key, text, defaults[key])


def parse_value(key: str, text: str, default: Any) -> Any:
    """Return the value that `text` means for a key with this default.

    Raises:
      ConfigError: the text cannot be read as the type of the default.
    """
    new_key_allowed = key.startswith(OPEN_SECTIONS)
    if key in DURATIONS:
        return int(text) if text.isdecimal() and len(text) < MAX_DIGITS else text
    if new_key_allowed and text.lower() == "none" and not isinstance(default, str):
        return None
    if isinstance(default, bool):
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{key} is {text!r}; it must be true or false.")
        return text.lower() == "true"
    # Of options that several families have, one may have a number for each stage.
    if isinstance(default, int) and not (key.startswith("model.") and text.startswith(("(", "["))):
        return _number(key, text, integer=True)
    if isinstance(default, float) and not (key.startswith("objective.") and _is_a_word_or_several(text)):
        return _number(key, text, integer=False)
    if isinstance(default, float) and not text.startswith(("(", "[")):
        return text
    if isinstance(default, str) and not (new_key_allowed and text.startswith(("(", "["))):
        return text
    try:
        value = ast.literal_eval(text)
        if value == {}:  # would be a section without keys, which says nothing
            raise ValueError
        return value
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        example = default if isinstance(default, tuple) and default else NAMES.get(key, ("head",))[:1]
        raise ConfigError(f"{key} is {text!r}; it must be a Python value such as {example!r}.") from None


def _is_a_word_or_several(text: str) -> bool:
    """Return whether a value stands for something else than a number, of which an objective's options may know."""
    return text.startswith(("(", "[")) or (
        text.isidentifier() and text.lower() not in ("nan", "inf", "infinity")
    )


def _number(key: str, text: str, *, integer: bool) -> int | float:
    try:
        number = float(text)
        if not integer:
            return number
        return int(number) if number.is_integer() and "e" in text.lower() else int(text)
    except ValueError:
        raise ConfigError(
            f"{key} is {text!r}; it must be {'an integer' if integer else 'a number'}."
        ) from None


def settable(config: ConfigDict) -> dict[str, Any]:
    """Return the default of every key that may be set, model and objective options included."""
    defaults = flatten(default_config())
    defaults |= {f"model.{name}": default for name, default in option_defaults().items()}
    del defaults["model.preprocessing"]
    defaults |= {f"model.{key}": default for key, default in CHECKPOINT_KEYS.items()}
    for field in dataclasses.fields(Preprocessing):
        defaults[f"model.preprocessing.{field.name}"] = field.default
    section = config.get("objective")
    # Last, where options of several have the same name.
    chosen = section.get("name") if isinstance(section, ConfigDict) else None
    for name in sorted(OBJECTIVES, key=lambda name: name == chosen):
        for field in option_fields(name):
            defaults[f"objective.{field.name}"] = field.default
    return defaults
