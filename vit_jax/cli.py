"""The command `vit-jax`. Imports nothing heavy before a command needs it."""

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

from vit_jax.errors import CheckpointError, ConfigError, DataError, VitError, nearest
from vit_jax.version import __version__

COMMANDS = ("train", "evaluate", "predict", "models")


class _Parser(argparse.ArgumentParser):
    """Tells a usage error in one line, like every other error."""

    def error(self, message: str) -> NoReturn:
        raise ConfigError(f"{message}; see {self.prog} --help")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or the kind of error, see `vit_jax.errors`."""
    try:
        status = _run(list(sys.argv[1:] if arguments is None else arguments))
        sys.stdout.flush()  # here, where a broken pipe is expected, rather than at Python's end
        return status
    except VitError as error:
        print(f"vit-jax: {error}", file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("vit-jax: interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        # The reader of our output (head, less) has gone; say nothing, and let Python not try again.
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        return 0


def _run(arguments: list[str]) -> int:
    parser = _parser()
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        raise ConfigError(
            f"unknown command {arguments[0]!r}; commands are {', '.join(COMMANDS)}."
            f"{nearest(arguments[0], COMMANDS)}"
        )
    parsed, rest = parser.parse_known_args(arguments)
    if parsed.command is None:
        if rest:
            raise ConfigError(f"unknown argument {rest[0]!r}; see vit-jax --help")
        parser.print_help()
        return 0
    parsed.overrides = _overrides(rest, parsed.command)
    return {"train": _train, "evaluate": _evaluate, "predict": _predict, "models": _models}[parsed.command](
        parsed
    )


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="vit-jax", description="Vision Transformers in JAX.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"vit-jax {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    train = commands.add_parser(
        "train", help="train a model, or go on with an interrupted run", allow_abbrev=False
    )
    train.add_argument("--config", required=True, metavar="FILE[:ARG]", help="configuration, Python or JSON")
    train.add_argument("--workdir", required=True, metavar="DIR", help="where checkpoints and metrics go")
    train.add_argument(
        "--allow-change", action="append", default=[], metavar="KEY", help="go on although this key changed"
    )
    train.epilog = (
        "--config.KEY=VALUE changes a key of the configuration, e.g. --config.optimizer.learning_rate=3e-4"
    )

    evaluate = commands.add_parser("evaluate", help="evaluate a trained model exactly", allow_abbrev=False)
    predict = commands.add_parser("predict", help="classify images", allow_abbrev=False)
    for command in (evaluate, predict):
        command.add_argument(
            "--workdir", required=True, metavar="DIR", help="of the training, or one checkpoint"
        )
        which = command.add_mutually_exclusive_group()
        which.add_argument("--step", type=int, metavar="N", help="which checkpoint; the newest if not given")
        which.add_argument("--best", action="store_true", help="the best checkpoint instead of the newest")
        command.add_argument("--json", action="store_true", help="print JSON")
    evaluate.epilog = (
        "--config.KEY=VALUE changes a key of the saved configuration, e.g. --config.data.path=DIR"
    )
    predict.add_argument("images", nargs="+", metavar="IMAGE")
    predict.add_argument("--top", type=int, default=5, metavar="K", help="how many classes (default 5)")

    models = commands.add_parser("models", help="list models", allow_abbrev=False)
    models.add_argument("pattern", nargs="?", default="*", help="name, or wildcards: 'vit_*_patch16_*'")
    models.add_argument("--json", action="store_true", help="print JSON")
    return parser


def _overrides(rest: list[str], command: str) -> list[str]:
    """Return `key=value` of every `--config.key=value`; anything else that is left is an error."""
    overrides = []
    while rest:
        argument = rest.pop(0)
        name, equals, value = argument.partition("=")
        if not name.startswith("--config.") or command not in ("train", "evaluate"):
            raise ConfigError(f"unknown argument {argument!r}; see vit-jax {command} --help")
        if not equals:
            if not rest or rest[0].startswith("--"):
                raise ConfigError(f"{name} has no value; write {name}=VALUE")
            value = rest.pop(0)
        overrides.append(f"{name.removeprefix('--config.')}={value}")
    return overrides


def _train(arguments: argparse.Namespace) -> int:
    from vit_jax.training.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    from vit_jax.training.loop import train

    summary = train(config, arguments.workdir, allow_change=arguments.allow_change).summary
    print(_summary_text(summary, arguments.workdir))
    return 0


def _summary_text(summary: dict[str, Any], workdir: str) -> str:
    from vit_jax.evaluation.baselines import BASELINES

    metrics = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in summary["metrics"].items())
    lines = [f"step {summary['step']}: {metrics}"]
    if "baselines" in summary:
        known = ", ".join(f"{BASELINES[name][0]} {value:.4f}" for name, value in summary["baselines"].items())
        lines.append(f"for comparison, on the same split: {known}")
    seconds = ", ".join(
        f"{name.replace('_', ' ')} {value:.1f} s" for name, value in summary["seconds"].items()
    )
    lines.append(f"time: {seconds}")
    if summary["images_per_second"]:
        rate = (
            f"{summary['images_per_second']:,.0f} images/s, {summary['flops_per_second'] / 1e9:,.1f} GFLOP/s"
        )
        lines.append(
            rate + (f", MFU {summary['mfu']:.1%}" if summary["mfu"] else "") + f" on {summary['devices']}"
        )
    lines.append(f"checkpoint: {summary['checkpoint']}")
    if "figure" in summary:
        lines.append(f"figure: {summary['figure']}")
    return "\n".join(lines)


def _check_workdir(workdir: str) -> None:
    """Say at once what would otherwise be said after seconds of imports."""
    if not os.path.isdir(workdir):
        raise CheckpointError(f"workdir {workdir!r} does not exist; give the --workdir of a training.")


def _evaluate(arguments: argparse.Namespace) -> int:
    from vit_jax.training.config import default_config
    from vit_jax.training.overrides import apply_override

    for override in arguments.overrides:
        apply_override(default_config(), override)
    _check_workdir(arguments.workdir)
    from vit_jax.inference.workdir import evaluate_workdir

    metrics = evaluate_workdir(
        arguments.workdir, arguments.overrides, step=arguments.step, best=arguments.best
    )
    if arguments.json:
        print(json.dumps(metrics))
    else:
        print("\n".join(f"{name:<16} {value:.6g}" for name, value in metrics.items()))
    return 0


def _predict(arguments: argparse.Namespace) -> int:
    if arguments.top < 1:
        raise ConfigError(f"--top is {arguments.top}; it must be at least 1.")
    for image in arguments.images:
        if not os.path.isfile(image):
            reason = "is not a file" if os.path.exists(image) else "does not exist"
            raise DataError(f"image {image!r} {reason}; give paths of image files.")
    _check_workdir(arguments.workdir)
    from vit_jax.inference.predictor import Predictor

    predictor = Predictor.load(arguments.workdir, arguments.step, best=arguments.best)
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
        print(f"{p.image:<{width}}   {chances}")
    return 0


def _models(arguments: argparse.Namespace) -> int:
    from vit_jax.models.flops import forward_flops, parameter_count
    from vit_jax.models.names import list_models, resolve
    from vit_jax.models.towers import image_config

    names = list_models(arguments.pattern)
    if not names and any(wildcard in arguments.pattern for wildcard in "*?["):
        raise ConfigError(f"no model matches {arguments.pattern!r}; `vit-jax models` lists all.")
    names = names or [resolve(arguments.pattern)[0]]  # an alias, or a size that is not listed
    rows = []
    for name in names:
        config = resolve(name)[1]
        height, width = image_config(config).image_size
        rows.append((name, parameter_count(config), forward_flops(config) / 1e9, f"{height}x{width}"))
    if arguments.json:
        keys = ("name", "parameters", "gflops", "input_size")
        print(json.dumps([dict(zip(keys, row)) for row in rows], indent=2))
        return 0
    width = max(len(row[0]) for row in rows)
    print(f"{'name':<{width}} {'parameters':>15} {'GFLOPs':>9} {'input':>9}")
    for name, parameters, gflops, size in rows:
        print(f"{name:<{width}} {parameters:>15,} {gflops:>9.1f} {size:>9}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
