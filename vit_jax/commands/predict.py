"""`vit-jax predict`."""

import argparse
from typing import Any

from vit_jax.commands.images import LeftOut, add_images, images_of, say
from vit_jax.commands.source import add_source, add_storage, kept_programs, source_of, which_of
from vit_jax.errors import ConfigError, DivergedError

HELP = "predict the classes, values or masks of images"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source(parser, exported=True)
    add_images(parser)
    parser.add_argument("--json", action="store_true", help="print one line of JSON per image")
    parser.add_argument(
        "--output",
        metavar="PATH",
        help="write the predictions instead of printing them: FILE.csv, FILE.jsonl or FILE.parquet, "
        "or a folder for masks and overlays",
    )
    parser.add_argument(
        "--classes",
        metavar="A,B,...",
        help="class names for zero-shot classification with a CLIP or SigLIP --checkpoint",
    )
    parser.add_argument(
        "--template",
        action="append",
        default=[],
        metavar="TEXT",
        help="prompt for a class name, such as 'a photo of a {}.'; repeat for an ensemble",
    )
    parser.add_argument(
        "--tokenizer", metavar="NAME", help="the tokenizer to use, if there is none beside the checkpoint"
    )
    add_storage(parser)
    parser.add_argument(
        "--top",
        type=int,
        metavar="K",
        help="give the K most probable classes (default 5; where an image may have several labels: those that reach "
        "their threshold)",
    )


def _predictor(arguments: argparse.Namespace) -> Any:
    source = source_of(arguments)
    if arguments.exported is not None:
        return _exported(arguments)
    if arguments.classes is None:
        for name, given in (("--template", arguments.template), ("--tokenizer", arguments.tokenizer)):
            if given:
                raise ConfigError(
                    f"{name} applies to zero-shot classification; give the class names with --classes."
                )
        from vit_jax.inference.predictor import Predictor

        return Predictor.load(source, **which_of(arguments)).stored(arguments.storage)
    if arguments.storage != "float32":
        raise ConfigError("--storage cannot be combined with --classes; leave one out.")
    if not isinstance(source, str):
        raise ConfigError("--classes needs a CLIP or SigLIP --checkpoint; a --workdir has its own classes.")
    from vit_jax.inference.zero_shot import TEMPLATES, ZeroShotClassifier

    names = [name.strip() for name in arguments.classes.split(",")]
    templates = tuple(arguments.template) or TEMPLATES
    return ZeroShotClassifier.load(
        source, names, templates, tokenizer=arguments.tokenizer, weights=arguments.weights
    )


def _exported(arguments: argparse.Namespace) -> Any:
    for name, given in (
        ("--classes", arguments.classes is not None),
        ("--template", arguments.template),
        ("--tokenizer", arguments.tokenizer),
        ("--storage", arguments.storage != "float32"),
    ):
        if given:
            raise ConfigError(
                f"{name} cannot be combined with --exported: what was exported is fixed; leave it out."
            )
    from vit_jax.inference.export.exported import ExportedPredictor

    return ExportedPredictor.load(arguments.exported)


def run(arguments: argparse.Namespace) -> int:
    """Print or write the prediction of each image, as they come."""
    if arguments.top is not None and arguments.top < 1:
        raise ConfigError(f"--top is {arguments.top}; it must be at least 1.")
    if arguments.output is not None:
        if arguments.json:
            raise ConfigError(
                "--json cannot be combined with --output; leave one out (--output FILE.jsonl writes JSON lines)."
            )
        from vit_jax.inference.tables import check_target

        check_target(arguments.output)
    paths = images_of(arguments)
    from vit_jax.data.images.image_files import left_out_text
    from vit_jax.data.sources.pictures import find

    files, others = find(paths)
    if others:
        say(left_out_text(others))
    predictor = _predictor(arguments)
    output = predictor.output if arguments.top is None else predictor.output.best(arguments.top)
    from vit_jax.inference.writing import write_to
    from vit_jax.objectives.outputs.base import NOT_FINITE

    left_out, not_finite = LeftOut(), 0
    target = write_to(
        arguments.output,
        output,
        files,
        predictor.original,
        errors=arguments.bad == "skip",
        as_json=arguments.json,
    )
    with kept_programs(arguments), target as write:
        options = {"bad": arguments.bad, "max_megapixels": arguments.max_megapixels}
        for p in predictor.stream(files, arguments.top, progress=True, **options):
            if p.error == NOT_FINITE:
                not_finite += 1
            elif p.error:
                left_out.tell(p.error)
            write(p)
    if arguments.output is not None:
        print(f"{arguments.output}: {len(files):,} images")
    left_out.check(len(files))
    if not_finite:
        raise DivergedError(
            f"{NOT_FINITE} for {not_finite:,} of {len(files):,} images; use another checkpoint of the run."
        )
    return 0
