"""`vit-jax convert`."""

import argparse
import os

HELP = "write a checkpoint in another library's format"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", metavar="IN", help="timm/..., facebook/..., gs://..., a file or folder")
    parser.add_argument("target", metavar="OUT", help="the file or folder to write")
    parser.add_argument(
        "--format", required=True, choices=("timm", "hf", "npz", "orbax"), help="hf is transformers' layout"
    )
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="NAME", help="an array of IN that may be left out"
    )


def run(arguments: argparse.Namespace) -> int:
    """Convert, and print what became of the arrays."""
    # Files are read and written here; no accelerator has to be there, or to be free.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from vit_jax.weights.convert import convert

    print(convert(arguments.source, arguments.target, arguments.format, ignore=tuple(arguments.ignore)))
    return 0
