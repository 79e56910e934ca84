"""Arguments of commands that use a model: `--workdir` or `--checkpoint`, and which step of a run."""

import argparse
import os
from pathlib import Path

from vit_jax.errors import CheckpointError, ConfigError


def add_source(parser: argparse.ArgumentParser) -> None:
    """Declare where the model comes from."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--workdir", metavar="DIR", help="of the training, or one checkpoint of it")
    where.add_argument(
        "--checkpoint",
        metavar="NAME",
        help="a published one: timm/..., facebook/..., gs://..., https://..., a file or folder",
    )
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--step", type=int, metavar="N", help="which checkpoint; the newest if not given")
    which.add_argument("--best", action="store_true", help="the best checkpoint instead of the newest")


def source_of(arguments: argparse.Namespace) -> str | Path:
    """Return the workdir as a path, or the checkpoint's name as text.

    Raises:
      CheckpointError: there is no such workdir; told here, before seconds of imports.
      ConfigError: a step is asked for where there are none.
    """
    if arguments.workdir is None:
        if arguments.step is not None or arguments.best:
            given = "--best" if arguments.best else "--step"
            raise ConfigError(f"{given} chooses among the steps of a training; give its --workdir.")
        return arguments.checkpoint
    if not os.path.isdir(arguments.workdir):
        raise CheckpointError(
            f"workdir {arguments.workdir!r} does not exist; give the --workdir of a training."
        )
    return Path(arguments.workdir)
