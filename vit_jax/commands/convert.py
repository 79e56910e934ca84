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
    from vit_jax.inference.predictor import Predictor
    from vit_jax.inference.published import is_run
    from vit_jax.inference.workdir import find
    from vit_jax.weights.convert import convert
    from vit_jax.weights.save import save

    source, target, kind = arguments.source, arguments.target, arguments.format
    if is_run(source) and find(source).adapted:  # no other library knows our low-rank factors
        predictor = Predictor.load(source)
        names = predictor.objective.data.class_names
        print(save(predictor.network, target, kind, class_names=names, ignore=arguments.ignore))
    else:
        print(convert(source, target, kind, ignore=arguments.ignore))
    return 0
