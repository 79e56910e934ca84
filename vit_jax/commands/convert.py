"""`vit-jax convert`."""

import argparse
import os

HELP = "write a checkpoint in another library's format"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("source", metavar="IN", help="timm/..., gs://..., a file, a folder, a workdir")
    parser.add_argument("target", metavar="OUT", help="the file or folder to write")
    parser.add_argument(
        "--format", required=True, choices=("timm", "hf", "npz", "orbax"), help="hf is transformers' layout"
    )
    parser.add_argument(
        "--ignore", action="append", default=[], metavar="FIELD", help="what the format may lose of the model"
    )


def run(arguments: argparse.Namespace) -> int:
    """Convert, and print what became of the arrays."""
    # Files are read and written here; no accelerator has to be there, or to be free.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from vit_jax.weights.convert import convert

    print(convert(arguments.source, arguments.target, arguments.format, ignore=arguments.ignore))
    return 0
