"""Accuracy of the same training on images as files and as prepared records, which must not depend on which.

python benchmarks/files_and_records.py IMAGES --seeds 3 --json files_and_records.json

IMAGES holds `train/CLASS/*.jpg` and a split to evaluate on (`--eval-split`). `vit-jax data prepare` makes records of
it; then a small ViT is trained on both, with each seed. Records lie in another order than files, so both runs see other
batches: their accuracies agree as those of two seeds do. With the files put into the records' order, which is done for
the first seed, everything must be bitwise the same: batches, and so parameters and accuracy.
"""

import argparse
import hashlib
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

import vit_jax
from vit_jax.data.sources.opening import FolderSource, Selection, Source
from vit_jax.data.sources.tfds_source import TfdsSource

CONFIG = Path(__file__).parent.parent / "configs" / "folder.py"
SMALL = (
    *(
        "data.path=given",
        "model.image_size=64",
        "model.patch_size=8",
        "model.width=96",
        "model.depth=3",
        "model.heads=3",
    ),
    *("model.mlp_dim=192", "model.stem=(16,)", "data.batch_size=50", "data.eval_batch_size=50"),
    *("evaluation.every=100%", "evaluation.illustrate=0", "checkpoint.every=100%", "log.progress=false"),
)
COMPARED = ("files", "records")


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("images", type=Path, help="folder of split folders")
    parser.add_argument("--eval-split", default="val", help="default: val")
    parser.add_argument("--seeds", type=int, default=3, help="how many, from 0; default: 3")
    parser.add_argument("--epochs", type=int, default=20, help="default: 20")
    parser.add_argument("--json", metavar="FILE", type=Path, help="write every number")
    arguments = parser.parse_args()
    splits = ("train", arguments.eval_split)
    with tempfile.TemporaryDirectory() as folder:
        directory = prepared(arguments.images, Path(folder))
        files = [FolderSource(arguments.images, split) for split in splits]
        records = [TfdsSource("", split, str(directory)) for split in splits]
        reordered = [Selection(*pair) for pair in zip(files, map(same_order, files, records))]
        kinds = {"files": files, "records": records, "files in the records' order": reordered}
        results = {kind: [] for kind in kinds}
        for seed in range(arguments.seeds):
            for kind, sources in kinds.items():
                if kind in COMPARED or seed == 0:
                    run = trained(sources, seed, arguments.epochs)
                    results[kind].append(run)
                    print(
                        f"seed {seed}, {kind}: accuracy {run['accuracy']:.4f}, loss {run['loss']:.4f}",
                        flush=True,
                    )
    same = results["records"][0] == results["files in the records' order"][0]
    print(f"records and files in their order: {'bitwise the same' if same else 'NOT THE SAME'}")
    accuracies = {kind: [run["accuracy"] for run in results[kind]] for kind in COMPARED}
    for kind, values in accuracies.items():
        spread = f", deviation {statistics.stdev(values):.4f}" if len(values) > 1 else ""
        print(f"{kind}: mean {statistics.mean(values):.4f}{spread}")
    if arguments.json:
        arguments.json.write_text(json.dumps({"same": same, "runs": results}, indent=2) + "\n")
    sys.exit(not same)


def prepared(images: Path, output: Path) -> Path:
    """Return the directory of the dataset that `vit-jax data prepare` makes of a folder."""
    command = [sys.executable, "-m", "vit_jax.cli", "data", "prepare", str(images), "--output", str(output)]
    subprocess.run([*command, "--name", "benchmark"], check=True)
    return next((output / "benchmark").iterdir())


def same_order(files: Source, records: Source) -> np.ndarray:
    """Return the index among the files of each record: equal in all bytes and in the label's name."""
    places: dict[tuple[str, str], list[int]] = {}
    for index in range(len(files)):
        places.setdefault(_identity(files, index), []).append(index)
    order = [places[_identity(records, index)].pop(0) for index in range(len(records))]
    assert not any(places.values()), "some files are not among the records"
    return np.asarray(order)


def _identity(source: Source, index: int) -> tuple[str, str]:
    example = source[index]
    return hashlib.sha256(example["image"]).hexdigest(), source.class_names[example["label"]]


def trained(sources: list[Source], seed: int, epochs: int) -> dict[str, float | str]:
    """Return final accuracy and loss and the fingerprint of the parameters of a training."""
    config = vit_jax.load_config(str(CONFIG), [*SMALL, f"seed={seed}", f"duration={epochs} epochs"])
    with tempfile.TemporaryDirectory() as workdir:
        summary = vit_jax.train(config, workdir, sources=(sources[0], sources[1])).summary
    metrics = {name: summary["metrics"][name] for name in ("accuracy", "loss")}
    return metrics | {"fingerprint": summary["fingerprint"]}


if __name__ == "__main__":
    main()
