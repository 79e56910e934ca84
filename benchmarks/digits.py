"""Accuracy of the quickstart over seeds: trains `configs/digits.py` anew for each, on the same split.

python benchmarks/digits.py --seeds 5 --json digits.json
"""

import argparse
import json
import statistics
import tempfile
from pathlib import Path

import vit_jax

CONFIG = Path(__file__).parent.parent / "configs" / "digits.py"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seeds", type=int, default=5, help="how many, from 0 (default 5)")
    parser.add_argument("--json", metavar="FILE", help="write every number")
    arguments = parser.parse_args()
    runs = []
    for seed in range(arguments.seeds):
        baselines = (
            [] if seed else ["evaluation.baselines=('logistic_regression', 'svm_rbf', 'nearest_neighbour')"]
        )
        overrides = [f"seed={seed}", "log.progress=false", "evaluation.every=100%", "checkpoint.every=100%"]
        config = vit_jax.load_config(str(CONFIG), overrides + (baselines or ["evaluation.baselines=()"]))
        with tempfile.TemporaryDirectory() as workdir:
            summary = vit_jax.train(config, workdir).summary
        runs.append({"seed": seed, "accuracy": summary["metrics"]["accuracy"], "seconds": summary["seconds"]})
        runs[-1] |= {"baselines": summary["baselines"]} if "baselines" in summary else {}
        print(f"seed {seed}: accuracy {runs[-1]['accuracy']:.4f} in {sum(summary['seconds'].values()):.0f} s")
    accuracies = [run["accuracy"] for run in runs]
    print(
        f"mean {statistics.mean(accuracies):.4f}, smallest {min(accuracies):.4f}, largest {max(accuracies):.4f}"
    )
    print(f"on the same split: {runs[0]['baselines']}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(runs, indent=2) + "\n")


if __name__ == "__main__":
    main()
