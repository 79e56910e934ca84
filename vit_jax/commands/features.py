"""`vit-jax features`."""

import argparse
import os

from vit_jax.commands.images import LeftOut, add_images, images_of, say
from vit_jax.commands.source import add_source, kept_programs, source_of, which_of
from vit_jax.errors import ConfigError, ResourceError
from vit_jax.paths import check_output

HELP = "write embeddings of images, or maps of features"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source(parser)
    parser.add_argument(
        "--output",
        required=True,
        metavar="FILE.npz",
        help="file to write: features (n, d), files and, for class folders, labels and class_names",
    )
    parser.add_argument(
        "--levels",
        metavar="L,L,...",
        help="write maps (n, h, w, c) instead: strides (4,8,16,32) or names (stages/1,blocks/-1), see vit-jax models",
    )
    parser.add_argument(
        "--resample", action="store_true", help="take of a stride that no map has the nearest map, resampled"
    )
    parser.add_argument(
        "--pca",
        metavar="FILE.png",
        help="also draw the principal components of the last of --levels (default: the coarsest map) as colours, of up "
        "to 64 images together",
    )
    parser.add_argument("--batch-size", type=int, default=64, metavar="B", help="batch size (default 64)")
    add_images(parser)


def run(arguments: argparse.Namespace) -> int:
    """Write the embeddings, and print what was written."""
    if arguments.batch_size < 1:
        raise ConfigError(f"--batch-size is {arguments.batch_size}; it must be at least 1.")
    if not arguments.output.endswith(".npz"):
        raise ConfigError(f"--output is {arguments.output!r}; it must end with .npz.")
    if arguments.pca is not None and not arguments.pca.endswith(".png"):
        raise ConfigError(f"--pca is {arguments.pca!r}; it must end with .png.")
    arguments.output = _checked("--output", arguments.output)
    arguments.pca = arguments.pca and _checked("--pca", arguments.pca)
    levels = arguments.levels and [
        int(word) if word.isdecimal() else word for word in map(str.strip, arguments.levels.split(","))
    ]
    if arguments.resample and not levels:
        raise ConfigError("--resample applies to --levels; give --levels, or leave it out.")
    images = images_of(arguments)
    source = source_of(arguments, encoder=True)
    import dataclasses

    from vit_jax.inference.features import FeatureExtractor, write_features
    from vit_jax.inference.pca import LIMIT, draw_components
    from vit_jax.models.maps import named_levels

    extractor = FeatureExtractor.load(source, **which_of(arguments))
    extractor = dataclasses.replace(extractor, batch_size=arguments.batch_size)
    if levels is None and arguments.pca:
        levels = [named_levels(extractor.model)[-1].name]
    if levels is not None:
        extractor = extractor.at(levels, arguments.resample)
    with kept_programs(arguments):
        arrays = write_features(
            extractor,
            images,
            arguments.output,
            say,
            bad=arguments.bad,
            max_megapixels=arguments.max_megapixels,
        )
    count = len(arrays["files"])
    classes = f", {len(arrays['class_names'])} classes" if "class_names" in arrays else ""
    if levels is None:
        print(f"{arguments.output}: {count} embeddings of width {arrays['features'].shape[1]}{classes}")
    else:
        maps = ", ".join(f"{name} {'x'.join(map(str, arrays[name].shape[1:]))}" for name in extractor.levels)
        print(f"{arguments.output}: maps of {count} images: {maps}{classes}")
    left_out, reasons = LeftOut(), arrays.get("reasons", ())
    for reason in reasons:
        left_out.tell(reason)
    left_out.check(count + len(reasons))
    if arguments.pca:
        level, files = extractor.levels[-1], [str(file) for file in arrays["files"][:LIMIT]]
        images = extractor.pixels(files, max_megapixels=arguments.max_megapixels)
        print(f"picture: {draw_components(images, arrays[level][:LIMIT], files, level, arguments.pca)}")
    return 0


def _checked(option: str, path: str) -> str:
    """Return where a file may be written."""
    path = str(check_output(path, option))
    folder = os.path.dirname(path) or "."
    if not os.path.isdir(folder):
        raise ResourceError(f"{option} is {path!r}, but folder {folder!r} does not exist; create it.")
    return path
