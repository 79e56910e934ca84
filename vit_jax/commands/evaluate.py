"""`vit-jax evaluate`."""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from vit_jax.commands.processes import add_processes, join_processes
from vit_jax.commands.source import add_source, add_storage, source_of, which_of
from vit_jax.data.section import LABELS
from vit_jax.errors import ConfigError, printable
from vit_jax.evaluation.probes.names import parse_probes
from vit_jax.paths import check_output

if TYPE_CHECKING:
    from vit_jax.inference.evaluation import Evaluation

HELP = "evaluate a trained or published model on a whole split"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    add_source(parser)
    add_storage(parser)
    parser.add_argument("--json", action="store_true", help="print the metrics and the report as JSON")
    parser.add_argument("--per-class", action="store_true", help="list every class, however many there are")
    parser.add_argument(
        "--output",
        metavar="FILE",
        help="write the prediction for every record here: .csv, .jsonl or .parquet",
    )
    parser.add_argument(
        "--figure",
        metavar="FILE.png",
        help="draw the confusion matrix, recall, precision and calibration here",
    )
    parser.add_argument(
        "--labels",
        choices=LABELS,
        default=LABELS[0],
        help="how the data's labels are matched with the model's classes: by-name (default), or by-position where both "
        "have equally many classes, in the same order under other names",
    )
    parser.add_argument(
        "--probes",
        metavar="NAME,NAME",
        help="evaluate the frozen features instead of the head, on training and evaluation splits with any classes: "
        "knn, linear, linear_sgd, fewshot, rank",
    )
    add_processes(parser)
    parser.epilog = (
        "--config.KEY=VALUE overrides a key of the saved configuration, or of the default one for a checkpoint, e.g. "
        "--config.data.source=folder --config.data.path=DIR"
    )


def run(arguments: argparse.Namespace) -> int:
    """Print the metrics and the report."""
    from vit_jax.training.config.load import default_config
    from vit_jax.training.config.overrides import apply_override

    for override in arguments.overrides:
        apply_override(default_config(), override)
    if arguments.output is not None:
        from vit_jax.inference.tables import check_table

        check_table(arguments.output)
    if arguments.figure is not None and check_output(arguments.figure, "--figure").suffix.lower() != ".png":
        raise ConfigError(f"--figure is {arguments.figure!r}; it must end with .png.")
    source = source_of(arguments)
    if arguments.probes is not None:
        return _probe(source, arguments)
    main = join_processes(arguments)
    options = {name: getattr(arguments, name) for name in ("storage", "labels", "output", "figure")}
    if isinstance(source, str):
        from vit_jax.inference.published import evaluate_checkpoint

        weights = [f"model.weights={arguments.weights}"] if arguments.weights is not None else []
        found = evaluate_checkpoint(source, [*arguments.overrides, *weights], **options)
    else:
        from vit_jax.inference.evaluating import examine_workdir

        which = {"step": arguments.step, "best": arguments.best}
        found = examine_workdir(source, arguments.overrides, **which, **options)
    if not main:
        return 0
    if arguments.json:
        print(json.dumps(found.to_json()))
    else:
        print("\n".join(printable(line) for line in _lines(found, arguments.per_class)))
    return 0


def _probe(source: str | Path, arguments: argparse.Namespace) -> int:
    for option in ("output", "figure"):
        if getattr(arguments, option) is not None:
            raise ConfigError(
                f"--{option} is about a head's predictions, and --probes makes none; leave one out."
            )
    if arguments.storage != "float32":
        raise ConfigError(
            f"--storage is {arguments.storage!r}; --probes uses parameters as they were saved; leave it out."
        )
    names = arguments.probes.split(",")
    parse_probes(names, "--probes")
    main = join_processes(arguments)
    from vit_jax.inference.probing import probe

    found = probe(source, names, arguments.overrides, **which_of(arguments))
    if main and arguments.json:
        print(json.dumps(found.to_json()))
    elif main:
        lines = [found.origin, *(f"{name:<20} {value:.6g}" for name, value in found.metrics.items())]
        print("\n".join(printable(line) for line in lines))
    return 0


def _lines(found: "Evaluation", per_class: bool) -> list[str]:
    step = "" if found.step is None else f"step {found.step}, "
    of = "" if found.report is None else f", {found.report.about}"
    lines = [f"{step}{found.origin}{of}"]
    lines += [f"{name:<18} {value:.6g}" for name, value in found.metrics.items()]
    return lines if found.report is None else lines + found.report.lines(everything=per_class)
