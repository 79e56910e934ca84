"""How cost grows with batch, resolution, depth and devices: tables, and plots beside them.

    python benchmarks/growth.py --folder growth                  # some ten minutes on two cores

Every point is measured by a process of its own. Training steps and predictions of one model (default: ViT-Ti/16) on
this machine's device; `devices` divides one batch among simulated CPU devices, so it shows what dividing costs, not
what it gains. Points that are there already stay, one line of `growth.jsonl` each; `--report` only prints.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from vit_jax.allocation import tuned
from vit_jax.models.names.resolve import resolve
from vit_jax.models.vit.config import replace
from vit_jax.planning.measurement import measure_prediction, measure_training

BATCH = 8
POINTS: dict[str, list[dict[str, Any]]] = {
    "batch": [{"batch": n, "train": train} for train in (False, True) for n in (1, 2, 4, 8, 16, 32)],
    "resolution": [
        {"image_size": n, "train": train} for train in (False, True) for n in (96, 160, 224, 288, 384)
    ],
    "depth": [
        {"depth": n, "unroll": unroll, "image_size": 96, "train": True}
        for unroll in (1, 0)
        for n in (3, 6, 12, 24)
    ],
    "devices": [{"devices": n} for n in (1, 2, 4, 8)],
}
CONFIG = """
from vit_jax.training.config import default_config

def get_config():
    config = default_config()
    config.duration = "12 steps"
    config.model.update(name="{model}", image_size=96, num_classes=1000)
    config.data.update(source="synthetic", size=256, batch_size=32, eval_batch_size=32)
    config.evaluation.every = config.checkpoint.every = "12 steps"
    config.log.update(progress=False, tensorboard=False)
    return config
"""


def measure(point: dict[str, Any], model: str, seconds: float) -> dict[str, Any]:
    """Return what one point costs."""
    changes = {name: point[name] for name in ("image_size", "depth", "unroll") if name in point}
    config: Any = replace(resolve(model)[1], **changes)
    sizes = [point.get("batch", BATCH)]
    rows = measure_training if point["train"] else measure_prediction
    return rows(config, sizes, seconds=seconds)[0].to_json()


def measure_devices(count: int, model: str) -> dict[str, Any]:
    """Return what training costs on so many simulated devices."""
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "config.py"
        config.write_text(CONFIG.format(model=model))
        command = [sys.executable, "-m", "vit_jax.cli", "train", "--config", str(config)]
        environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": str(count)}
        workdir = Path(folder) / "run"
        subprocess.run(
            [*command, "--workdir", str(workdir)], env=environment, check=True, capture_output=True
        )
        summary = json.loads((workdir / "summary.json").read_text())
    return {"images_per_second": summary["images_per_second"]}


def table(series: str, lines: list[dict[str, Any]]) -> str:
    """Return a series as a table."""
    keys = [key for key in lines[0]["point"] if key != "train"]
    both = any("train" in line["point"] for line in lines)
    columns = ["images_per_second", "milliseconds", "bytes", "compile_seconds"]
    shown = [column for column in columns if column in lines[0]["cost"]]
    names = {
        "images_per_second": "images/s",
        "milliseconds": "ms",
        "bytes": "GiB",
        "compile_seconds": "compile s",
    }
    head = [*keys, *(["what"] if both else []), *(names[column] for column in shown)]
    text = [f"| {' | '.join(head)} |", f"|{'---|' * len(head)}"]
    for line in lines:
        point, cost = line["point"], line["cost"]
        cells = ["all" if key == "unroll" and not point[key] else str(point[key]) for key in keys]
        cells += ["training" if point["train"] else "prediction"] if both else []
        for column in shown:
            value = cost[column] / (2**30 if column == "bytes" else 1)
            cells.append(f"{value:.2f}" if column == "bytes" else f"{value:,.1f}")
        text.append(f"| {' | '.join(cells)} |")
    return "\n".join(text)


def plot(series: str, lines: list[dict[str, Any]], path: Path) -> None:
    """Draw a series: a line for each kind of point."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(figsize=(5, 3.5))
    horizontal = {"batch": "batch", "resolution": "image_size", "depth": "depth", "devices": "devices"}[
        series
    ]
    kinds: dict[str, list[tuple[float, float]]] = {}
    for line in lines:
        point, cost = line["point"], line["cost"]
        kind = "training" if point.get("train", True) else "prediction"
        if series == "depth":
            kind = "compile s, " + ("rolled" if point["unroll"] == 1 else "unrolled")
        value = cost["compile_seconds"] if series == "depth" else cost["images_per_second"]
        kinds.setdefault(kind, []).append((point[horizontal], value))
    for kind, values in kinds.items():
        axes.plot(*zip(*sorted(values)), marker="o", label=kind)
    axes.set_xlabel(horizontal.replace("_", " "))
    axes.set_ylabel("seconds" if series == "depth" else "images a second")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.tight_layout()
    figure.savefig(path, dpi=120)
    plt.close(figure)


def main() -> None:
    """Measure what is missing, print the tables, draw the plots."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--folder", type=Path, help="for points and plots")
    add("--only", nargs="+", choices=POINTS, default=list(POINTS), help="series; default: all")
    add("--model", default="vit_tiny_patch16_224", metavar="NAME", help="default: vit_tiny_patch16_224")
    add("--seconds", type=float, default=3.0, metavar="S", help="for each point; default: 3")
    add("--report", action="store_true", help="measure nothing")
    add("--point", type=json.loads, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.point:
        print(json.dumps(measure(arguments.point, arguments.model, arguments.seconds)))
        return
    if arguments.folder is None:
        parser.error("give a --folder")
    arguments.folder.mkdir(parents=True, exist_ok=True)
    path = arguments.folder / "growth.jsonl"
    there = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    for series in () if arguments.report else arguments.only:
        for point in POINTS[series]:
            if any(line["series"] == series and line["point"] == point for line in there):
                continue
            if series == "devices":
                cost = measure_devices(point["devices"], arguments.model)
            else:
                command = [sys.executable, __file__, "--point", json.dumps(point), "--model", arguments.model]
                command += ["--seconds", str(arguments.seconds)]
                environment = tuned(os.environ)  # as the command gives itself
                done = subprocess.run(command, env=environment, check=True, stdout=subprocess.PIPE, text=True)
                cost = json.loads(done.stdout)
            there.append({"series": series, "point": point, "cost": cost})
            with path.open("a") as file:
                file.write(json.dumps(there[-1]) + "\n")
    for series in POINTS:
        lines = [line for line in there if line["series"] == series]
        if lines:
            print(f"\n{series}, {arguments.model}\n\n{table(series, lines)}")
            plot(series, lines, arguments.folder / f"{series}.png")


if __name__ == "__main__":
    main()
