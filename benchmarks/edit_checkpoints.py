"""Changes names, shapes and dtypes of converted checkpoints at random: none may load in part without saying so.

    python benchmarks/edit_checkpoints.py --edits 1000

A tiny model is written in timm's, transformers' and Google's layout. Each edit drops, doubles, renames, transposes,
cuts, grows, empties, flattens, swaps or retypes one to three arrays. What is loaded after all must be, parameter by
parameter, what its report says: read from the file, or named as new, changed or dropped.
"""

import argparse
import contextlib
import random
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from vit_jax import trees
from vit_jax.errors import VitError
from vit_jax.models.registry import create_model
from vit_jax.weights.formats import npz_format, safetensors_format
from vit_jax.weights.formats.files import open_checkpoint
from vit_jax.weights.load import open_pretrained
from vit_jax.weights.save import save

WAYS = (
    "drop",
    "double",
    "rename",
    "transpose",
    "cut",
    "grow",
    "retype",
    "swap",
    "empty",
    "flatten",
    "deepen",
)
DTYPES = (np.float16, np.float64, np.int32, np.int8, np.uint8, np.bool_)


def edited(arrays: dict[str, np.ndarray], rng: random.Random) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return arrays with one to three edits, and what these were."""
    arrays, done = dict(arrays), []
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        name = rng.choice(list(arrays))
        array, way = arrays[name], rng.choice(WAYS)
        if way in ("drop", "rename"):
            del arrays[name]
        if way == "double":
            arrays[f"{name}.1"] = array
        elif way == "rename":
            place = rng.randrange(len(name))
            arrays[name[:place] + rng.choice("x_0.") + name[place + 1 :]] = array
        elif way == "transpose":
            arrays[name] = np.ascontiguousarray(array.T)
        elif way == "cut":
            arrays[name] = array[: array.shape[0] - 1] if array.ndim else array
        elif way == "grow":
            arrays[name] = np.concatenate([array, array[:1]]) if array.ndim else array[None]
        elif way == "retype":
            arrays[name] = array.astype(rng.choice(DTYPES))
        elif way == "empty":
            arrays[name] = array[:0] if array.ndim else array
        elif way == "flatten":
            arrays[name] = array.reshape(-1)
        elif way == "deepen":
            arrays[name] = array[None]
        elif way == "swap":
            other = rng.choice(list(arrays))
            arrays[name], arrays[other] = arrays[other], arrays[name]
        done.append(f"{way} {name}")
    return arrays, done


def write(path: Path, arrays: dict[str, np.ndarray]) -> None:
    specs = [(name, array.shape, array.dtype) for name, array in arrays.items()]
    if path.suffix == ".npz":
        npz_format.write(path, specs, arrays.__getitem__)
    else:
        safetensors_format.write(path / "model.safetensors", specs, arrays.__getitem__, {"format": "pt"})


def judge(path: Path, before: dict[str, np.ndarray], same: bool) -> str:
    """Return `refused`, `loaded` with all that the report says, or `silent` and why."""
    try:
        pretrained = open_pretrained(path)
        params = {name: np.asarray(leaf) for name, leaf in trees.flatten(pretrained.params()).items()}
    except VitError as error:
        return "refused" if str(error).isprintable() else "more than a line"
    except Exception as error:
        return f"{type(error).__name__} {error}"
    report = pretrained.report
    told = {*report.new, *report.changed, *report.dropped}
    wrong = [
        name
        for name in before.keys() - told
        if name not in params or params[name].shape != before[name].shape
    ]
    if wrong or params.keys() - before.keys() - told:
        return f"silent: {wrong or params.keys() - before.keys()}"
    if same and any(not np.array_equal(params[name], before[name]) for name in before.keys() - told):
        return "silent: other values"
    return "loaded and told" if told else "loaded"


def run(edits: int, seed: int = 0) -> tuple[Counter[str], list[Any]]:
    """Return counts of outcomes, and the failures."""
    counts: Counter[str] = Counter()
    failures = []
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        model = create_model("vit_mu_patch4_8", width=16, depth=2, heads=2, mlp_dim=24, num_classes=5)
        layouts = {}
        for format, name in (("timm", "timm"), ("hf", "hf"), ("npz", "google.npz")):
            save(model, name, format, ignore=("activation",) if format == "npz" else ())
            tensors = open_checkpoint(Path(name)).tensors
            layouts[name] = {tensor: tensors[tensor].read() for tensor in tensors}
            assert judge(Path(name), reference(Path(name)), True) == "loaded", name
        references = {name: reference(Path(name)) for name in layouts}
        for number in range(edits):
            rng = random.Random(f"{seed}/{number}")
            name = rng.choice(list(layouts))
            arrays, done = edited(layouts[name], rng)
            write(Path(name), arrays)
            # Values stay where an array only went to a type that holds them, or came twice.
            outcome = judge(Path(name), references[name], all(way.startswith("double") for way in done))
            counts[outcome.partition(":")[0] if outcome.startswith("silent") else outcome[:20]] += 1
            if outcome not in ("refused", "loaded", "loaded and told"):
                failures.append((number, name, done, outcome))
    return counts, failures


def reference(path: Path) -> dict[str, np.ndarray]:
    return {name: np.asarray(leaf) for name, leaf in trees.flatten(open_pretrained(path).params()).items()}


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--edits", type=int, default=1000, metavar="N", help="default: 1000")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: 0")
    arguments = parser.parse_args()
    counts, failures = run(arguments.edits, arguments.seed)
    for failure in failures[:20]:
        print(failure)
    print(
        f"{arguments.edits} edits: {', '.join(f'{n} {what}' for what, n in counts.items())}; {len(failures)} failed"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
