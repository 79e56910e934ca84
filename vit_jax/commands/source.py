"""Arguments of commands that use a model: `--workdir` or `--checkpoint`, and which step of a run."""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from vit_jax.errors import CheckpointError, ConfigError, choose
from vit_jax.models.layers.encoder_config import STORAGES
from vit_jax.paths import expanded


def add_source(parser: argparse.ArgumentParser, *, exported: bool = False) -> None:
    """Declare where the model comes from; `exported`: it may also be one that `vit-jax export` wrote."""
    where = parser.add_mutually_exclusive_group(required=True)
    where.add_argument("--workdir", metavar="DIR", help="workdir of a run, or one checkpoint in it")
    where.add_argument(
        "--checkpoint",
        metavar="NAME",
        help="a published checkpoint: timm/..., facebook/..., gs://..., https://..., a file or a folder",
    )
    parser.add_argument(
        "--weights",
        metavar="NAME",
        help="which weights to take of several: of a --checkpoint teacher, state_dict_ema, ..., of a run that trains "
        "several networks student or teacher",
    )
    if exported:
        where.add_argument("--exported", metavar="DIR", help="a folder that vit-jax export wrote")
    which = parser.add_mutually_exclusive_group()
    which.add_argument(
        "--step", type=int, metavar="N", help="step of the checkpoint to use (default the newest)"
    )
    which.add_argument("--best", action="store_true", help="use the best checkpoint instead of the newest")


def add_storage(parser: argparse.ArgumentParser) -> None:
    """Declare how parameters are stored."""
    parser.add_argument(
        "--storage",
        default="float32",
        help="how parameters are stored: float32 (default), bfloat16 (half the memory) or int8 (a quarter)",
    )


def source_of(arguments: argparse.Namespace, *, encoder: bool = False) -> str | Path:
    """Return the workdir as a path, or the checkpoint's name as text; `encoder`: only the model itself is used.

    Raises:
      CheckpointError: there is no such workdir; told here, before seconds of imports.
      ConfigError: a step is asked for where there are none, or there is no such storage.
    """
    choose(getattr(arguments, "storage", STORAGES[0]), STORAGES, "--storage")
    if arguments.weights is not None and arguments.checkpoint is None and not encoder:
        raise ConfigError(
            f"--weights is {arguments.weights!r}; it selects weights within a published --checkpoint; give one."
        )
    if arguments.workdir is not None:
        arguments.workdir = expanded(arguments.workdir)
    if arguments.workdir is None:
        if arguments.step is not None or arguments.best:
            given = "--best" if arguments.best else "--step"
            raise ConfigError(f"{given} selects one of a run's checkpoints; give its --workdir.")
        return str(arguments.checkpoint)
    if not os.path.isdir(arguments.workdir):
        raise CheckpointError(f"workdir {arguments.workdir!r} does not exist; give the --workdir of a run.")
    return Path(arguments.workdir)


def batch_sizes_of(arguments: argparse.Namespace) -> list[int]:
    """Return the numbers of `--batch-sizes`.

    Raises:
      ConfigError: they are none.
    """
    words = arguments.batch_sizes.split(",")
    if not all(word.strip().isdecimal() and 0 < int(word) <= 2**20 for word in words):
        raise ConfigError(
            f"--batch-sizes is {arguments.batch_sizes!r}; it must be positive whole numbers, such as 1,8,32."
        )
    return [int(word) for word in words]


def which_of(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return which checkpoint of a training, or which weights of a file, as `Predictor.load` takes it."""
    return {"step": arguments.step, "best": arguments.best, "weights": arguments.weights}


@contextmanager
def kept_programs(arguments: argparse.Namespace) -> Iterator[None]:
    """Keep what is compiled inside, so that the same command starts at once the next time; where the run says."""
    from vit_jax.training.devices.compilation import kept_programs

    setting, workdir = "auto", arguments.workdir
    if workdir is not None:
        from vit_jax.inference.workdir import find

        setting = find(workdir, arguments.step, best=arguments.best).config.compilation.cache
    with kept_programs(setting, Path(workdir or ".")):
        yield
