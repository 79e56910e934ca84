"""`vit-jax data`: prepare, check and show datasets."""

import argparse
import dataclasses
import json
from typing import TYPE_CHECKING, Any

from vit_jax.errors import ConfigError, DataError, printable
from vit_jax.paths import check_output

if TYPE_CHECKING:
    from vit_jax.data.prepare.check import Finding, Report, SplitReport

HELP = "prepare datasets, check them, show samples"
_SHOWN_CLASSES = 10


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments of each action."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True, parser_class=type(parser))
    prepare = actions.add_parser("prepare", help="write a dataset as ArrayRecord files", allow_abbrev=False)
    prepare.add_argument(
        "source",
        metavar="SOURCE",
        help="folder of class folders or of ILSVRC2012's archives, directory of a TFRecord dataset, or tfds name",
    )
    prepare.add_argument(
        "--output", required=True, metavar="DIR", help="the dataset goes to DIR/NAME/VERSION"
    )
    prepare.add_argument("--name", default="", help="of the dataset; the folder's if not given")
    prepare.add_argument(
        "--split",
        action="append",
        default=[],
        metavar="NAME[=FOLDER]",
        help="which splits, all if not given; validation=val stores the folder val as validation",
    )
    prepare.add_argument(
        "--shards", type=int, default=0, metavar="N", help="files of each split; by size if not given"
    )
    prepare.add_argument(
        "--short-side", type=int, default=0, metavar="PIXELS", help="shrink larger images to this"
    )
    prepare.add_argument(
        "--quality", type=int, metavar="Q", help="JPEG quality of shrunk images, 90 if not given"
    )
    prepare.add_argument(
        "--bad", choices=("error", "skip"), default="error", help="what to do with files that are no images"
    )
    check = actions.add_parser("check", help="read every record and tell what is odd", allow_abbrev=False)
    check.add_argument("source", metavar="SOURCE", help="prepared dataset, by directory or name, or folder")
    check.add_argument("--split", default="", metavar="NAME", help="only this one")
    check.add_argument("--json", action="store_true", help="print JSON")
    for action in (prepare, check):
        action.add_argument(
            "--data-dir", default="", metavar="DIR", help="where tfds keeps datasets given by name"
        )
        action.add_argument(
            "--workers", type=int, default=0, metavar="N", help="processes; by size if not given"
        )
    show = actions.add_parser("show", help="draw samples as a run would see them", allow_abbrev=False)
    show.add_argument("--config", required=True, metavar="FILE[:ARG]", help="configuration, Python or JSON")
    show.add_argument("--output", required=True, metavar="FILE.png", help="the picture to write")
    show.add_argument(
        "--split", choices=("train", "eval"), default="train", help="which transforms and records"
    )
    show.add_argument("--rows", type=int, default=4, metavar="N", help="rows of pictures")
    show.add_argument("--columns", type=int, default=8, metavar="N", help="pictures in a row")
    show.add_argument("--step", type=int, default=0, metavar="N", help="of training, whose batch to show")
    show.add_argument("--seed", type=int, metavar="N", help="instead of that of the configuration")
    show.add_argument("--repeat", action="store_true", help="in each row one image, transformed anew")
    show.epilog = "--config.KEY=VALUE changes a key of the configuration, e.g. --config.data.path=DIR"


def run(arguments: argparse.Namespace) -> int:
    """Run the action."""
    return {"prepare": _prepare, "check": _check, "show": _show}[arguments.action](arguments)


def _prepare(arguments: argparse.Namespace) -> int:
    from vit_jax.data.prepare.prepare import QUALITY, prepare

    if arguments.quality is not None and not arguments.short_side:
        raise ConfigError(
            "--quality is for images that --short-side shrinks; give that too, or leave it out."
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
        data_dir=arguments.data_dir,
        progress=True,
    )
    counts = ", ".join(f"{split} {count:,}" for split, count in done.counts.items())
    print(
        f"{done.directory}{'' if done.fresh else ' was there already'}: {counts}; {done.bytes / 1e6:,.1f} MB"
    )
    if done.bad:
        print(f"left out {len(done.bad):,}, all named in prepare.json:")
        print("\n".join(printable(f"  {where}: {reason}") for where, reason in done.bad[:20]))
    print(f"to train on it: --config.data.source=tfds --config.data.path={done.directory}")
    return 0


def _check(arguments: argparse.Namespace) -> int:
    from vit_jax.data.prepare.check import check

    if arguments.workers < 0:
        raise ConfigError(f"--workers is {arguments.workers}; it must be at least 0.")
    report = check(
        arguments.source,
        arguments.split,
        data_dir=arguments.data_dir,
        workers=arguments.workers,
        progress=True,
    )
    if arguments.json:
        print(json.dumps({"good": report.good, **dataclasses.asdict(report)}, indent=1))
    else:
        print("\n".join(map(printable, _report_lines(report))))
    return 0 if report.good else DataError.exit_status


def _report_lines(report: "Report") -> list[str]:
    lines = []
    for name, split in report.splits.items():
        lines += [f"{name}: {split.records:,} records, {len(split.classes):,} classes", *_split_lines(split)]
    lines += _finding_lines("equal to another one, byte for byte", report.duplicates)
    return [*lines, "good" if report.good else "not good: some records cannot be read or have no valid label"]


def _split_lines(split: "SplitReport") -> list[str]:
    ordered = sorted(split.classes.items(), key=lambda item: item[1])
    fewest, most = ordered[:_SHOWN_CLASSES], ordered[-1:]
    lines = [f"  class {name}: {count:,}" for name, count in fewest]
    if len(ordered) > _SHOWN_CLASSES:
        lines[-1] += f" ... {most[0][0]}: {most[0][1]:,} (fewest and most of {len(ordered):,})"
    lines.append("  formats: " + ", ".join(f"{name} {count:,}" for name, count in split.formats.items()))
    for what, values in split.sizes.items():
        lines.append(f"  {what}: " + ", ".join(f"{share} {value:,}" for share, value in values.items()))
    lines += _finding_lines("unreadable", split.unreadable) + _finding_lines("wrong label", split.bad_labels)
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
        raise ConfigError("--repeat shows what is random, which evaluation is not; leave out --split eval.")
    check_output(arguments.output, "--output")
    from vit_jax.training.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    from vit_jax.training.samples import samples

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
