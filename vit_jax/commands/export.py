"""`vit-jax export`."""

import argparse

from vit_jax.commands.source import add_source, add_storage, batch_sizes_of, source_of, which_of

HELP = "write a classifier as one program that runs on CPUs, GPUs and TPUs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source(parser)
    add_storage(parser)
    parser.add_argument(
        "--batch-sizes",
        metavar="N,N,...",
        help="export one program per batch size; by default a single one for any size",
    )
    parser.add_argument("output", metavar="OUTPUT", help="folder to write")


def run(arguments: argparse.Namespace) -> int:
    """Export, and say how to use it."""
    source = source_of(arguments)
    sizes = batch_sizes_of(arguments) if arguments.batch_sizes else []
    from vit_jax.inference.export.export import export_predictor
    from vit_jax.inference.predictor import Predictor

    predictor = Predictor.load(source, **which_of(arguments)).stored(arguments.storage)
    export_predictor(predictor, arguments.output, sizes)
    print(
        f"exported to {arguments.output}; to use it: vit-jax predict --exported {arguments.output} IMAGE ..."
    )
    return 0
