"""Does a student learn more with a teacher than without, of the same images and labels?

    python benchmarks/distillation.py --json distillation.json

A teacher is trained on all of scikit-learn's training digits (`configs/digits.py`). Smaller students
(`configs/distill_digits.py`) then see the same of them, a tenth or all, with labels alone and with the teacher's
answers, once for each seed. All are evaluated on the 360 test digits.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import vit_jax

CONFIGS = Path(__file__).parent.parent / "configs"
QUIET = [
    "log.progress=false", "log.tensorboard=false", "log.every=100%", "evaluation.every=100%", "checkpoint.every=100%",
    "evaluation.baselines=()", "evaluation.illustrate=0",
]  # fmt: skip


def accuracy(config: Any, workdir: str) -> float:
    """Train and return the accuracy on the test digits."""
    return float(vit_jax.train(config, workdir).metrics["accuracy"])


def student(overrides: Sequence[str], teacher: str) -> Any:
    """Return the student's configuration; without a teacher if there is none."""
    config = vit_jax.load_config(
        str(CONFIGS / "distill_digits.py"), [*QUIET, *overrides, f"objective.teacher={teacher}"]
    )
    if not teacher:
        options: Any = config.objective
        config.objective = {"name": "classification", "mixup": options.mixup}
    return config


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--shares", nargs="+", default=["10%", "100%"], help="of the training digits (default: 10%% 100%%)")
    add("--seeds", type=int, default=5, help="students of each kind (default %(default)s)")
    add("--steps", type=int, default=1000, help="of a student (default %(default)s)")
    add("--teacher-steps", type=int, default=1300, help="of the teacher (default %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write every number")
    arguments = parser.parse_args(words)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        digits = vit_jax.load_config(
            str(CONFIGS / "digits.py"), [*QUIET, f"duration={arguments.teacher_steps}"]
        )
        found = {"teacher, all digits": [accuracy(digits, str(place / "teacher"))]}
        for share in arguments.shares:
            for name, teacher in (("labels", ""), ("labels and teacher", str(place / "teacher"))):
                each = []
                for seed in range(arguments.seeds):
                    told = [
                        f"duration={arguments.steps}",
                        f"data.train_split=train[:{share}]",
                        f"seed={seed}",
                    ]
                    each.append(
                        accuracy(student(told, teacher), str(place / f"{share}-{bool(teacher)}-{seed}"))
                    )
                found[f"{name}, {share} of the digits"] = each
    print("\n| what is learned from | accuracy, mean | deviation | each |\n|---|---|---|---|")
    for name, each in found.items():
        rows.append({"name": name, "accuracies": each, "mean": mean(each)})
        spread = f"{stdev(each):.3f}" if len(each) > 1 else ""
        print(f"| {name} | {mean(each):.3f} | {spread} | {', '.join(f'{one:.3f}' for one in each)} |")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
