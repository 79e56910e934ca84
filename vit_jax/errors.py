"""Errors that a user can cause: one line each, with the exit status that tells their kind.

A message names the thing, the bad value, what is allowed and what to do. Anything that is not a
`VitError` is a bug and keeps its traceback. Messages may quote what a stranger wrote, in a file's name or in a file:
whatever that is, a message is one printable line of bounded length.
"""

import difflib
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager

LONGEST = 2000  # characters of a message
# Spaces of other widths, and what joins letters or keeps them apart in Persian, Hindi and emoji.
_HARMLESS = str.maketrans("", "", "\u00a0\u2002\u2003\u2007\u2009\u202f\u3000\u200c\u200d")


def printable(text: object) -> str:
    """Return text with line ends, control characters and marks of writing direction as escapes, on one line."""
    text = str(text)
    if is_printable(text):
        return text
    # Half of a surrogate pair is how Python keeps bytes of file names that are no text.
    return "".join(c if is_printable(c) else c.encode("unicode_escape").decode() for c in text)


def is_printable(text: str) -> bool:
    """Return whether text is one line without control characters and marks of writing direction."""
    return text.isprintable() or text.translate(_HARMLESS).isprintable()


# The flags of the command that runs, where one does; whoever calls from Python is answered in Python.
_flags: Collection[str] | None = None


@contextmanager
def speaking(flags: Collection[str]) -> Iterator[None]:
    """Let messages inside name arguments as the command line does: `flags` are those of the command that runs."""
    global _flags
    before, _flags = _flags, flags
    try:
        yield
    finally:
        _flags = before


def argument(name: str, value: object = None, *, key: str = "") -> str:
    """Return how the one who reads a message gives an argument: `ignore=['head']`, or `--ignore head`.

    Args:
      name: in Python; with dashes for underscores it is the command's flag, if it has that.
      value: what to give, a list of what may be given several times; None names the argument alone, and so does True as
        a flag.
      key: of a configuration, for commands that take `--config.KEY=VALUE` and have no such flag.
    """
    python = name if value is None else f"{name}={value!r}"
    if _flags is None:
        return python
    values = [] if value is None or value is True else value if isinstance(value, list) else [value]
    flag = f"--{name.replace('_', '-')}"
    if flag in _flags:
        return " ".join(f"{flag} {_quoted(one)}" for one in values) or flag
    if key and "--config" in _flags:
        given = tuple(value) if isinstance(value, list) else value
        return f"--config.{key}" if value is None else f"--config.{key}={_quoted(given)}"
    return f"{python} in Python"


def _quoted(value: object) -> str:
    """Return a value as a shell takes it."""
    text = str(value)
    plain = text and all(c.isalnum() or c in "_-+=/.,:@%" for c in text)
    return text if plain else '"' + text.replace('"', '\\"') + '"'


class VitError(Exception):
    """Base of all errors caused by input; `exit_status` is what the command line returns.

    Args:
      message: what happened; made printable, and cut in the middle where it is very long.
    """

    exit_status = 2

    def __init__(self, message: str = ""):
        line = printable(message)
        if len(line) > LONGEST:  # the beginning names the thing, the end says what to do
            line = f"{line[: LONGEST // 2]} ... {line[-LONGEST // 2 :]}"
        super().__init__(line)


class ConfigError(VitError):
    """A command, configuration key or argument is wrong (exit status 2)."""


class DataError(VitError):
    """Data is missing, unreadable or inconsistent (exit status 3)."""

    exit_status = 3


class CheckpointError(VitError):
    """A checkpoint is missing, unreadable or belongs to something else (exit status 4)."""

    exit_status = 4


class DivergedError(VitError):
    """Training produced a number that is not finite (exit status 5)."""

    exit_status = 5


class ResourceError(VitError):
    """Memory, disk or permission is lacking (exit status 6)."""

    exit_status = 6


class PeerError(VitError):
    """Another process of the run is lost or stuck; started again, all can go on (exit status 75)."""

    exit_status = 75


class Preempted(VitError):
    """The run was asked to stop, saved its state, and can be started again (exit status 75)."""

    exit_status = 75


class WorkdirBusy(VitError):
    """Another run holds the workdir: the same command will do once that has ended (exit status 75)."""

    exit_status = 75


def nearest(name: str, choices: Iterable[str], count: int = 3) -> str:
    """Return ` Did you mean ...?` for the choices closest to `name`, or an empty string.

    Args:
      name: what the user wrote.
      choices: what exists.
      count: how many suggestions at most.
    """
    choices = [str(choice) for choice in choices]
    lowered = {choice.lower(): choice for choice in choices}
    close = difflib.get_close_matches(str(name).lower(), lowered, n=count, cutoff=0.5)
    if not close:
        return ""
    return f" Did you mean {' or '.join(repr(lowered[c]) for c in close)}?"


def choose(name: object, choices: Iterable[str], thing: str) -> None:
    """Raise `ConfigError` unless `name` is one of `choices`; `thing` names it in the message."""
    choices = list(choices)
    if name not in choices:
        raise ConfigError(
            f"{thing} is {name!r}; it must be one of {', '.join(choices)}.{nearest(str(name), choices)}"
        )
