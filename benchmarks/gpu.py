"""Everything about one GPU in one command: our training and inference beside timm's compiled, by model and batch.

    python benchmarks/gpu.py --folder gpu --peer-python PATH

`PATH` is a Python with torch for CUDA and timm. Writes `train_step_N.json` and `inference_N.json` for each batch
size N, and prints a table: images a second, MFU by the card's published peak, and ours by timm's. What the compiler
says of cards that are not here is in docs/plans.md.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path
from statistics import median
from typing import Any

# This process only asks what the card is: its memory is for those that measure.
os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import jax

from vit_jax.training.devices.hardware import peak_flops

MODELS = ("vit_base_patch16_224", "vit_large_patch16_224")
BATCHES = (32, 128)


def measure(script: str, batch: int, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one of the benchmarks, unless its report is there, and return its report."""
    path = arguments.folder / f"{script}_{batch}.json"
    if not path.exists():
        command = [sys.executable, str(Path(__file__).parent / f"{script}.py"), "--device", arguments.device]
        command += ["--models", *arguments.models, "--dtypes", *arguments.dtypes]
        command += ["--batch-size", str(batch), "--rounds", str(arguments.rounds), "--json", str(path)]
        command += ["--image-size", str(arguments.image_size)]
        command += ["--peer-python", arguments.peer_python] if arguments.peer_python else []
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return json.loads(path.read_text())


def rows(report: dict[str, Any], peak: float | None) -> list[str]:
    """Return a line of the table for each model and side."""
    lines, batch = [], report["settings"]["batch_size"]
    for result in report["results"]:
        if result["model"] is None:
            continue
        seconds = median(result["wall_seconds"])
        mfu = "" if peak is None else f"{result['gflops'] * 1e9 / peak:.1%}"
        ratio = ""
        if "ours_over_this_wall" in result:
            low, middle, high = result["ours_over_this_wall"]
            ratio = f"{1 / middle:.2f} ({1 / high:.2f} to {1 / low:.2f})"
        lines.append(
            f"| {report['benchmark']} | {result['model']} | {result['dtype']} | {batch} | {result['side']} | "
            f"{batch / seconds:,.0f} | {mfu} | {ratio} |"
        )
    return lines


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--folder", type=Path, required=True, help="for the reports; those that are there stay")
    add("--peer-python", metavar="PATH", help="a Python that has torch for CUDA, and timm")
    add("--models", nargs="+", default=MODELS, metavar="NAME", help=f"default: {' '.join(MODELS)}")
    add("--batch-sizes", nargs="+", type=int, default=BATCHES, metavar="N", help="default: 32 128")
    add("--dtypes", nargs="+", default=["bfloat16"], help="default: bfloat16")
    add("--image-size", type=int, default=224, metavar="N", help="default: 224")
    add("--rounds", type=int, default=10, metavar="N", help="default: 10")
    add("--device", default="gpu", choices=("gpu", "cpu"), help="cpu: to try this script out")
    arguments = parser.parse_args()
    arguments.folder.mkdir(parents=True, exist_ok=True)
    if arguments.device == "gpu" and jax.default_backend() != "gpu":
        parser.error(
            f"this jax sees {jax.devices()[0].device_kind}, no GPU; install jax[cuda12] where there is one"
        )
    peak = peak_flops(jax.devices()[0])
    print(f"{jax.devices()[0].device_kind}, jax {jax.__version__}; times faster: timm's time by ours\n")
    print("| what | model | dtype | batch | side | images/s | MFU | ours is times faster |")
    print("|---|---|---|---|---|---|---|---|")
    for script in ("train_step", "inference"):
        for batch in arguments.batch_sizes:
            print("\n".join(rows(measure(script, batch, arguments), peak)), flush=True)


if __name__ == "__main__":
    main()
