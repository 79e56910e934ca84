"""Arguments of commands that use a model: `--workdir` or `--checkpoint`, and which step of a run."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from vit_jax.errors import CheckpointError, ConfigError, choose
from vit_jax.models.encoder_config import STORAGES


def add_source(parser: argparse.ArgumentParser, *, exported: bool = False) -> None:
    """Declare where the model comes from; `exported`: it may also be one that `vit-jax export` wrote."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--workdir", metavar="DIR", help="of the training, or one checkpoint of it")
    where.add_argument(
        "--checkpoint",
        metavar="NAME",
        help="a published one: timm/..., facebook/..., gs://..., https://..., a file or folder",
    )
    if exported:
        where.add_argument("--exported", metavar="DIR", help="a folder that vit-jax export wrote")
    which = parser.add_mutually_exclusive_group()
    which.add_argument("--step", type=int, metavar="N", help="which checkpoint; the newest if not given")
    which.add_argument("--best", action="store_true", help="the best checkpoint instead of the newest")


def add_storage(parser: argparse.ArgumentParser) -> None:
    """Declare how parameters are stored."""
    parser.add_argument(
        "--storage",
        default="float32",
        help="how parameters are stored: float32 (default), bfloat16 or int8, in a half or a quarter of the memory",
    )


def source_of(arguments: argparse.Namespace) -> str | Path:
    """Return the workdir as a path, or the checkpoint's name as text.

    Raises:
      CheckpointError: there is no such workdir; told here, before seconds of imports.
      ConfigError: a step is asked for where there are none, or there is no such storage.
    """
    choose(getattr(arguments, "storage", STORAGES[0]), STORAGES, "--storage")
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


@contextmanager
def kept_programs(arguments: argparse.Namespace) -> Iterator[None]:
    """Keep what is compiled inside, so that the same command starts at once the next time; where the run says."""
    from vit_jax.training.compilation import kept_programs

    setting, workdir = "auto", arguments.workdir
    if workdir is not None:
        from vit_jax.inference.workdir import find

        setting = find(workdir, arguments.step, best=arguments.best).config.compilation.cache
    with kept_programs(setting, Path(workdir or ".")):
        yield
