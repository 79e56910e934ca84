"""Whether patterns of parameters in a configuration and what they are paired with may be so. Needs no jax."""

import math
import re
import warnings
from typing import Any

from vit_jax.errors import ConfigError
from vit_jax.training.config.durations import check
from vit_jax.training.config.rules import PATTERN_FACTORS, PATTERN_PAIRS, PATTERNS, TACTIC, TYPES


def check_patterns(flat: dict[str, Any]) -> None:
    """Raise ConfigError for what is no regular expression, or does not go with one."""
    for key in (*PATTERNS, *PATTERN_PAIRS):
        for entry in flat[key]:
            pattern = entry
            if key in PATTERN_PAIRS:
                if not isinstance(entry, tuple) or len(entry) != 2:
                    raise ConfigError(
                        f"{key} has {entry!r}; each entry must be a pair of a pattern and its value."
                    )
                pattern, value = entry
                if key == "sharding.rules" and not _is_tactic(value):
                    raise ConfigError(
                        f"sharding.rules has {entry!r}; a tactic must be made of the words replicate, stacked, "
                        "tensor(i) and fsdp."
                    )
                if key in PATTERN_FACTORS and not (TYPES[float][1](value) and 0 <= value < math.inf):
                    raise ConfigError(f"{key} has {entry!r}; the factor must be a number of at least 0.")
            _check_pattern(key, pattern)


def _check_pattern(key: str, pattern: Any) -> None:
    if not isinstance(pattern, str):
        raise ConfigError(f"{key} has {pattern!r}; a pattern must be a string.")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # Of what may soon mean something else.
            re.compile(pattern)
    except (re.error, OverflowError, RecursionError, Warning) as error:
        raise ConfigError(f"{key} has {pattern!r}, which is not a regular expression: {error}.") from error


def check_times(flat: dict[str, Any]) -> None:
    """Raise ConfigError for durations inside of sequences that are not written as such."""
    for value in flat["schedule.milestones"]:
        check(value, "schedule.milestones")
    for entry in flat["optimizer.delay"]:
        if not isinstance(entry, tuple) or len(entry) not in (2, 3):
            raise ConfigError(
                f"optimizer.delay has {entry!r}; each entry must be a pattern, when its parameters start and, if "
                "it differs from schedule.warmup, how long they warm up, or None to join the others."
            )
        _check_pattern("optimizer.delay", entry[0])
        for value in entry[1:2] if entry[-1] is None else entry[1:]:
            check(value, "optimizer.delay")


def _is_tactic(value: Any) -> bool:
    return isinstance(value, str) and TACTIC.fullmatch(value) is not None
