"""How the memory of predicting grows with the number of files, and how many it takes in a second.

    python benchmarks/predict_memory.py                      # 5,000 and 20,000 files, each way: some ten minutes
    python benchmarks/predict_memory.py --files 100000 --ways predict

A small model at 224 pixels, and a few photographs of 500x375 pixels named over and over. Each number of files is
predicted by a process of its own, which has compiled and loaded the model and predicted two batches before it reads its
memory: what is told is how far the peak goes beyond that. In the first thousands of files the allocator comes to its
size; what each further file adds is therefore told between the two numbers of files.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from vit_jax.inference.predictor import Predictor
from vit_jax.models.names.resolve import resolve
from vit_jax.models.vit.config import replace
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.classification import Classification
from vit_jax.objectives.classification.options import ClassificationOptions
from vit_jax.training.config.defaults import default_config

PHOTOS = 8
WAYS = ("stream", "predict", "probabilities")


def resident(which: str) -> float:
    """Return the memory of this process in MiB: `VmRSS` now, `VmHWM` at its highest."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(which)) / 1024


def predictor() -> Predictor:
    """Return a classifier of a thousand classes whose computing does not hide the reading."""
    model: Any = replace(resolve("vit_tiny_patch16_224")[1], width=32, depth=1, heads=2, mlp_dim=64)
    names = tuple(f"class {i}" for i in range(model.num_classes))
    objective = Classification(model, ClassificationOptions(), DataInfo(model.num_classes, names))
    params = jax.jit(lambda key: objective.init(key)[0])(jax.random.key(0))
    transforms = "decode|resize_short(248, 'bicubic')|center_crop(224)"
    return Predictor(objective, params, default_config(), transforms)


def photographs(folder: Path) -> list[str]:
    """Write a few files as large as those of ImageNet, and return their paths."""
    paths = []
    for seed in range(PHOTOS):
        small = np.random.default_rng(seed).integers(0, 256, (38, 50, 3), dtype=np.uint8)
        paths.append(str(folder / f"{seed}.jpg"))
        Image.fromarray(small).resize((500, 375), Image.Resampling.BICUBIC).save(paths[-1], quality=90)
    return paths


def worker(folder: Path, count: int, what: str) -> dict[str, float]:
    """Return what predicting so many files costs in this process."""
    ours, paths = predictor(), photographs(folder)
    ours.predict(paths * 8)
    files = [paths[i % PHOTOS] for i in range(count)]
    before = resident("VmRSS")
    begin = time.perf_counter()
    if what == "stream":
        for _ in ours.stream(iter(files)):
            pass
    else:
        kept = getattr(ours, what)(files)
        assert len(kept) == count
    seconds = time.perf_counter() - begin
    return {"files": count, "above": resident("VmHWM") - before, "per_second": count / seconds}


def main() -> None:
    """Measure each number of files, and print a table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--files", type=int, nargs="+", default=[5000, 20000], metavar="N", help="how many")
    parser.add_argument("--ways", nargs="+", default=WAYS, choices=WAYS, help="stream keeps nothing")
    parser.add_argument("--worker", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker:
        folder, count, what = arguments.worker
        print(json.dumps(worker(Path(folder), int(count), what)))
        return
    print("what            files   MiB above the model   files/s")
    for what in arguments.ways:
        rows = []
        for count in arguments.files:
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, __file__, "--worker", folder, str(count), what]
                done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append(json.loads(done.stdout))
            row = rows[-1]
            print(f"{what:13} {count:7,} {row['above']:21.1f} {row['per_second']:9.0f}", flush=True)
        if len(rows) > 1:
            first, last = rows[0], rows[-1]
            slope = (last["above"] - first["above"]) / (last["files"] - first["files"])
            whole = last["above"] + slope * (100_000 - last["files"])
            print(f"{what:13} each further file {1024 * slope:.2f} KiB, so 100,000 files {whole:.0f} MiB")


if __name__ == "__main__":
    main()
