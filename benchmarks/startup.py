"""How long commands take from their start to their end: imports, the first step of training, one prediction.

    python benchmarks/startup.py                  # a few minutes on two cores

Every run is a process of its own, and all kinds take turns. "nothing kept" begins without compiled programs, "programs
kept" with those that this run has left (`compilation.cache`). Training is one step of batch 32, one evaluation and a
checkpoint, at 96 pixels; prediction is one image, by that training or by what was exported of it.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from PIL import Image

CONFIG = """
from vit_jax.training.config import default_config

def get_config():
    config = default_config()
    config.duration = "1 step"
    config.model.update(name="{model}", image_size=96, num_classes=1000, dtype="{dtype}")
    config.data.update(source="synthetic", size=64, batch_size=32, eval_batch_size=32)
    config.log.update(progress=False, tensorboard=False)
    return config
"""
VIT_JAX = [sys.executable, "-m", "vit_jax.cli"]
DTYPES = ("float32", "bfloat16")
NOTHING, KEPT = "nothing kept", "programs kept"
IMPORTS = {
    **{
        code: [sys.executable, "-c", code]
        for code in ("import jax", "import vit_jax", "import vit_jax.training.loop")
    },
    "vit-jax models": [*VIT_JAX, "models"],
}


def prepare(folder: Path, model: str, dtypes: list[str]) -> None:
    """Write configurations and an image, train in each dtype and export the first result."""
    pixels = np.random.default_rng(0).integers(0, 256, (96, 96, 3), np.uint8)
    Image.fromarray(pixels).save(folder / "image.png")
    for dtype in dtypes:
        (folder / f"{dtype}.py").write_text(CONFIG.format(model=model, dtype=dtype))
        run(train(folder, dtype, dtype), folder / "cache")
    run(
        [*VIT_JAX, "export", "--workdir", str(folder / dtypes[0]), str(folder / "exported")], folder / "cache"
    )


def train(folder: Path, dtype: str, workdir: str) -> list[str]:
    """Return the command of one step of training."""
    return [*VIT_JAX, "train", "--config", str(folder / f"{dtype}.py"), "--workdir", str(folder / workdir)]


def commands(folder: Path, dtypes: list[str]) -> dict[str, list[str]]:
    """Return what compiles programs, by its name in the table."""
    predict, image = [*VIT_JAX, "predict"], str(folder / "image.png")
    return {
        **{f"train, {dtype}": train(folder, dtype, "run") for dtype in dtypes},
        **{f"predict, {dtype}": [*predict, "--workdir", str(folder / dtype), image] for dtype in dtypes},
        "predict --exported": [*predict, "--exported", str(folder / "exported"), image],
    }


def run(command: list[str], cache: Path) -> float:
    """Return the seconds of a command; what it compiles is kept in, and taken from, `cache`.

    Raises:
      SystemExit: the command failed, with its own words.
    """
    environment = {name: value for name, value in os.environ.items() if name != "JAX_COMPILATION_CACHE_DIR"}
    began = time.perf_counter()
    done = subprocess.run(
        command, env=environment | {"VIT_JAX_CACHE": str(cache)}, capture_output=True, text=True, check=False
    )
    seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip()}")
    return seconds


def main() -> None:
    """Measure by turns and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="vit_tiny_patch16_224", metavar="NAME", help="default: vit_tiny_patch16_224")
    add("--dtypes", nargs="+", default=list(DTYPES), choices=DTYPES, help="default: both")
    add("--rounds", type=int, default=5, metavar="N", help="runs of each kind; default: 5")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds is {arguments.rounds}; it must be at least 1")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, arguments.model, arguments.dtypes)
        programs = commands(folder, arguments.dtypes)
        times: dict[tuple[str, str], list[float]] = {}
        for number in range(arguments.rounds):
            for words, command in IMPORTS.items():
                times.setdefault((words, NOTHING), []).append(run(command, folder / "cache"))
            for words, command in programs.items():
                for state in (NOTHING, KEPT):
                    shutil.rmtree(folder / "run", ignore_errors=True)
                    times.setdefault((words, state), []).append(run(command, folder / f"{words} {number}"))
    print(f"{arguments.model}, {arguments.rounds} rounds, Python {sys.version.split()[0]}\n")
    print(f"| seconds, median (smallest to largest) | {NOTHING} | {KEPT} |\n|---|---|---|")
    for words in [*IMPORTS, *programs]:
        cells = [times.get((words, state)) for state in (NOTHING, KEPT)]
        print(f"| {words} | {' | '.join(shown(seconds) for seconds in cells)} |")


def shown(seconds: list[float] | None) -> str:
    """Return the cell of a table."""
    return f"{median(seconds):.2f} ({min(seconds):.2f} to {max(seconds):.2f})" if seconds else ""


if __name__ == "__main__":
    main()
