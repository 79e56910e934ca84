"""`vit-jax convert`."""

import argparse
import os

HELP = "write a checkpoint in another library's format"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument(
        "source", metavar="IN", help="checkpoint to read: timm/..., gs://..., a file, a folder or a workdir"
    )
    parser.add_argument("target", metavar="OUT", help="file or folder to write")
    parser.add_argument(
        "--format",
        required=True,
        choices=("timm", "hf", "npz", "torchvision", "pth", "orbax"),
        help="format to write; hf is the layout of transformers, pth the PyTorch file of a model's authors",
    )
    parser.add_argument(
        "--weights",
        metavar="NAME",
        help="which weights to take from a file that holds several sets: teacher, state_dict_ema, ...",
    )
    parser.add_argument(
        "--part", help="which part to write of a model that has several: image, text or encoder"
    )
    parser.add_argument(
        "--eval-transforms",
        metavar="TEXT",
        help="preprocessing to record for readers of the file; by default the run's evaluation transforms",
    )
    parser.add_argument(
        "--ignore",
        action="append",
        default=[],
        metavar="FIELD",
        help="what may be lost: a property that the format cannot hold, or an array of the file; repeatable",
    )


def run(arguments: argparse.Namespace) -> int:
    """Convert, and print what became of the arrays."""
    # Files are read and written here; no accelerator has to be there, or to be free.
    os.environ["JAX_PLATFORMS"] = "cpu"
    from vit_jax.weights.convert import convert

    options = dict(
        ignore=arguments.ignore,
        weights=arguments.weights,
        part=arguments.part,
        eval_transforms=arguments.eval_transforms,
    )
    print(convert(arguments.source, arguments.target, arguments.format, **options))
    return 0
