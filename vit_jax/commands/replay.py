"""`vit-jax replay`."""

import argparse
import json
import math
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from vit_jax.commands.processes import add_processes, join_processes
from vit_jax.errors import DivergedError

if TYPE_CHECKING:
    from vit_jax.training.guard.replay import Replay

HELP = "re-run a step that went wrong and find where its numbers broke"
SHOWN = 5


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the arguments."""
    parser.add_argument("--workdir", required=True, metavar="DIR", help="workdir of the run")
    parser.add_argument(
        "--step",
        type=int,
        metavar="N",
        help="step to re-run; by default the last one recorded in DIR/incidents",
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    add_processes(parser)
    parser.epilog = (
        "Exit status 0: the numbers equal the run's bit for bit, or the run kept no record of that step; 5: they "
        "differ."
    )


def run(arguments: argparse.Namespace) -> int:
    """Print what came out."""
    main = join_processes(arguments)
    from vit_jax.training.guard.replay import replay

    found = replay(arguments.workdir, arguments.step)
    if main:
        print(json.dumps(_valid(asdict(found)), indent=1) if arguments.json else _text(found))
    if found.reproduced is False:
        reason = "; ".join(found.environment) or "the code, the library versions or the machine differ"
        raise DivergedError(f"step {found.step} does not reproduce the run's numbers: {reason}.")
    return 0


def _text(found: "Replay") -> str:
    from vit_jax.training.guard.incidents import describe

    start = f"the checkpoint of step {found.start}" if found.start else "the beginning"
    what = (
        describe(found.kind, found.metrics)
        if found.kind
        else f"loss {found.metrics['loss']:.6g}, update applied"
    )
    verdict = {True: ", bitwise equal to the run", False: ", different from the run", None: ""}[
        found.reproduced
    ]
    lines = [f"step {found.step}, replayed from {start}: {what}{verdict}"]
    if found.recorded is not None and not found.reproduced:
        lines.append(f"loss in the run {found.recorded['loss']:.9g}, now {found.metrics['loss']:.9g}")
    lines += [f"differs from the run: {difference}" for difference in found.environment]
    if found.first:
        lines.append(f"first value that is not finite: {found.first}")
    for title, rows in (("records", found.records), ("rows with activations", found.affected)):
        if rows:
            named = [f"{row['name']} (row {row['row']})" for row in rows]
            lines.append(f"{title} that are not finite: {_some(named)}")
    if len(found.microbatches) and found.kind:
        lines.append(f"microbatches whose loss is not finite: {_some(found.microbatches)}")
    if found.gradients:
        named = [
            f"{path} in layers {', '.join(map(str, layers))}" if layers else path
            for path, layers in found.gradients.items()
        ]
        lines.append(f"gradients that are not finite: {_some(named)}")
    return "\n".join(lines)


def _some(items: list[Any]) -> str:
    more = len(items) - SHOWN
    return "; ".join(map(str, items[:SHOWN])) + (f"; and {more} more" if more > 0 else "")


def _valid(value: Any) -> Any:
    """Return a value with words for numbers that JSON does not have."""
    if isinstance(value, dict):
        return {key: _valid(inner) for key, inner in value.items()}
    if isinstance(value, list):
        return [_valid(inner) for inner in value]
    return str(value) if isinstance(value, float) and not math.isfinite(value) else value
