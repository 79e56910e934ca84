"""`vit-jax predict`."""

import argparse
import json
import os
from typing import Any

from vit_jax.commands.source import add_source, add_storage, kept_programs, source_of
from vit_jax.errors import ConfigError, DataError, printable

HELP = "classify images"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source(parser, exported=True)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("images", nargs="+", metavar="IMAGE")
    parser.add_argument(
        "--classes", metavar="A,B,...", help="names to choose from, of a --checkpoint of CLIP or SigLIP"
    )
    parser.add_argument(
        "--template",
        action="append",
        default=[],
        metavar="TEXT",
        help="how names stand in text: 'a photo of a {}.'",
    )
    parser.add_argument("--tokenizer", metavar="NAME", help="where the text's tokenizer is, if not beside it")
    add_storage(parser)
    parser.add_argument("--top", type=int, default=5, metavar="K", help="how many classes (default 5)")


def _predictor(arguments: argparse.Namespace) -> Any:
    source = source_of(arguments)
    if arguments.exported is not None:
        return _exported(arguments)
    if arguments.classes is None:
        for name, given in (("--template", arguments.template), ("--tokenizer", arguments.tokenizer)):
            if given:
                raise ConfigError(f"{name} is about texts; give the names to choose from with --classes.")
        from vit_jax.inference.predictor import Predictor

        return Predictor.load(source, arguments.step, best=arguments.best).stored(arguments.storage)
    if arguments.storage != "float32":
        raise ConfigError("--storage is for classifiers; leave it out beside --classes.")
    if not isinstance(source, str):
        raise ConfigError("--classes needs --checkpoint, of CLIP or SigLIP; a training has its own classes.")
    from vit_jax.inference.zero_shot import TEMPLATES, ZeroShotClassifier

    names = [name.strip() for name in arguments.classes.split(",")]
    templates = tuple(arguments.template) or TEMPLATES
    return ZeroShotClassifier.load(source, names, templates, tokenizer=arguments.tokenizer)


def _exported(arguments: argparse.Namespace) -> Any:
    for name, given in (
        ("--classes", arguments.classes is not None),
        ("--template", arguments.template),
        ("--tokenizer", arguments.tokenizer),
        ("--storage", arguments.storage != "float32"),
    ):
        if given:
            raise ConfigError(
                f"{name} cannot be changed of what was exported; leave it out beside --exported."
            )
    from vit_jax.inference.exported import ExportedPredictor

    return ExportedPredictor.load(arguments.exported)


def run(arguments: argparse.Namespace) -> int:
    """Print the most probable classes of each image."""
    if arguments.top < 1:
        raise ConfigError(f"--top is {arguments.top}; it must be at least 1.")
    for image in arguments.images:
        if not os.path.isfile(image):
            reason = "is not a file" if os.path.exists(image) else "does not exist"
            raise DataError(f"image {image!r} {reason}; give paths of image files.")
    predictor = _predictor(arguments)
    with kept_programs(arguments):
        predictions = predictor.predict(arguments.images, arguments.top)
    if arguments.json:
        rows = [
            {
                "image": p.image,
                "predictions": [
                    {"class": name, "probability": chance} for name, chance in zip(p.classes, p.probabilities)
                ],
            }
            for p in predictions
        ]
        print(json.dumps(rows, indent=2))
        return 0
    width = max(len(p.image) for p in predictions)
    for p in predictions:
        chances = "   ".join(f"{name} {chance:.1%}" for name, chance in zip(p.classes, p.probabilities))
        print(printable(f"{p.image:<{width}}   {chances}"))
    return 0
