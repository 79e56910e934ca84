"""`vit-jax train`."""

import argparse
from typing import Any

from vit_jax.commands.processes import add_processes, join_processes

HELP = "train or fine-tune a model, or go on with an interrupted run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]", help="configuration, Python or JSON")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="where checkpoints and metrics go")
    parser.add_argument(
        "--allow-change", action="append", default=[], metavar="KEY", help="go on although this key changed"
    )
    add_processes(parser)
    parser.epilog = (
        "--config.KEY=VALUE changes a key of the configuration, e.g. --config.optimizer.learning_rate=3e-4"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, and print what came out."""
    from vit_jax.training.config import load_config

    config = load_config(arguments.config, arguments.overrides)
    main = join_processes(arguments)
    from vit_jax.training.loop import train

    summary = train(config, arguments.workdir, allow_change=arguments.allow_change).summary
    if main:
        print(_summary_text(summary))
    return 0


def _summary_text(summary: dict[str, Any]) -> str:
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
        rate = f"{summary['images_per_second']:,.0f} images/s"
        if summary["flops_per_second"]:
            rate += f", {summary['flops_per_second'] / 1e9:,.1f} GFLOP/s"
        if summary["mfu"]:
            rate += f", MFU {summary['mfu']:.1%}"
        lines.append(f"{rate} on {summary['devices']}")
    lines.append(f"checkpoint: {summary['checkpoint']}")
    if "figure" in summary:
        lines.append(f"figure: {summary['figure']}")
    return "\n".join(lines)
