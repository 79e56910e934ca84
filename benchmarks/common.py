"""What the benchmarks share: options, interleaved rounds, paired ratios and the report.

Every side (ours, torch eager, ...) is a process of its own, so that the thread pools of jax and torch never
meet. Each compiles and warms up its tasks first. Then, round after round, the driver lets one side at a time
run one task: whatever else the machine does hits all sides alike, and times of one round can be paired.
"""

import argparse
import contextlib
import dataclasses
import json
import math
import os
import platform
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

from worker import COMPILED, EAGER, PEERS, PRODUCT, SETTINGS, Task, Worker, cores

BEFORE = "before"  # the side of `--before`
PRODUCT_SIDES = ("ours", EAGER)  # one of each library times plain matrix products
PRODUCT_REPEATS = 10  # one takes tens of milliseconds only
CLASSES = 1000

Times = dict[tuple[str, int], list[dict[str, float]]]


def parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the options that all benchmarks have."""
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names, dtypes = ["vit_tiny_patch16_224", "vit_small_patch16_224"], ["float32", "bfloat16"]
    add = parser.add_argument
    add("--models", nargs="+", default=names, metavar="NAME", help=f"default: {' '.join(names)}")
    add("--dtypes", nargs="+", default=dtypes, choices=dtypes, help="compute dtypes; default: both")
    add("--batch-size", type=_positive, default=16, metavar="N", help="images; default: 16")
    add("--image-size", type=_positive, metavar="N", help="pixels; default: each model's own")
    add("--depth", type=_positive, metavar="N", help="blocks; default: the model's own")
    add("--rounds", type=_positive, default=5, metavar="N", help="timed runs of each task; default: 5")
    add("--device", default="cpu", choices=("cpu", "gpu"), help="which; default: cpu")
    add(
        "--peer-python",
        metavar="PATH",
        help="a Python that has torch and timm or transformers, to measure them",
    )
    add("--tuned-peers", action="store_true", help="give the peers our settings of the allocator as well")
    add("--no-compile", action="store_true", help="leave torch.compile out")
    add("--before", metavar="PATH", type=Path, help="another checkout of this repository, measured as well")
    add("--json", metavar="FILE", type=Path, help="also write everything that was measured")
    add("--worker", help=argparse.SUPPRESS)
    return parser


def measure(
    parser: argparse.ArgumentParser,
    arguments: argparse.Namespace,
    unit: str,
    sides: tuple[str, ...],
    flops: Callable[[Any], int] | None = None,
    tasks: list[Task] | None = None,
) -> None:
    """Run a benchmark as its driver: start the workers, time the rounds, report.

    Args:
      parser: see `parser`; tells of wrong options.
      arguments: what it has parsed.
      unit: what is timed, in words.
      sides: our own sides, `ours` first; the peers are added if there is a Python for them.
      flops: floating-point operations for one image, of a model's configuration.
      tasks: what is timed, instead of the models of the arguments; with those of `products`.
    """
    if arguments.json and not arguments.json.absolute().parent.is_dir():
        parser.error(f"--json is {str(arguments.json)!r}, but there is no such folder; make it first")
    script = Path(sys.argv[0])
    if arguments.before and not (arguments.before / "benchmarks" / script.name).is_file():
        parser.error(
            f"--before is {str(arguments.before)!r}, which has no benchmarks/{script.name}; give a checkout of vit_jax"
        )
    if tasks is None:
        assert flops is not None
        tasks = _tasks(parser, arguments, flops)
    missing = {}  # by side: why it is not measured
    if not arguments.peer_python:
        missing = dict.fromkeys(PEERS, "no --peer-python was given")
    elif arguments.no_compile:
        missing = {COMPILED: "--no-compile was given"}
    peers = [side for side in PEERS if side not in missing]
    about = _machine()
    with contextlib.ExitStack() as stack:
        workers = {}
        for side in (*sides, *([BEFORE] if arguments.before else []), *peers):
            python = arguments.peer_python if side in peers else sys.executable
            program = arguments.before / "benchmarks" / script.name if side == BEFORE else script
            command = [python, str(program), "--worker", "ours" if side == BEFORE else side]
            try:
                workers[side] = stack.enter_context(Worker(side, command, _environment(side, arguments)))
            except OSError as error:
                parser.error(f"--peer-python is {python!r}, which cannot be started: {error.strerror}")
        prepared = _prepare(workers, tasks, missing)
        times = _time_rounds(workers, tasks, arguments.rounds, missing)
    settings = ("models", "dtypes", "batch_size", "image_size", "depth", "rounds", "device", "tuned_peers")
    report = {
        "benchmark": script.stem,
        "unit": unit,
        "machine": about | {"versions": {side: answer["versions"] for side, answer in prepared.items()}},
        "settings": {name: getattr(arguments, name) for name in settings},
        "results": _results(tasks, times, prepared),
        "not_measured": missing,
    }
    _show(report)
    if arguments.json:
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")


def _environment(side: str, arguments: argparse.Namespace) -> dict[str, str]:
    """Return the environment of a side; ours is that which the command `vit-jax` gives itself."""
    from vit_jax.allocation import tuned

    environment = {**os.environ, **SETTINGS[arguments.device]}
    if side in PEERS and not arguments.tuned_peers:
        return environment
    if side == BEFORE:  # goes before what is installed
        environment["PYTHONPATH"] = str(arguments.before.absolute())
    return tuned(environment) or environment


def products(arguments: argparse.Namespace) -> list[Task]:
    """Return the matrix products that say how fast the machine is, one for each dtype."""
    return [
        {
            "model": None,
            "device": arguments.device,
            "dtype": dtype,
            "flops": 2 * math.prod(PRODUCT),
            "repeats": PRODUCT_REPEATS,
        }
        for dtype in arguments.dtypes
    ]


def _tasks(parser: argparse.ArgumentParser, arguments: Any, flops: Callable[[Any], int]) -> list[Task]:
    """Return what is timed in each round: products, one for each dtype, and models, one for each dtype."""
    from vit_jax.errors import ConfigError
    from vit_jax.models.flops import parameter_count
    from vit_jax.models.names.resolve import resolve
    from vit_jax.models.registry import model_config

    tasks = products(arguments)
    for name in arguments.models:
        try:
            options = {"num_classes": CLASSES}
            options |= {"image_size": (arguments.image_size,) * 2} if arguments.image_size else {}
            options |= {"depth": arguments.depth} if arguments.depth else {}
            config = model_config(name, **options)
            peer = _peer(config) if arguments.peer_python else {}
        except ConfigError as error:
            parser.error(str(error))
        task = {
            "model": resolve(name)[0],
            "device": arguments.device,
            **_shape(config),
            "classes": CLASSES,
            "peer": peer,
            "batch_size": arguments.batch_size,
            "parameters": parameter_count(config),
            "flops": arguments.batch_size * flops(config),
            "repeats": 1,
        }
        tasks += [task | {"dtype": dtype} for dtype in arguments.dtypes]
    return tasks


def _shape(config: Any) -> dict[str, Any]:
    """Return size and depth as all versions of workers take them: a side of square images, or height and width."""
    height, width = config.image_size
    own = {field.name for field in dataclasses.fields(config)}
    return {
        "image_size": height if height == width else [height, width],
        "depth": config.depth if "depth" in own else None,
    }


def _peer(config: Any) -> dict[str, Any]:
    """Return where the peers take a model from: timm by its name, or of families without one, transformers.

    Raises:
      ConfigError: neither has it.
    """
    from vit_jax.models.families import family_of
    from vit_jax.models.registry import model_functions
    from vit_jax.trees import flatten
    from vit_jax.weights.layouts.table import formats_of, writing

    family = family_of(config).name
    write = None if "timm" in formats_of(family) else writing("hf", family)
    if write is None:
        return {"library": "timm"}
    functions = model_functions(config)
    shapes = flatten(functions.abstract) | flatten(functions.abstract_buffers)
    return {"library": "transformers", "config": write(config, shapes, ()).documents["config.json"]}


def _prepare(workers: dict[str, Worker], tasks: list[Task], missing: dict[str, str]) -> dict[str, Any]:
    """Have all workers prepare at once and drop those that cannot; return what they answer."""
    for side, worker in workers.items():
        worker.send([(i, task) for i, task in enumerate(tasks) if task["model"] or side in PRODUCT_SIDES])
    answers = {}
    for side, worker in list(workers.items()):
        _say(f"waiting until {side} has compiled")
        answers[side] = worker.receive(missing)
        if side in missing:
            del workers[side], answers[side]
    return answers


def _time_rounds(
    workers: dict[str, Worker], tasks: list[Task], rounds: int, missing: dict[str, str]
) -> Times:
    """Return the seconds of each side and task, one entry a round; one worker works at a time."""
    turns = [
        (side, i)
        for i, task in enumerate(tasks)
        for side in workers
        if task["model"] or side in PRODUCT_SIDES
    ]
    times: Times = {turn: [] for turn in turns}
    for number in range(rounds):
        _say(f"round {number + 1} of {rounds}")
        for side, i in turns if number % 2 == 0 else reversed(turns):  # nobody always goes first
            if side not in missing:
                workers[side].send((i, tasks[i]["repeats"]))
                answer = workers[side].receive(missing)
                times[side, i] += [answer] if answer else []
    return {turn: seconds for turn, seconds in times.items() if turn[0] not in missing}


def _results(tasks: list[Task], times: Times, prepared: dict[str, Any]) -> list[dict[str, Any]]:
    """Return one entry for each task and side, with rates, shares of the product's rate, and ratios."""
    results, product_rate = [], {}
    for (side, i), measured in times.items():
        task = tasks[i]
        wall, cpu = ([seconds[kind] for seconds in measured] for kind in ("wall", "cpu"))
        result = {name: task[name] for name in ("model", "dtype", "flops")} | {"side": side}
        result["image_size"] = task["image_size"] if task["model"] else None
        result |= {"wall_seconds": wall, "cpu_seconds": cpu, "gflops": task["flops"] / median(wall) / 1e9}
        result["prepare_seconds"] = prepared[side]["prepare_seconds"][str(i)]
        if task["model"] is None:
            # The machine's rate in a dtype is that of the faster library.
            product_rate[task["dtype"]] = max(product_rate.get(task["dtype"], 0.0), result["gflops"])
        else:
            result["share_of_product"] = result["gflops"] / product_rate[task["dtype"]]
        for kind in ("wall", "cpu") if side != "ours" else ():
            ratios = [ours[kind] / other[kind] for ours, other in zip(times["ours", i], measured)]
            result[f"ours_over_this_{kind}"] = [min(ratios), median(ratios), max(ratios)]
        results.append(result)
    return results


def _machine() -> dict[str, Any]:
    """Return what the machine is and what it was doing before the start."""
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.exists() else ""
    name = re.search(r"model name\s*:\s*(.+)", text)
    return {
        "cpu": name[1] if name else platform.processor() or platform.machine(),
        "cores": cores(),
        "bfloat16_instructions": sorted(set(re.findall(r"\b(?:avx512_bf16|amx_bf16|bf16)\b", text))),
        "system": platform.platform(),
        "load": os.getloadavg()[0],
    }


def _show(report: dict[str, Any]) -> None:
    about, settings = report["machine"], report["settings"]
    bf16 = ", ".join(about["bfloat16_instructions"]) or "none"
    print(f"{about['cpu']}, {about['cores']} cores; bfloat16 instructions: {bf16}")
    print(f"load before the start: {about['load']:.1f}")
    for side, versions in about["versions"].items():
        print(f"{side}: " + ", ".join(f"{name} {number}" for name, number in versions.items()))
    print(f"{report['unit']}; batch {settings['batch_size']}, {settings['rounds']} rounds\n")
    columns = "{:28} {:6} {:9} {:15} {:>9} {:>9} {:>8} {:>8}  {}"
    print(
        columns.format(
            "model", "pixels", "dtype", "side", "seconds", "CPU s", "GFLOP/s", "share", "ours / side"
        )
    )
    for result in report["results"]:
        wall, cpu = (median(result[f"{kind}_seconds"]) for kind in ("wall", "cpu"))
        share = f"{result['share_of_product']:.0%}" if result["model"] else ""
        ratio = ""
        if "ours_over_this_wall" in result:
            low, middle, high = result["ours_over_this_wall"]
            ratio = f"{middle:.2f} ({low:.2f} to {high:.2f}); CPU {result['ours_over_this_cpu'][1]:.2f}"
        rates = (f"{wall:.4f}", f"{cpu:.4f}", f"{result['gflops']:.1f}", share)
        name = result["model"] or "x".join(map(str, PRODUCT))
        print(
            columns.format(name, result["image_size"] or "", result["dtype"], result["side"], *rates, ratio)
        )
    for side, reason in report["not_measured"].items():
        print(f"\n{side}: not measured, {reason}")


def _say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{text} is not at least 1")
    return number
