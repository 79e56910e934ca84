"""Images that keep their aspect ratio (NaFlex) beside the same squashed to squares: images/s, tokens, accuracy.

Trains `configs/naflex_digits.py` both ways, on the same images, with the same model and as many tokens, and measures a
training step and the reading of a batch of each, by turns:

python benchmarks/naflex.py --seeds 2 --json naflex.json
"""

import argparse
import json
import tempfile
import time
from contextlib import closing
from pathlib import Path
from statistics import mean, median
from typing import Any

import numpy as np

import vit_jax
from vit_jax.planning.measurement import measure_training
from vit_jax.training.experiment import build

CONFIG = Path(__file__).parent.parent / "configs" / "naflex_digits.py"
KINDS = ("square", "naflex")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2000, help="of training (default 2000)")
    parser.add_argument(
        "--seeds", type=int, default=1, help="how many trainings of each, from seed 0 (default 1)"
    )
    parser.add_argument("--rounds", type=int, default=5, help="timed by turns (default 5)")
    parser.add_argument("--seconds", type=float, default=2.0, help="each time (default 2)")
    parser.add_argument("--json", metavar="FILE", help="write every number")
    arguments = parser.parse_args()
    found: dict[str, dict[str, Any]] = {
        kind: {"step": [], "read": [], "accuracy": [], **tokens(kind)} for kind in KINDS
    }
    for _ in range(arguments.rounds):
        for kind, values in found.items():
            values["step"].append(stepped(kind, arguments.seconds))
            values["read"].append(read(kind, arguments.seconds))
    for seed in range(arguments.seeds):
        for kind, values in found.items():
            values["accuracy"].append(trained(kind, seed, arguments.steps))
            print(f"seed {seed}: {kind} accuracy {values['accuracy'][-1]:.4f}", flush=True)
    print(table(found))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=2) + "\n")


def configuration(kind: str, *overrides: str) -> Any:
    return vit_jax.load_config(
        f"{CONFIG}:{kind}", ["log.progress=false", "evaluation.illustrate=0", *overrides]
    )


def tokens(kind: str) -> dict[str, Any]:
    """Return how many tokens the model computes of an image, and which share of them are of the image."""
    experiment = build(configuration(kind, "data.size=512", "data.eval_split='test'"))
    model = experiment.task.model
    with closing(experiment.data.eval_batches()) as batches:
        grids = [batch["grid"].prod(axis=1) for batch in batches if "grid" in batch]
    count = model.max_patches or model.num_patches
    return {"tokens": count, "used": float(np.mean(np.concatenate(grids)) / count) if grids else 1.0}


def stepped(kind: str, seconds: float) -> float:
    """Return the images a second of training steps alone, at the median."""
    config = configuration(kind, "data.size=512", "data.eval_split='test'")
    experiment = build(config)
    (measured,) = measure_training(experiment.task.model, [config.data.batch_size], seconds=seconds)
    return measured.images_per_second


def read(kind: str, seconds: float) -> float:
    """Return the images a second that are read and transformed, from memory."""
    config = configuration(kind, "data.size=512", "data.eval_split='test'")
    with closing(build(config).data.train_batches(0)) as batches:
        for _ in range(16):  # until all are in memory
            next(batches)
        began, count = time.perf_counter(), 0
        while time.perf_counter() - began < seconds:
            count += len(next(batches)["image"])
        return count / (time.perf_counter() - began)


def trained(kind: str, seed: int, steps: int) -> float:
    config = configuration(
        kind, f"seed={seed}", f"duration='{steps} steps'", "evaluation.every=100%", "checkpoint.every=100%"
    )
    with tempfile.TemporaryDirectory() as workdir:
        return float(vit_jax.train(config, workdir).metrics["accuracy"])


def table(found: dict[str, dict[str, Any]]) -> str:
    ratio = median(n / s for s, n in zip(found["square"]["step"], found["naflex"]["step"]))
    lines = [
        f"{'':8} {'tokens':>7} {'of image':>9} {'steps, images/s':>16} {'read, images/s':>15} {'accuracy':>9}"
    ]
    lines += [
        f"{kind:8} {values['tokens']:>7} {values['used']:>9.1%} {median(values['step']):>16,.0f} "
        f"{median(values['read']):>15,.0f} {mean(values['accuracy']) if values['accuracy'] else float('nan'):>9.4f}"
        for kind, values in found.items()
    ]
    return "\n".join(
        [*lines, f"a naflex step does {ratio:.2f} times as many images a second (median of rounds)"]
    )


if __name__ == "__main__":
    main()
