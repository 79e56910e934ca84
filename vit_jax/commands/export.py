"""`vit-jax export`."""

import argparse

from vit_jax.commands.source import add_source, add_storage, source_of

HELP = "write a classifier as one program that runs on CPUs, GPUs and TPUs"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source(parser)
    add_storage(parser)
    parser.add_argument("output", metavar="OUTPUT", help="folder to write")


def run(arguments: argparse.Namespace) -> int:
    """Export, and say how to use it."""
    source = source_of(arguments)
    from vit_jax.inference.export import export_predictor
    from vit_jax.inference.predictor import Predictor

    predictor = Predictor.load(source, arguments.step, best=arguments.best).stored(arguments.storage)
    export_predictor(predictor, arguments.output)
    print(f"exported to {arguments.output}; use it: vit-jax predict --exported {arguments.output} IMAGE ...")
    return 0
