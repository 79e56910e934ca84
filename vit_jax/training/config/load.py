"""One experiment's configuration: from a file, as JSON, compared with another. Needs no jax.

A configuration is an `ml_collections.ConfigDict`. A config file is Python with `get_config(arg=None)`
returning `default_config()` with changes. What may stand in it is in `training.config.rules`.
"""

import importlib.util
import inspect
import json
import os
import re
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from ml_collections import ConfigDict

from vit_jax.errors import ConfigError, ResourceError, argument, nearest
from vit_jax.paths import expanded, read_file
from vit_jax.training.config.checks import checked, validate
from vit_jax.training.config.defaults import default_config, flatten, tuples
from vit_jax.training.config.overrides import MAX_DIGITS, apply_override
from vit_jax.training.config.rules import OPEN_SECTIONS

__all__ = [
    "check_resumable",
    "checked",
    "default_config",
    "difference",
    "from_json",
    "load_config",
    "read_saved",
    "to_json",
    "validate",
]

# Keys that do not change what is trained and may differ when a run is resumed; "data." is a section.
HARMLESS = (
    "log.",
    "checkpoint.",
    "evaluation.",
    "compilation.",
    "divergence.max_skipped",
    "watchdog.",
    "data.eval_batch_size",
    "data.bad_records",
    "data.eval_bad_records",
    "data.max_bad_share",
    "data.num_threads",
    "data.num_workers",
    "data.prefetch",
)
# Keys that change only where the arithmetic happens: allowed, but sums are added in another order, or large images
# decoded at another size.
NOT_BITWISE = ("mesh.", "sharding.", "data.cache")
ABSENT = "(not set)"
MAX_BYTES = 10_000_000  # of a config file


def load_config(path_and_arg: str, overrides: Sequence[str] = ()) -> ConfigDict:
    """Return the checked configuration of a file, with overrides applied.

    Args:
      path_and_arg: `file.py`, `file.py:arg` (what `get_config` is called with) or a `.json` that changes
        defaults, such as a saved configuration. A `.py` is run: only local files are accepted.
      overrides: `key.sub=value`, for example `optimizer.learning_rate=3e-4`.

    Raises:
      ConfigError: the file is missing or is not a configuration, or a key or value is wrong.
    """
    if "://" in path_and_arg:
        raise ConfigError(
            f"config {path_and_arg!r} is a URL; configurations run as code, so download it and read it first."
        )
    match = re.fullmatch(r"(.+?\.(?:py|json))(?::(.*))?", path_and_arg)
    if match is None:
        raise ConfigError(f"config {path_and_arg!r} must be FILE.py, FILE.py:ARGUMENT or FILE.json.")
    path, arg = Path(expanded(match[1])), match[2]
    if not os.path.isfile(path):
        siblings = (
            sorted(file.name for file in path.parent.glob("*.py")) if os.path.isdir(path.parent) else []
        )
        hint = nearest(path.name, siblings) or (
            f" That folder has {', '.join(siblings)}." if siblings else ""
        )
        raise ConfigError(f"config file {str(path)!r} does not exist.{hint}")
    config = _from_json_file(path, arg) if path.suffix == ".json" else _from_python_file(path, arg)
    for override in overrides:
        apply_override(config, override)
    return checked(config)


def to_json(config: ConfigDict) -> str:
    """Return a configuration as JSON text, from which `from_json` rebuilds it."""
    return json.dumps(config.to_dict(), indent=2, allow_nan=False)


def from_json(text: str) -> ConfigDict:
    """Return the configuration of `to_json`; sequences are tuples.

    Raises:
      ConfigError: the text is not a JSON object.
    """
    try:
        values = json.loads(text, parse_int=_integer)
    except (ValueError, RecursionError) as error:  # also numbers of more digits than Python reads
        raise ConfigError(f"configuration is not JSON: {error}.") from error
    if not isinstance(values, dict):
        raise ConfigError(f"configuration is {text[:40]!r}; it must be a JSON object.")
    try:
        return ConfigDict(tuples(values), type_safe=False)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:  # names with dots, for example
        raise ConfigError(f"configuration has an invalid key: {error}.") from error


def _integer(text: str) -> int:
    if len(text) > MAX_DIGITS:  # floats have fewer, and Python takes long to read very many
        raise ValueError(f"a number has {len(text)} digits")
    return int(text)


def read_saved(values: dict[str, Any]) -> ConfigDict:
    """Return the configuration that was saved with a checkpoint; keys it did not know yet have their defaults."""
    saved = from_json(json.dumps(values))
    config = _merged(saved)
    for section in OPEN_SECTIONS:  # These are whole as they are.
        name = section.removesuffix(".")
        if name not in saved:
            raise ConfigError(f"the saved configuration has no section {name!r} and is damaged.")
        config[name] = saved[name]
    return config


def difference(old: ConfigDict, new: ConfigDict) -> dict[str, tuple[Any, Any]]:
    """Return `{key: (old value, new value)}` of keys that differ; `ABSENT` stands for no key."""
    before, after = flatten(old), flatten(new)
    return {
        key: (before.get(key, ABSENT), after.get(key, ABSENT))
        for key in dict.fromkeys([*before, *after])
        if before.get(key, ABSENT) != after.get(key, ABSENT)
    }


def check_resumable(saved: ConfigDict, new: ConfigDict, allow: Iterable[str] = ()) -> list[str]:
    """Raise `ConfigError` unless a run of `saved` may go on with `new`; return notices to print.

    Args:
      saved: what the run was started with.
      new: what it is started with now.
      allow: keys (`duration`) or sections (`optimizer`) whose change is intended.

    Returns:
      One line for each change that is accepted but not harmless.
    """
    changes = difference(saved, new)
    allow = list(allow)
    keys = flatten(default_config()) | dict.fromkeys(changes)
    known = {*keys, *(key.rpartition(".")[0] for key in keys)} - {""}
    for name in allow:
        if name not in known:
            raise ConfigError(
                f"{argument('allow_change', [name])}: there is no such key.{nearest(name, known)}"
            )
    refused, notices = [], []
    for key, (old, now) in changes.items():
        line = f"{key}: {old!r} -> {now!r}"
        if key.startswith(HARMLESS):
            continue
        if key.startswith(NOT_BITWISE):
            notices.append(f"{line} (not bitwise the same from here on)")
        elif any(key == name or key.startswith(f"{name}.") for name in allow):
            notices.append(f"{line} (allowed)")
        else:
            refused.append((key, line))
    if refused:
        remedy = argument("allow_change", [key for key, _ in refused])
        raise ConfigError(
            f"the run was started with a different configuration: {'; '.join(line for _, line in refused)}. "
            f"Use another {argument('workdir')}, or {remedy}."
        )
    return notices


def _from_json_file(path: Path, arg: str | None) -> ConfigDict:
    if arg is not None:
        raise ConfigError(f"config {str(path)!r} is JSON and takes no argument, but was given {arg!r}.")
    try:
        saved = from_json(_contents(path).decode())
    except (UnicodeDecodeError, ConfigError) as error:
        raise ConfigError(f"config file {str(path)!r} is not a JSON object: {error}") from error
    return _merged(saved)


def _merged(saved: ConfigDict) -> ConfigDict:
    """Return the defaults with what was saved in their place."""
    defaults = default_config()
    for name, value in saved.items():
        if isinstance(defaults.get(name), ConfigDict) and not isinstance(value, ConfigDict):
            raise ConfigError(f"{name} is {value!r}; it must be a section with {', '.join(defaults[name])}.")
    defaults.update(saved)
    return defaults


def _contents(path: Path) -> bytes:
    """Return what is in a config file."""
    try:
        return read_file(path, MAX_BYTES)
    except PermissionError:
        raise ResourceError(
            f"config file {str(path)!r} may not be read; give this user permission to read it."
        ) from None
    except OSError as error:
        raise ConfigError(f"config file {str(path)!r} cannot be read: {error.strerror}.") from error


def _from_python_file(path: Path, arg: str | None) -> ConfigDict:
    _contents(path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None  # the suffix is .py
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        config = _call_get_config(module, path, arg)
    except SyntaxError as error:
        raise ConfigError(f"config file {str(path)!r}, line {error.lineno}: {error.msg}.") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"config file {str(path)!r} is not UTF-8 text: {error.reason}.") from error
    except (AttributeError, KeyError) as error:
        mistake = _misspelled_key(error, path)
        if mistake is None:
            raise
        raise ConfigError(mistake) from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(
            f"get_config of {str(path)!r} returned {type(config).__name__}; it must return a modified "
            "default_config()."
        )
    return config


def _call_get_config(module: ModuleType, path: Path, arg: str | None) -> Any:
    get_config = getattr(module, "get_config", None)
    if not callable(get_config):
        raise ConfigError(
            f"config file {str(path)!r} has no function get_config(); it must return a ConfigDict."
        )
    parameters = list(inspect.signature(get_config).parameters.values())
    if arg is None and parameters and parameters[0].default is inspect.Parameter.empty:
        raise ConfigError(f"config {str(path)!r} needs an argument: {path}:{parameters[0].name.upper()}.")
    if arg is not None and not parameters:
        raise ConfigError(f"config {str(path)!r} takes no argument, but was given {arg!r}.")
    return get_config() if arg is None else get_config(arg)


def _misspelled_key(error: Exception, path: Path) -> str | None:
    """Return one line if a `ConfigDict` was asked for a key it has not; None if the error is a bug."""
    frames = list(traceback.walk_tb(error.__traceback__))
    section = frames[-1][0].f_locals.get("self")
    if not isinstance(section, ConfigDict):
        return None
    line = [number for frame, number in frames if Path(frame.f_code.co_filename) == path][-1]
    key = getattr(error, "name", None) or str(error.args[0]).splitlines()[0].strip("'\"")
    hint = nearest(key, section.keys()) or f" Its keys are {', '.join(section.keys())}."
    return f"config file {str(path)!r}, line {line}: there is no key {key!r}.{hint}"
