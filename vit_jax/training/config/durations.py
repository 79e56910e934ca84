"""Durations: one value with its unit, `500`, `"30 epochs"`, `"1e6 examples"` or `"5%"`. Needs no jax."""

import re

from vit_jax.errors import ConfigError

MOST = 1e15  # no run has as many steps or examples
FORMS = "500, '500 steps', '30 epochs', '1e6 examples'"
_PATTERN = re.compile(r"((?:\d+\.?\d*|\.\d+)(?:e[+-]?\d+)?)\s*(steps?|epochs?|examples?|%)?", re.IGNORECASE)


def check(value: object, name: str, *, percent: bool = True) -> None:
    """Raise `ConfigError` unless `value` is written as a duration.

    Args:
      value: what the configuration says.
      name: its key, for the message.
      percent: whether a share of the run is allowed.
    """
    _parse(value, name, percent)


def steps(
    value: object, *, batch_size: int, examples: int | None, total_steps: int | None = None, name: str
) -> int:
    """Return a duration in steps.

    Epochs, examples and percentages are rounded to the nearest number of steps, but to at least one unless
    they are zero.

    Args:
      value: an integer (steps) or a text such as "30 epochs".
      batch_size: examples in a step, over all devices and hosts.
      examples: examples in an epoch, or None when the data are endless.
      total_steps: steps of the run, which percentages refer to; None where they make no sense.
      name: the configuration key, for messages.

    Raises:
      ConfigError: the value is not a duration, or its unit cannot be used here.
    """
    number, unit = _parse(value, name, percent=total_steps is not None)
    if unit == "step":
        return int(number)
    if unit == "epoch" and examples is None:
        raise ConfigError(f"{name} is {value!r}, but the data is endless; give steps or examples.")
    if unit == "%":
        exact = number * (total_steps or 0) / 100
    else:
        exact = number * (examples or 0 if unit == "epoch" else 1) / batch_size
    return max(1, round(exact)) if number else 0


def _parse(value: object, name: str, percent: bool) -> tuple[float, str]:
    """Return the number and its unit: step, epoch, example or %."""
    match = None
    if isinstance(value, int | float | str) and not isinstance(value, bool):
        match = _PATTERN.fullmatch(str(value).strip())
    if match is None or not float(match[1]) < MOST:
        allowed = FORMS + (" or '5%'" if percent else "")
        raise ConfigError(f"{name} is {value!r}; it must be a number with its unit: {allowed}.")
    number, unit = float(match[1]), (match[2] or "step").lower().rstrip("s")
    if unit == "%" and not percent:
        raise ConfigError(
            f"{name} is {value!r}, but a percentage of the run has no meaning here; write {FORMS}."
        )
    if unit == "%" and number > 100:
        raise ConfigError(f"{name} is {value!r}; it must be at most 100% of the run.")
    if unit == "step" and not number.is_integer():
        raise ConfigError(f"{name} is {value!r}; steps must be a whole number.")
    return number, unit
