"""The command `vit-jax`. Imports nothing heavy before a command needs it."""

import argparse
import os
import sys
from collections.abc import Sequence
from typing import NoReturn

from vit_jax.allocation import start_tuned
from vit_jax.commands import (
    benchmark,
    convert,
    data,
    evaluate,
    export,
    features,
    models,
    plan,
    predict,
    replay,
    train,
)
from vit_jax.errors import ConfigError, VitError, nearest, speaking
from vit_jax.version import __version__

COMMANDS = {
    "train": train,
    "evaluate": evaluate,
    "predict": predict,
    "features": features,
    "convert": convert,
    "export": export,
    "data": data,
    "models": models,
    "benchmark": benchmark,
    "plan": plan,
    "replay": replay,
}
COMPUTING = ("train", "evaluate", "predict", "features", "benchmark", "replay")
WITH_CONFIG = ("train", "evaluate", "plan", "data show")  # they take --config.KEY=VALUE


class _Parser(argparse.ArgumentParser):
    """Tells a usage error in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or the kind of error, see `vit_jax.errors`."""
    if arguments is None and sys.argv[1:2] and sys.argv[1] in COMPUTING:
        start_tuned()
    try:
        again = sys.orig_argv[1:] if arguments is None else ["-m", "vit_jax.cli", *arguments]
        status = _run(list(sys.argv[1:] if arguments is None else arguments), again)
        sys.stdout.flush()  # here, where a broken pipe is expected, rather than at Python's end
        return status
    except VitError as error:
        print(f"vit-jax: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("vit-jax: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; say nothing, and let Python not try again.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 0


def _run(arguments: list[str], again: list[str]) -> int:
    """Run a command; `again` is what Python was started with, or would be, for the same."""
    parser = _parser()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise ConfigError(
            f"unknown command {arguments[0]!r}; commands are {', '.join(COMMANDS)}."
            f"{nearest(arguments[0], COMMANDS)}"
        )
    parsed, rest = parser.parse_known_args(arguments)
    if parsed.command is None:
        if rest:
            raise ConfigError(f"unknown argument {rest[0]!r}; see vit-jax --help")
        parser.print_help()
        return 0
    command = " ".join(filter(None, (parsed.command, getattr(parsed, "action", ""))))
    parsed.overrides, parsed.again = _overrides(rest, command), again
    with speaking(_flags(parser, command)):
        return COMMANDS[parsed.command].run(parsed)


def _flags(parser: argparse.ArgumentParser, command: str) -> set[str]:
    """Return the flags of a command; `--config` is among them where it takes `--config.KEY=VALUE`."""
    for word in command.split():
        (choices,) = (action.choices for action in parser._actions if isinstance(action.choices, dict))
        parser = choices[word]
    flags = {flag for action in parser._actions for flag in action.option_strings}
    return flags | ({"--config"} if command in WITH_CONFIG else set())


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="vit-jax", description="Vision Transformers in JAX.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"vit-jax {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)
    for name, command in COMMANDS.items():
        command.add_arguments(commands.add_parser(name, help=command.HELP, allow_abbrev=False))
    return parser


def _overrides(rest: list[str], command: str) -> list[str]:
    """Return `key=value` of every `--config.key=value`; anything else that is left is an error."""
    overrides = []
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if not name.startswith("--config.") or command not in WITH_CONFIG:
            raise ConfigError(f"unknown argument {argument!r}; see vit-jax {command} --help")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"{name} has no value; write {name}=VALUE")
            value = rest.pop(0)
        overrides.append(f"{name.removeprefix('--config.')}={value}")
    return overrides


if __name__ == "__main__":
    sys.exit(main())
