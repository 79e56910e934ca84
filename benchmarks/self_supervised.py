"""How good are features learned without labels? One small ViT, as many operations for each method.

    python benchmarks/self_supervised.py --data FOLDER --results RUNS
    python benchmarks/self_supervised.py --data FOLDER --results RUNS --few-labels
    python benchmarks/self_supervised.py --data FOLDER --results RUNS --teachers

FOLDER has `train.npz` and `test.npz`, each of `images` (uint8, 32x32x3) and `labels`; or of `jpeg`, `offsets` and
`labels`, the files one after another and where each begins, which are decoded to RUNS first.

Every method of `configs/cifar10_self_supervised.py` runs until training has taken `--flops` operations (multiplications
and additions of forward and backward passes, teachers and tokenizers in a step included; a tokenizer's own training is
not). Then probes judge the frozen features: k-NN, a linear classifier, 10 images of each class, and the effective
rank. Rows to compare with are an untrained model, and one trained with all labels.

`--few-labels` takes the runs of `--pretrained`, trains each on with 1, 10 and 100 % of the labels, and compares with
the same model trained from scratch with the same labels and as many operations in all.

`--teachers` takes the run with labels as the teacher of a model half as wide, beside the same model with labels alone;
and DINO's as the teacher of features, after which 1 % of the labels are learned, beside the same model from scratch
with the same labels and as many operations; what teachers were trained with is not counted.

A run that RUNS has is not repeated, so that several processes (`--methods`, `--only-seed`) can share the work.
"""

import argparse
import io
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import Any

import numpy as np

import vit_jax
from vit_jax.training.experiment import build

CONFIG = str(Path(__file__).parent.parent / "configs" / "cifar10_self_supervised.py")
METHODS = ("untrained", "supervised", "dino", "ibot", "lejepa", "mae", "simmim", "ijepa", "beit")
COLUMNS = ("knn20_accuracy", "linear_accuracy", "fewshot10_accuracy", "rankme")
SHARES = (1, 10, 100)
QUIET = ["log.progress=false", "log.tensorboard=false", "checkpoint.every=100%", "checkpoint.keep_best=0"]


def train(
    name: str, method: str, seed: int, flops: float, told: Sequence[str], place: Path, start: str = ""
) -> dict[str, Any]:
    """Return what a run found that takes as many operations, as soon as there is one.

    Args:
      name: of the run.
      method: of the configuration.
      seed: of parameters and data.
      flops: operations of all steps.
      told: further overrides.
      place: folder of all runs.
      start: the run in it whose encoder it starts with, if any.
    """
    workdir = place / f"{name}-{seed}"
    found = workdir / "found.json"
    if found.is_file():
        return json.loads(found.read_text())
    if start:  # whose model has what is told
        told = [word for word in told if not word.startswith("model.")]
    config: Any = vit_jax.load_config(f"{CONFIG}:{method}", [*QUIET, *told, f"seed={seed}"])
    if start:
        config.model = {"checkpoint": str(place / start), "pool": "mean"}
    each = build(config).task.objective.train_flops
    steps = max(round(flops / each / config.data.batch_size), 1)
    config.duration = steps
    result = vit_jax.train(config, str(workdir))
    row = {"name": name, "seed": seed, "steps": steps, "flops_per_image": each, **result.metrics}
    found.write_text(json.dumps(row, indent=1) + "\n")
    return row


def prepared(data: Path, place: Path) -> Path:
    """Return the folder of the images as arrays; decode them if they are not."""
    with np.load(data / "train.npz") as arrays:
        if "images" in arrays:
            return data
    from PIL import Image

    target = place / "images"
    target.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        with np.load(data / f"{split}.npz") as arrays:
            files, ends, labels = arrays["jpeg"].tobytes(), arrays["offsets"], arrays["labels"]
        pictures = (Image.open(io.BytesIO(files[start:end])) for start, end in itertools.pairwise(ends))
        images = np.stack([np.asarray(picture.convert("RGB")) for picture in pictures])
        np.savez(target / f"{split}.npz", images=images, labels=labels.astype(np.int32))
    return target


def pretrain(method: str, seed: int, flops: float, told: Sequence[str], place: Path) -> dict[str, Any]:
    """Return what the features of a method are worth."""
    if method == "untrained":
        still = [*told, "optimizer.learning_rate=1e-12"]
        return train(method, "supervised", seed, 0, still, place)
    if method == "beit":
        train("vq_tokenizer", "vq_tokenizer", seed, flops / 4, told, place)
        told = [*told, f"objective.tokenizer={place / f'vq_tokenizer-{seed}'}"]
    return train(method, method, seed, flops, told, place)


def with_few_labels(
    method: str, share: int, seed: int, flops: tuple[float, float], told: Sequence[str], place: Path
) -> dict[str, Any]:
    """Return how well a model classifies that has seen some labels.

    Args:
      method: what it was pretrained by; empty for a fresh one.
      share: of the labels, in percent.
      seed: of everything.
      flops: operations of pretraining and of training with labels; a fresh model gets both.
      told: further overrides.
      place: folder of all runs.
    """
    told = [*told, f"data.train_split=train[:{share}%]", "evaluation.probes=()"]
    if not method:
        return train(f"scratch-{share}", "supervised", seed, sum(flops), told, place)
    start = f"{method}-{seed}"
    return train(f"{method}-{share}", "supervised", seed, flops[1], told, place, start)


def with_teachers(seed: int, flops: float, told: Sequence[str], place: Path) -> list[dict[str, Any]]:
    """Return how well students classify with and without a teacher, and what distilled features bring to few labels.

    Args:
      seed: of the students, and of the teacher of features.
      flops: operations of a student; those of features take a quarter more to learn labels.
      told: further overrides.
      place: folder of all runs, which has the teachers.
    """
    alone = train("student", "student", seed, flops, told, place)
    taught = [*told, f"objective.teacher={place / 'supervised-0'}"]
    distilled = train("student with teacher", "distillation", seed, flops, taught, place)
    seen = [*told, f"objective.teachers={place / f'dino-{seed}'}"]
    train("features", "feature_distillation", seed, flops, seen, place)
    few = [*told, "data.train_split=train[:1%]", "evaluation.probes=()"]
    after = train("features, 1 %", "supervised", seed, flops / 4, few, place, f"features-{seed}")
    scratch = train("scratch, 1 %", "supervised", seed, flops * 5 / 4, few, place)
    return [alone, distilled, scratch, after]


def table(rows: Sequence[dict[str, Any]], columns: Sequence[str]) -> str:
    """Return a Markdown table: a line for each name, mean and deviation over seeds."""
    lines = [f"| | steps | {' | '.join(columns)} |", f"|---|{'---|' * (len(columns) + 1)}"]
    for name in dict.fromkeys(row["name"] for row in rows):
        same = [row for row in rows if row["name"] == name]
        cells = []
        for column in columns:
            values = [row[column] for row in same]
            scale, digits = (100, 1) if column.endswith("accuracy") else (1, 1)
            spread = f" ± {stdev(values) * scale:.{digits}f}" if len(values) > 1 else ""
            cells.append(f"{mean(values) * scale:.{digits}f}{spread}")
        lines.append(f"| {name} | {same[0]['steps']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, required=True, metavar="FOLDER", help="of train.npz and test.npz")
    add("--results", type=Path, required=True, metavar="RUNS", help="folder of all runs")
    add("--methods", nargs="+", default=METHODS, metavar="NAME", help=f"default: {' '.join(METHODS)}")
    add("--seeds", type=int, default=3, help="runs of each (default %(default)s)")
    add("--only-seed", type=int, metavar="N", help="of these this one")
    add("--flops", type=float, default=2e14, help="of a run (default %(default)g)")
    add("--few-labels", action="store_true", help="train on with some labels instead")
    add("--pretrained", nargs="+", default=("mae", "dino"), metavar="NAME", help="with it; default: mae dino")
    add("--teachers", action="store_true", help="students with and without them instead")
    add("--override", nargs="+", default=(), metavar="KEY=VALUE", help="of every configuration")
    add("--json", type=Path, metavar="FILE", help="write every number")
    arguments = parser.parse_args(words)
    place = arguments.results.absolute()
    folder = prepared(arguments.data.absolute(), place)
    told = ["data.source=arrays", f"data.path={folder}", *arguments.override]
    seeds = range(arguments.seeds) if arguments.only_seed is None else [arguments.only_seed]
    if arguments.few_labels:
        flops = arguments.flops, arguments.flops / 4
        rows = [
            with_few_labels(method, share, seed, flops, told, place)
            for share in SHARES
            for method in ("", *arguments.pretrained)
            for seed in seeds
        ]
        print(table(rows, ("accuracy",)))
    elif arguments.teachers:
        rows = [row for seed in seeds for row in with_teachers(seed, arguments.flops / 4, told, place)]
        print(table(rows, ("accuracy",)))
    else:
        rows = [
            pretrain(method, seed, arguments.flops, told, place)
            for method in arguments.methods
            for seed in seeds
        ]
        print(table(rows, COLUMNS))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
