"""`vit-jax train`."""

import argparse
import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from vit_jax.commands.processes import add_processes, join_processes
from vit_jax.errors import Preempted
from vit_jax.paths import check_output

HELP = "train or fine-tune a model, or resume an interrupted run"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--config", required=True, metavar="FILE[:ARG]", help="configuration, Python or JSON")
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="DIR",
        help="where checkpoints and metrics are written; an interrupted run there is resumed",
    )
    parser.add_argument(
        "--allow-change",
        action="append",
        default=[],
        metavar="KEY",
        help="resume even though this key changed",
    )
    parser.add_argument(
        "--profile", metavar="FIRST:LAST", help="trace these steps with JAX's profiler into DIR/profile"
    )
    parser.add_argument(
        "--supervise",
        action="store_true",
        help="restart, after a pause, whenever the run exits with status 75 or is killed",
    )
    add_processes(parser)
    parser.epilog = (
        "--config.KEY=VALUE overrides a key of the configuration, e.g. --config.optimizer.learning_rate=3e-4"
    )


def run(arguments: argparse.Namespace) -> int:
    """Train, and print what came out; in a process with a parent if there are several, or if asked for."""
    begun = time.monotonic()
    from vit_jax.training.config.load import load_config
    from vit_jax.training.devices.distributed import find_cluster
    from vit_jax.training.guard import supervisor
    from vit_jax.training.report.profiling import parse_steps

    arguments.workdir = str(check_output(arguments.workdir, "--workdir"))
    if supervisor.is_worker():
        supervisor.end_with_supervisor()
        faulthandler.register(signal.SIGUSR1)
    config: Any = load_config(arguments.config, arguments.overrides)
    profile = None if arguments.profile is None else parse_steps(arguments.profile)
    given = arguments.coordinator, arguments.process_count, arguments.process_index
    if not supervisor.is_worker() and (arguments.supervise or find_cluster(*given, os.environ)):
        name = supervisor.process_name(*given[1:], os.environ)
        checkpoints = Path(arguments.workdir) / "checkpoints"
        return supervisor.supervise(arguments.again, name, checkpoints, restart=arguments.supervise)
    with _nothing_to_save():
        main = join_processes(arguments)
        from vit_jax.training.guard.peers import Peers
        from vit_jax.training.guard.watchdog import Watchdog

        limits = config.watchdog
        with (
            Watchdog(limits.step_limit, limits.phase_limit) as watchdog,
            Peers(watchdog, limits.peer_limit) as peers,
        ):
            from vit_jax.training.loop import train

            result = train(
                config,
                arguments.workdir,
                allow_change=arguments.allow_change,
                profile=profile,
                begun=begun,
                peers=peers,
            )
    if main:
        print(_summary_text(result.summary, result.workdir))
    return 0


@contextmanager
def _nothing_to_save() -> Iterator[None]:
    """End with status 75 at SIGTERM, until training takes the signal itself."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, frame: FrameType | None) -> None:
        print(
            "vit-jax: stopped by SIGTERM; run the same command again to resume.", file=sys.stderr, flush=True
        )
        os._exit(Preempted.exit_status)

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, signal.SIG_DFL if before is None else before)


def _summary_text(summary: dict[str, Any], workdir: Path) -> str:
    from vit_jax.evaluation.baselines import BASELINES

    metrics = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in summary["metrics"].items())
    lines = [f"step {summary['step']}: {metrics}"]
    if summary["stopped_early"]:
        lines.append(f"stopped early: {summary['stopped_early']['reason']}")
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
    for name in ("checkpoint", "figure"):
        if name in summary:
            lines.append(f"{name}: {workdir / summary[name]}")
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
