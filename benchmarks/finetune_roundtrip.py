"""Does a trained model predict the same after conversion to other libraries' layouts and back?

Trains ViT-Ti/16 on a folder of images, or fine-tunes `--checkpoint` by `--method` of configs/finetune.py; converts the
run with `vit-jax convert` to transformers' and timm's layouts and that back to ours; and predicts all evaluation
images with each.

  python benchmarks/finetune_roundtrip.py --data DIR --split val --image-size 96 --epochs 5

`DIR` holds `train/CLASS/*.jpg` and SPLIT/CLASS/*.jpg. The exit status is 0 if all predictions are the same to the last
digit.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np

import vit_jax
from vit_jax.cli import main as vit_jax_command
from vit_jax.inference.features import list_images
from vit_jax.trees import flatten

CONFIGS = Path(__file__).parent.parent / "configs"
FORMATS = ("hf", "timm")  # npz cannot say which GELU: it refuses


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", required=True, metavar="DIR", help="folder of train and evaluation images")
    parser.add_argument("--split", default="test", help="folder of evaluation images (default test)")
    parser.add_argument("--image-size", type=int, default=96, help="in pixels (default 96)")
    parser.add_argument("--epochs", type=int, default=5, help="of training (default 5)")
    parser.add_argument("--checkpoint", help="fine-tune this instead of training from scratch")
    parser.add_argument("--method", default="layer_decay", help="of fine-tuning (default layer_decay)")
    parser.add_argument("--workdir", metavar="DIR", help="keep what is written here")
    parser.add_argument("--json", metavar="FILE", help="write the result")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(arguments.workdir or temporary)
        result = measure(arguments, folder)
    for layout, found in result["layouts"].items():
        print(f"{layout:<5} {found}")
    print(f"accuracy {result['accuracy']:.4f} on {result['images']} images, {result['classes']} classes")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(result, indent=2) + "\n")
    return 0 if all(found["identical"] for found in result["layouts"].values()) else 1


def measure(arguments: argparse.Namespace, folder: Path) -> dict:
    workdir = folder / "run"
    config = vit_jax.load_config(*configuration(arguments))
    trained = vit_jax.train(config, workdir)
    files, classes, _ = list_images([str(Path(arguments.data) / arguments.split)])
    assert classes is not None, "the evaluation split has no class folders"
    ours = vit_jax.Predictor.load(workdir)
    expected = ours.probabilities(files)
    names = ours.class_names
    accuracy = np.mean([names[best] == name for best, name in zip(expected.argmax(axis=1), classes)])
    layouts = {}
    for layout in FORMATS:
        there, back = folder / layout, folder / f"{layout}_back"
        convert(workdir, there, layout)
        convert(there, back, "orbax")
        again = vit_jax.Predictor.load(str(back))
        found = again.probabilities(files)
        parameters, before = flatten(again.params), flatten(ours.params)
        layouts[layout] = {
            "identical": bool(np.array_equal(found, expected)),
            "largest difference": float(np.abs(found - expected).max()),
            "parameters identical": all(np.array_equal(parameters[path], before[path]) for path in before),
            "same classes": again.class_names == names,
        }
    return {
        "accuracy": float(accuracy),
        "metrics": trained.metrics,
        "images": len(files),
        "classes": len(names),
        "steps": trained.step,
        "seconds": trained.summary["seconds"],
        "layouts": layouts,
    }


def configuration(arguments: argparse.Namespace) -> tuple[str, list[str]]:
    overrides = [
        f"duration={arguments.epochs} epochs",
        f"model.image_size={arguments.image_size}",
        f"data.path={arguments.data}",
        f"data.eval_split={arguments.split}",
        "evaluation.every=100%",
        "checkpoint.every=100%",
        "evaluation.illustrate=0",
        "log.progress=false",
    ]
    if arguments.checkpoint:
        overrides.append(f"model.checkpoint={arguments.checkpoint}")
        return f"{CONFIGS / 'finetune.py'}:{arguments.method}", overrides
    return str(CONFIGS / "folder.py"), overrides


def convert(source: Path, target: Path, layout: str) -> None:
    status = vit_jax_command(["convert", str(source), str(target), "--format", layout])
    if status:
        sys.exit(status)


if __name__ == "__main__":
    sys.exit(main())
