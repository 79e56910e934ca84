"""`vit-jax data`: prepare, check and show datasets."""

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from vit_jax.data.images.image_files import left_out_text
from vit_jax.errors import ConfigError, DataError, printable
from vit_jax.paths import check_output

if TYPE_CHECKING:
    from vit_jax.data.prepare.check import Finding, Report, SplitReport
    from vit_jax.data.sources.table import Columns

HELP = "prepare datasets, check them, draw samples"
_SHOWN_CLASSES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of each action."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=type(parser))
    prepare = actions.add_parser("prepare", help="write a dataset as ArrayRecord files", allow_abbrev=False)
    prepare.add_argument(
        "source",
        metavar="SOURCE",
        help="a folder of class folders, of images and masks or of the ILSVRC2012 archives, a table, a directory of "
        "TFRecord files, a tfds name, or an embedded source",
    )
    prepare.add_argument(
        "--output", required=True, metavar="DIR", help="the dataset goes to DIR/NAME/VERSION"
    )
    prepare.add_argument("--name", default="", help="name of the dataset; by default that of the folder")
    prepare.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME[=FOLDER]",
        help="a split to prepare, repeatable (default all); validation=val stores the folder val as validation",
    )
    prepare.add_argument(
        "--shards", type=int, default=0, metavar="N", help="files per split; by default chosen by size"
    )
    prepare.add_argument(
        "--short-side",
        type=int,
        default=0,
        metavar="PIXELS",
        help="shrink images whose short side is longer than this",
    )
    prepare.add_argument(
        "--quality", type=int, metavar="Q", help="JPEG quality of shrunk images (default 90)"
    )
    prepare.add_argument(
        "--bad", choices=("error", "skip"), default="error", help="what to do with files that are not images"
    )
    check = actions.add_parser(
        "check", help="read every record and report what is wrong or unusual", allow_abbrev=False
    )
    check.add_argument(
        "source",
        metavar="SOURCE",
        help="a prepared dataset (its directory or its name), a folder of class folders or of images and masks, a "
        "table, or the name of an embedded source",
    )
    check.add_argument("--split", default="", metavar="NAME", help="check only this split")
    check.add_argument("--json", action="store_true", help="print JSON")
    for action in (prepare, check):
        action.add_argument(
            "--source",
            dest="kind",
            default="",
            metavar="KIND",
            help="kind of SOURCE, as in data.source, if it cannot be told from SOURCE",
        )
        for column in ("image", "label", "split"):
            action.add_argument(
                f"--{column}-column",
                default="",
                metavar="NAME",
                help=f"column of a table that holds {column}s",
            )
        for name, what in (("label", "1 or 0, one for each class"), ("value", "one number each")):
            action.add_argument(
                f"--{name}-columns",
                default="",
                metavar="A,B,...",
                help=f"columns of a table that hold {what}; instead of --label-column",
            )
        action.add_argument(
            "--label-separator",
            default="",
            metavar="TEXT",
            help="what separates several labels in a cell of a table, or json for lists",
        )
        action.add_argument(
            "--data-dir", default="", metavar="DIR", help="where tfds keeps datasets that are given by name"
        )
        action.add_argument(
            "--max-megapixels",
            type=float,
            default=64.0,
            metavar="M",
            help="largest image accepted (default 64)",
        )
        action.add_argument(
            "--workers",
            type=int,
            default=0,
            metavar="N",
            help="number of worker processes; by default chosen by size",
        )
    show = actions.add_parser("show", help="draw samples as a run sees them", allow_abbrev=False)
    show.add_argument("--config", required=True, metavar="FILE[:ARG]", help="configuration, Python or JSON")
    show.add_argument("--output", required=True, metavar="FILE.png", help="picture to write")
    show.add_argument(
        "--split", choices=("train", "eval"), default="train", help="whose records and transforms to use"
    )
    show.add_argument("--rows", type=int, default=4, metavar="N", help="rows of the grid (default 4)")
    show.add_argument("--columns", type=int, default=8, metavar="N", help="images in a row (default 8)")
    show.add_argument(
        "--step", type=int, default=0, metavar="N", help="training step whose batch is drawn (default 0)"
    )
    show.add_argument("--seed", type=int, metavar="N", help="use this seed instead of the configuration's")
    show.add_argument(
        "--repeat", action="store_true", help="show one image per row, transformed anew in each column"
    )
    show.epilog = "--config.KEY=VALUE overrides a key of the configuration, e.g. --config.data.path=DIR"


def run(arguments: argparse.Namespace) -> int:
    """Run the action."""
    return {"prepare": _prepare, "check": _check, "show": _show}[arguments.action](arguments)


def _columns(arguments: argparse.Namespace) -> "Columns":
    from vit_jax.data.sources.table import Columns

    said = [key for key in ("label_column", "label_columns", "value_columns") if getattr(arguments, key)]
    names = ["--" + key.replace("_", "-") for key in said]
    if len(said) > 1:
        raise ConfigError(f"{names[0]} and {names[1]} are both given; name one of them.")
    if arguments.label_separator and said and said != ["label_column"]:
        raise ConfigError(
            f"--label-separator is for lists of labels, which {names[0]} has not; leave it out."
        )
    labels, values = (
        tuple(name.strip() for name in given.split(",")) if given else ()
        for given in (arguments.label_columns, arguments.value_columns)
    )
    return Columns(
        arguments.image_column,
        arguments.label_column,
        arguments.split_column,
        labels,
        values,
        arguments.label_separator,
    )


def _prepare(arguments: argparse.Namespace) -> int:
    from vit_jax.data.prepare.prepare import QUALITY, prepare

    if arguments.quality is not None and not arguments.short_side:
        raise ConfigError(
            "--quality applies to images that --short-side shrinks; give --short-side too, or leave --quality out."
        )
    done = prepare(
        arguments.source,
        arguments.output,
        name=arguments.name,
        splits=arguments.split,
        shards=arguments.shards,
        workers=arguments.workers,
        short_side=arguments.short_side,
        quality=QUALITY if arguments.quality is None else arguments.quality,
        bad=arguments.bad,
        kind=arguments.kind,
        max_megapixels=arguments.max_megapixels,
        data_dir=arguments.data_dir,
        columns=_columns(arguments),
        progress=True,
    )
    counts = ", ".join(f"{split} {count:,}" for split, count in done.counts.items())
    print(f"{done.directory}{'' if done.fresh else ' exists already'}: {counts}; {done.bytes / 1e6:,.1f} MB")
    if done.bad:
        print(f"left out {len(done.bad):,}, all listed in prepare.json:")
        print("\n".join(printable(f"  {where}: {reason}") for where, reason in done.bad[:20]))
    if done.left_out:
        print(left_out_text(done.left_out))
    print(f"to train on it: --config.data.source=tfds --config.data.path={done.directory}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from vit_jax.data.prepare.check import check

    if arguments.workers < 0:
        raise ConfigError(f"--workers is {arguments.workers}; it must be at least 0.")
    report = check(
        arguments.source,
        arguments.split,
        kind=arguments.kind,
        data_dir=arguments.data_dir,
        columns=_columns(arguments),
        workers=arguments.workers,
        max_megapixels=arguments.max_megapixels,
        progress=True,
    )
    if arguments.json:
        print(json.dumps({"good": report.good, **dataclasses.asdict(report)}, indent=1))
    else:
        print("\n".join(map(printable, _report_lines(report))))
    return 0 if report.good else DataError.exit_status


def _report_lines(report: "Report") -> list[str]:
    lines = [f"{report.source}: {report.layout}"] * bool(report.layout)
    for name, split in report.splits.items():
        classes = f", {len(split.classes):,} classes" if split.classes else ""
        further = f" of {', '.join(split.fields)}" if split.fields != ("image", "label") else ""
        lines += [f"{name}: {split.records:,} records{further}{classes}", *_split_lines(split)]
    lines += _finding_lines("byte-for-byte duplicates", report.duplicates)
    labelled = all(split.fields == ("image", "label") for split in report.splits.values())
    wrong = "have no valid label" if labelled else "have invalid fields"
    return [*lines, "good" if report.good else f"bad: some records cannot be read or {wrong}"]


def _split_lines(split: "SplitReport") -> list[str]:
    ordered = sorted(split.classes.items(), key=lambda item: item[1])
    fewest, most = ordered[:_SHOWN_CLASSES], ordered[-1:]
    lines = [f"  class {name}: {count:,}" for name, count in fewest]
    if len(ordered) > _SHOWN_CLASSES:
        lines[-1] += f" ... {most[0][0]}: {most[0][1]:,} (the smallest and the largest of {len(ordered):,})"
    if split.left_out:
        lines.append(f"  {left_out_text(split.left_out)}")
    lines.append("  formats: " + ", ".join(f"{name} {count:,}" for name, count in split.formats.items()))
    for what, values in split.sizes.items():
        lines.append(f"  {what}: " + ", ".join(f"{share} {value:,}" for share, value in values.items()))
    lines += _finding_lines("unreadable", split.unreadable) + _finding_lines("wrong label", split.bad_labels)
    lines += _finding_lines("wrong field", split.bad_fields)
    for oddity, finding in split.oddities.items():
        lines += _finding_lines(oddity, finding)
    return lines


def _finding_lines(what: str, finding: "Finding") -> list[str]:
    if not finding.count:
        return []
    more = [f"    and {finding.count - len(finding.examples):,} more"] * (
        finding.count > len(finding.examples)
    )
    return [f"  {what}: {finding.count:,}", *(f"    {example}" for example in finding.examples), *more]


def _show(arguments: argparse.Namespace) -> int:
    for name, least in (("rows", 1), ("columns", 1), ("step", 0)):
        if getattr(arguments, name) < least:
            raise ConfigError(f"--{name} is {getattr(arguments, name)}; it must be at least {least}.")
    if not arguments.output.endswith(".png"):
        raise ConfigError(f"--output is {arguments.output!r}; it must end with .png.")
    if arguments.repeat and arguments.split == "eval":
        raise ConfigError(
            "--repeat shows random transforms, and evaluation has none; leave out --repeat or --split eval."
        )
    arguments.output = str(check_output(arguments.output, "--output"))
    from vit_jax.training.config.load import load_config

    config = load_config(arguments.config, arguments.overrides)
    from vit_jax.training.report.samples import samples

    images, labels = samples(
        config,
        train=arguments.split == "train",
        count=arguments.rows * arguments.columns,
        step=arguments.step,
        seed=arguments.seed,
        repeats=arguments.columns if arguments.repeat else 1,
    )
    from vit_jax.data.prepare.sheet import contact_sheet

    sheet: Any = contact_sheet(images, labels, arguments.columns)
    try:
        sheet.save(arguments.output)
    except OSError as error:
        raise ConfigError(
            f"--output {arguments.output!r} cannot be written: {error.strerror or error}."
        ) from error
    print(f"{arguments.output}: {len(images)} samples, {sheet.width}x{sheet.height} pixels")
    return 0
