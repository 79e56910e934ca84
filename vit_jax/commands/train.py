"""`vit-jax train`."""

import argparse
import time
from typing import Any

from vit_jax.commands.processes import add_processes, join_processes
from vit_jax.paths import check_output

HELP = "train or fine-tune a model, or go on with an interrupted run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]", help="configuration, Python or JSON")
    parser.add_argument("--workdir", required=True, metavar="DIR", help="where checkpoints and metrics go")
    parser.add_argument(
        "--allow-change", action="append", default=[], metavar="KEY", help="go on although this key changed"
    )
    parser.add_argument(
        "--profile", metavar="FIRST:LAST", help="trace these steps with JAX's profiler, to DIR/profile"
    )
    add_processes(parser)
    parser.epilog = (
        "--config.KEY=VALUE changes a key of the configuration, e.g. --config.optimizer.learning_rate=3e-4"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, and print what came out."""
    begun = time.monotonic()
    from vit_jax.training.config import load_config
    from vit_jax.training.profiling import parse_steps

    check_output(arguments.workdir, "--workdir")
    config = load_config(arguments.config, arguments.overrides)
    profile = None if arguments.profile is None else parse_steps(arguments.profile)
    main = join_processes(arguments)
    from vit_jax.training.loop import train

    result = train(
        config, arguments.workdir, allow_change=arguments.allow_change, profile=profile, begun=begun
    )
    summary = result.summary
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
    if summary["goodput"]:
        lines.append(_goodput_text(summary["goodput"]))
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


def _goodput_text(goodput: dict[str, Any]) -> str:
    """Return one line: the share of the time that went into steps that remained, and what the rest went into."""
    attempts = f" in {goodput['attempts']} attempts" if goodput["attempts"] > 1 else ""
    since = f" since step {goodput['since_step']}" if goodput["since_step"] else ""
    rest = []
    for name, share in goodput["shares"].items():
        if name == "step" or share < 0.0005:  # would be 0.0 %
            continue
        steps = f" ({goodput['lost_steps']} steps)" if name == "lost" else ""
        rest.append(f"{name.replace('_', ' ')} {share:.1%}{steps}")
    time = f"{goodput['share']:.1%} of {_duration(goodput['elapsed'])}"
    return f"goodput: {time}{attempts}{since}; the rest: {', '.join(rest)}"


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:,.1f} h"
