"""`vit-jax features`."""

import argparse
import os

from vit_jax.commands.source import add_source, kept_programs, source_of
from vit_jax.errors import ConfigError, DataError, ResourceError
from vit_jax.paths import check_output

HELP = "write embeddings of images"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source(parser)
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE.npz",
        help="gets features (n, d), files, and of class folders labels and class_names",
    )
    parser.add_argument("--batch-size", type=int, default=64, metavar="B", help="images at once (default 64)")
    parser.add_argument("images", nargs="+", metavar="IMAGE_OR_FOLDER")


def run(arguments: argparse.Namespace) -> int:
    """Write the embeddings, and print what was written."""
    if arguments.batch_size < 1:
        raise ConfigError(f"--batch-size is {arguments.batch_size}; it must be at least 1.")
    if not arguments.output.endswith(".npz"):
        raise ConfigError(f"--output is {arguments.output!r}; it must end with .npz.")
    check_output(arguments.output, "--output")
    folder = os.path.dirname(arguments.output) or "."
    if not os.path.isdir(folder):
        raise ResourceError(f"--output is {arguments.output!r}, but there is no folder {folder!r}; make it.")
    for image in arguments.images:
        if not os.path.exists(image):
            raise DataError(f"image {image!r} does not exist; give image files or folders of them.")
    source = source_of(arguments)
    import dataclasses

    from vit_jax.inference.features import FeatureExtractor, write_features

    extractor = FeatureExtractor.load(source, arguments.step, best=arguments.best)
    extractor = dataclasses.replace(extractor, batch_size=arguments.batch_size)
    with kept_programs(arguments):
        arrays = write_features(extractor, arguments.images, arguments.output)
    count, width = arrays["features"].shape
    classes = f", {len(arrays['class_names'])} classes" if "class_names" in arrays else ""
    print(f"{arguments.output}: {count} embeddings of width {width}{classes}")
    return 0
