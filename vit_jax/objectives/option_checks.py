"""Checks that options of several objectives share. Needs no jax."""

from typing import Any

from vit_jax.errors import ConfigError


def is_number(value: Any) -> bool:
    """Return whether a value is a number, and not True or False."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def interval(options: Any, name: str, low: int, high: int, whole: bool = False) -> tuple[Any, ...]:
    """Return an option of two numbers as a tuple.

    Args:
      options: the dataclass that has it.
      name: of the option.
      low, high: what both must lie between.
      whole: whether they must be integers.

    Raises:
      ConfigError: it is something else.
    """
    values = getattr(options, name)
    kind = int if whole else int | float
    good = isinstance(values, list | tuple) and len(values) == 2
    good = good and all(is_number(v) and isinstance(v, kind) for v in values)
    if not good or not low <= values[0] <= values[1] <= high:
        numbers = "integers" if whole else "numbers"
        raise ConfigError(
            f"objective.{name} is {values!r}; it must be two {numbers} between {low} and {high}, the smaller one first."
        )
    return tuple(values)


def numbers(options: Any, name: str, low: float | None, like: str) -> tuple[float, ...]:
    """Return an option of one or several finite numbers as a tuple.

    Args:
      options: the dataclass that has it.
      name: of the option.
      low: what each must at least be; None for any.
      like: what it must be, in words.

    Raises:
      ConfigError: it is something else.
    """
    values = getattr(options, name)
    good = isinstance(values, list | tuple) and len(values) > 0
    if not good or not all(
        is_number(v) and abs(v) < float("inf") and (low is None or v >= low) for v in values
    ):
        raise ConfigError(f"objective.{name} is {values!r}; it must be {like}.")
    return tuple(map(float, values))


def integers(options: Any, name: str) -> tuple[int, ...]:
    """Return an option of any number of integers as a tuple.

    Args:
      options: the dataclass that has it.
      name: of the option.

    Raises:
      ConfigError: it is something else.
    """
    values = getattr(options, name)
    if not isinstance(values, list | tuple) or not all(
        isinstance(value, int) and not isinstance(value, bool) for value in values
    ):
        raise ConfigError(f"objective.{name} is {values!r}; it must be a list of integers.")
    return tuple(values)


def check_ranges(options: Any, names: tuple[str, ...], low: float, high: float) -> None:
    """Raise `ConfigError` for the first of some options that is not between two bounds."""
    for name in names:
        value = getattr(options, name)
        if not low <= value <= high:
            raise ConfigError(f"objective.{name} is {value}; it must be between {low} and {high}.")
