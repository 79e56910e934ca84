"""Arguments of commands that go through images: which, and what to do with those that cannot be read."""

import argparse
import math
import os
import sys

from vit_jax.errors import ConfigError, DataError, printable
from vit_jax.paths import expanded

_TOLD = 20  # lines of images that were left out; all are counted


def add_images(parser: argparse.ArgumentParser) -> None:
    """Declare the images, and what to do with bad ones."""
    parser.add_argument(
        "images", nargs="+", metavar="IMAGE", help="image files, or folders that hold them at any depth"
    )
    parser.add_argument(
        "--bad",
        choices=("error", "skip"),
        default="error",
        help="what to do with files that are not images; skip leaves them out and exits with status 3",
    )
    parser.add_argument(
        "--max-megapixels",
        type=float,
        metavar="M",
        help="largest image accepted, in millions of pixels (default 64, or the run's own limit)",
    )


def images_of(arguments: argparse.Namespace) -> list[str]:
    """Return the paths that were given.

    Raises:
      ConfigError: --max-megapixels is not above 0.
      DataError: one is nothing that could be read, and such are not to be left out; told here, before a model is read.
    """
    most = arguments.max_megapixels
    if most is not None and not 0 < most < math.inf:
        raise ConfigError(f"--max-megapixels is {most}; it must be a number above 0, such as 200.")
    paths = [expanded(path) for path in arguments.images]
    for path in paths if arguments.bad == "error" else ():
        if not os.path.isfile(path) and not os.path.isdir(path):
            reason = "is neither a file nor a folder" if os.path.exists(path) else "does not exist"
            raise DataError(
                f"image {path!r} {reason}; give paths of image files or of folders that hold them."
            )
    return paths


class LeftOut:
    """What was left out: told as it comes, and at the end counted."""

    def __init__(self) -> None:
        self._count = 0

    def tell(self, error: str) -> None:
        """Say why an image could not be read."""
        self._count += 1
        if self._count <= _TOLD:
            say(f"left out {error}")

    def check(self, total: int) -> None:
        """Raise `DataError` if any of so many images was left out."""
        if self._count:
            raise DataError(
                f"{self._count:,} of {total:,} images could not be read and were left out; repair or remove them."
            )


def say(line: str) -> None:
    """Print a line to stderr, above the bar if there is one."""
    from tqdm import tqdm

    tqdm.write(printable(line), file=sys.stderr)
