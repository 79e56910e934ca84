"""Names of what a model's call returns beside its output; every family reads them alike. Needs no jax."""

import re
from collections.abc import Mapping, Sequence

from vit_jax.errors import ConfigError, nearest

OF_BLOCKS = ("blocks", "attention")  # what is captured of single blocks: their outputs, and their weights


def parse_captures(
    capture: str | tuple[str, ...], kinds: Sequence[str], counts: Mapping[str, int], together: bool = False
) -> dict[str, tuple[str, int | None]]:
    """Return kind and number of each name: `attention/-1` of five blocks is number 4 of `attention`.

    Args:
      capture: a name or several.
      kinds: what can be captured.
      counts: of those kinds of which there are several, how many.
      together: whether such a kind without a number is all of them, numbered None.

    Raises:
      ConfigError: a name is of nothing in this model.
    """
    wanted: dict[str, tuple[str, int | None]] = {}
    for name in (capture,) if isinstance(capture, str) else capture:
        match = re.fullmatch(r"(\w+)(?:/(-?\d+))?", name)
        kind, number = match.groups() if match else (name, None)
        if kind not in kinds:
            raise ConfigError(
                f"{name!r} cannot be captured; names are {', '.join(kinds)}.{nearest(kind, kinds)}"
            )
        count = counts.get(kind)
        if number is None:
            if count is not None and not together:
                raise ConfigError(f"{name!r} has no number, but {kind} are counted; the last is {kind}/-1.")
            wanted[name] = kind, None
        elif count is None:
            raise ConfigError(f"{name!r} has a number, but only {', '.join(counts)} are counted.")
        elif not -count <= int(number) < count:
            raise ConfigError(f"{name!r} is not part of this model; it has {count} {kind}, counted from 0.")
        else:
            wanted[name] = kind, int(number) % count
    return wanted
