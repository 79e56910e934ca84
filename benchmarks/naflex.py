"""Images that keep their aspect ratio (NaFlex) beside the same squashed to squares: images/s, tokens, accuracy.

Trains `configs/naflex_digits.py` both ways by turns, a few steps at a time: the same images, the same model, as many
tokens. Whatever else the machine does hits both sides alike, and their times of one turn can be compared.

python benchmarks/naflex.py --json naflex.json
"""

import argparse
import json
import time
from contextlib import closing
from pathlib import Path
from statistics import median
from typing import Any

import jax
import numpy as np

import vit_jax
from vit_jax.training.experiment import build
from vit_jax.training.step import compile_step

CONFIG = Path(__file__).parent.parent / "configs" / "naflex_digits.py"
KINDS = ("square", "naflex")


class Side:
    """One way to train, compiled; `wall` and `cpu` are seconds of each turn, of steps and of reading alone."""

    def __init__(self, kind: str, steps: int, seed: int):
        self.kind = kind
        config = vit_jax.load_config(f"{CONFIG}:{kind}", [f"seed={seed}", f"duration={steps} steps"])
        self.experiment = build(config)
        self.state = self.experiment.init()
        devices = self.experiment.devices
        jitted = compile_step(self.experiment.step, devices.state_shardings, None, devices.step_options)
        self.step = jitted.lower(self.experiment.abstract_state, self.experiment.abstract_batch()).compile()
        self.batches = self.experiment.data.train_batches(0)
        self.times: dict[str, list[float]] = {"wall": [], "cpu": [], "read": []}

    def train(self, steps: int) -> None:
        """Train and note how long a step took."""
        devices, metrics, spent = self.experiment.devices, None, 0.0
        began = time.perf_counter(), time.process_time()
        for _ in range(steps):
            before = time.perf_counter()
            batch = next(self.batches)
            spent += time.perf_counter() - before
            self.state, metrics = self.step(self.state, devices.put(batch))
        jax.block_until_ready((self.state, metrics))
        for name, seconds in (
            ("wall", time.perf_counter() - began[0]),
            ("cpu", time.process_time() - began[1]),
            ("read", spent),
        ):
            self.times[name].append(seconds / steps)

    def result(self, skipped: int) -> dict[str, Any]:
        """Return everything measured; the first turns are those of warming up."""
        experiment = self.experiment
        params = self.state.params if self.state.ema is None else self.state.ema
        evaluate = jax.jit(experiment.task.objective.evaluate)
        model, grids, sums = experiment.task.model, [], {"accuracy": 0.0, "count": 0.0}
        with closing(experiment.eval_batches()) as batches:
            for batch in batches:
                found = evaluate(params, self.state.buffers, batch)
                sums = {name: value + float(found[name]) for name, value in sums.items()}
                if "grid" in batch:
                    grids.append(np.asarray(batch["grid"])[np.asarray(batch["mask"])].prod(axis=1))
        tokens = model.max_patches or model.num_patches
        return {
            "tokens": tokens,
            "used": float(np.concatenate(grids).mean() / tokens) if grids else 1.0,
            "batch_size": experiment.data.batch_size,
            "accuracy": sums["accuracy"] / sums["count"],
            **{name: values[skipped:] for name, values in self.times.items()},
        }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steps", type=int, default=2000, help="of training (default 2000)")
    parser.add_argument(
        "--turn", type=int, default=20, help="steps of one side before the other's (default 20)"
    )
    parser.add_argument("--seed", type=int, default=0, help="of both trainings (default 0)")
    parser.add_argument("--json", metavar="FILE", help="write every number")
    arguments = parser.parse_args()
    sides = [Side(kind, arguments.steps, arguments.seed) for kind in KINDS]
    turns = max(2, arguments.steps // arguments.turn)
    for turn in range(turns):
        for side in sides if turn % 2 else sides[::-1]:
            side.train(arguments.turn)
    found = {side.kind: side.result(turns // 4) for side in sides}
    print(table(found))
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(found, indent=2) + "\n")


def table(found: dict[str, dict[str, Any]]) -> str:
    lines = [
        f"{'':8} {'tokens':>7} {'of image':>9} {'images/s':>9} {'CPU ms/image':>13} {'waiting':>8} {'accuracy':>9}"
    ]
    for kind, values in found.items():
        wall, cpu, read = (median(values[name]) for name in ("wall", "cpu", "read"))
        lines.append(
            f"{kind:8} {values['tokens']:>7} {values['used']:>9.1%} {values['batch_size'] / wall:>9,.0f} "
            f"{1000 * cpu / values['batch_size']:>13.2f} {read / wall:>8.1%} {values['accuracy']:>9.4f}"
        )
    for name, what in (("wall", "time"), ("cpu", "processor time")):
        ratios = [a / b for a, b in zip(found["naflex"][name], found["square"][name])]
        lines.append(
            f"a step of naflex takes {median(ratios):.2f} times the {what} of one of square (median of turns)"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
