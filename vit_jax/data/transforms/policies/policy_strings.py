"""Policies as timm writes them: `rand-m9-mstd0.5-inc1` is a name and options, letters and a value each."""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from vit_jax.errors import ConfigError

Reader = Callable[[str], Any]


def check_text(text: object, name: str) -> None:
    """Raise `ConfigError` unless `text` is one; `name` is of the transform."""
    if not isinstance(text, str):
        raise ConfigError(f"{name}: the policy is {text!r}; it must be a string.")


def read_policy(text: str, name: str, options: Mapping[str, Reader]) -> tuple[str, dict[str, Any]]:
    """Return the first part of a policy, and the values of its options.

    Args:
      text: what the user wrote.
      name: of the transform, for messages.
      options: what reads the value of each option; it raises `ValueError` for what is not allowed.

    Raises:
      ConfigError: an unknown option, one given twice, or a value that is not allowed.
    """
    head, *parts = text.split("-")
    values: dict[str, Any] = {}
    for part in parts:
        # The longest letters first: m9 is also what mmax and mstd begin with.
        letters = next((o for o in sorted(options, key=len, reverse=True) if part.startswith(o)), None)
        if letters is None:
            raise ConfigError(
                f"{name}: {text!r} has the unknown option {part!r}; the options are {', '.join(options)}."
            )
        if letters in values:
            raise ConfigError(f"{name}: {text!r} has the option {letters!r} twice; write it once.")
        try:
            values[letters] = options[letters](part[len(letters) :])
        except ValueError as error:
            raise ConfigError(f"{name}: {text!r} has the option {part!r}; {letters} takes {error}.") from None
    return head, values


def integer(least: int, most: float = math.inf) -> Reader:
    """Return what reads integers from `least` to `most`."""

    def read(text: str) -> int:
        if not re.fullmatch(r"[0-9]+", text) or not least <= int(text) <= most:
            limit = f"from {least} to {most:g}" if most < math.inf else f"of at least {least}"
            raise ValueError(f"an integer {limit}")
        return int(text)

    return read


def number(most: float = math.inf) -> Reader:
    """Return what reads numbers from 0 to `most`."""

    def read(text: str) -> float:
        if not re.fullmatch(r"[0-9]+(\.[0-9]*)?", text) or float(text) > most:
            limit = f"from 0 to {most:g}" if most < math.inf else "of at least 0"
            raise ValueError(f"a number {limit}")
        return float(text)

    return read


def choice(names: Mapping[str, Any]) -> Reader:
    """Return what reads one of some names."""

    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"one of {', '.join(names)}")
        return text

    return read


def noisy(level: float, deviation: float, most: float, rng: np.random.Generator) -> float:
    """Return a level with noise, from 0 to `most`.

    Args:
      level: of the policy.
      deviation: of normal noise; infinite for levels uniform from 0 to `level`.
      most: the highest level.
      rng: draws the noise.
    """
    if deviation == math.inf:
        level = rng.uniform(0, level)
    elif deviation > 0:
        level = rng.normal(level, deviation)
    return max(0.0, min(level, most))
