"""What fewer tokens bring: speed beside the plain model, measured by turns, and accuracy on the digits.

    python benchmarks/tokens.py --json tokens.json

First a model of a usual size with random parameters: images a second of prediction with token merging (ToMe) and with
larger patches, and of training with patches dropped and tokens merged. Then a small model is trained on scikit-learn's
digits, one token a pixel: plain, with half of the patches dropped, with merging, and with a patch size drawn for each
step (FlexiViT); each is evaluated, the plain one also with merging and with other patches, as it was not trained for.

Each round runs every variant once; ratios are of the same round, of wall and of processor time, which other work on
the machine disturbs less. Operations (GMACs) are counted; only the measured columns say what is gained.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import vit_jax
from vit_jax.compiler_options import jit, prediction_options, training_options
from vit_jax.data.sources.digits import open_digits
from vit_jax.models.flops import forward_macs, training_flops
from vit_jax.models.functional import parameters
from vit_jax.models.layers.encoder_config import replace
from vit_jax.models.registry import model_config, model_functions
from vit_jax.objectives.base import DataInfo
from vit_jax.objectives.classification import Classification
from vit_jax.objectives.classification.options import ClassificationOptions
from vit_jax.objectives.images import normalise
from vit_jax.planning.measurement import plain_buffers, random_parameters
from vit_jax.training.config.defaults import default_config
from vit_jax.training.optimizer import make_optimizer
from vit_jax.training.state import TrainState
from vit_jax.training.step import compile_step, make_step

DIGITS = Path(__file__).parent.parent / "configs" / "digits.py"
WORK = ("prediction", "training")
SIZES = (1, 2, 4)
MERGED = 8  # in training on the digits, of 64 tokens in each of 3 blocks
# What is trained on the digits, and how else each is evaluated.
TRAINED: dict[str, tuple[list[str], list[dict[str, Any]]]] = {
    "plain": ([], [{}, *({"merge_tokens": r} for r in (4, 8, 16)), {"patch_size": 2}, {"patch_size": 4}]),
    "half of the patches dropped": (["model.patch_drop_rate=0.5"], [{}]),
    f"merge_tokens={MERGED}": ([f"model.merge_tokens={MERGED}"], [{}]),
    f"patch_sizes={SIZES}": ([f"model.patch_sizes={SIZES}"], [{"patch_size": size} for size in SIZES]),
}


def timed(runs: Mapping[str, Callable[[], Any]], rounds: int, images: int) -> dict[str, dict[str, float]]:
    """Return images a second of each and its speed as a multiple of the first's, by wall and by processor time."""
    for run in runs.values():
        run()  # The first touches memory for the first time.
    wall: dict[str, list[float]] = {name: [] for name in runs}
    cpu: dict[str, list[float]] = {name: [] for name in runs}
    for number in range(rounds):
        for name in list(runs)[:: 1 - 2 * (number % 2)]:
            began = time.perf_counter(), time.process_time()
            runs[name]()
            wall[name].append(time.perf_counter() - began[0])
            cpu[name].append(time.process_time() - began[1])
    first = next(iter(runs))
    return {
        name: {
            "images_per_second": images / median(wall[name]),
            "speed": median(a / b for a, b in zip(wall[first], wall[name])),
            "cpu_speed": median(a / b for a, b in zip(cpu[first], cpu[name])),
        }
        for name in runs
    }


def prediction(config: Any, batch_size: int) -> Callable[[], Any]:
    """Return the forward pass of a batch of random images through random parameters."""
    objective = Classification(config, ClassificationOptions(), DataInfo(config.num_classes))
    params, buffers = random_parameters(objective), plain_buffers(objective)
    batch = {"image": _images(config, batch_size)}
    predict = jit(objective.logits, prediction_options(jax.default_backend(), config.dtype))
    return lambda: predict(params, buffers, batch).block_until_ready()


def training(config: Any, batch_size: int) -> Callable[[], Any]:
    """Return a step of training on a batch of random images: forward, backward, AdamW, all checks."""
    objective = Classification(config, ClassificationOptions(), DataInfo(config.num_classes))
    params, rate = random_parameters(objective), lambda step: jnp.float32(1e-3)
    optimizer = make_optimizer(default_config().optimizer, rate, params, objective.network)
    options = training_options(jax.default_backend(), config.dtype, config.mlp_dim)
    program = compile_step(make_step(objective, optimizer, rate, seed=0), options=options)
    state = TrainState(jnp.int32(0), params, plain_buffers(objective), optimizer.init(params), None)
    batch = {"image": _images(config, batch_size), "label": jnp.zeros(batch_size, jnp.int32)}

    def run() -> None:
        nonlocal state
        state, metrics = program(state, batch)
        jax.block_until_ready((state, metrics))

    return run


def speeds(
    work: str, config: Any, batch_size: int, rounds: int, merged: Sequence[int]
) -> list[dict[str, Any]]:
    """Return a row for each variant of a model: what was counted and what was measured."""
    merging = [{"merge_tokens": r} for r in merged]
    if work == "prediction":
        larger = {"patch_size": (2 * config.patch_size[0], 2 * config.patch_size[1])}
        make, changes = prediction, [{}, *merging, larger]
    else:
        make, changes = training, [{}, *({"patch_drop_rate": rate} for rate in (0.25, 0.5)), merging[-1]]
    configs = {_named(change): replace(config, **change) for change in changes}
    measured = timed({name: make(one, batch_size) for name, one in configs.items()}, rounds, batch_size)
    rows = []
    for name, one in configs.items():
        macs = forward_macs(one) if work == "prediction" else training_flops(one) // 2
        rows.append({"work": work, "variant": name, "gmacs": macs / 1e9, **measured[name]})
    return rows


def accuracies(steps: int, rounds: int) -> list[dict[str, Any]]:
    """Return a row for each model trained on the digits and each way to evaluate it."""
    source = open_digits("test")
    records = [source[i] for i in range(len(source))]
    images = np.stack([record["image"] for record in records])
    labels = np.asarray([record["label"] for record in records])
    rows, runs = [], {}
    for name, (overrides, evaluations) in TRAINED.items():
        config = vit_jax.load_config(str(DIGITS), [*_small(steps), *overrides])
        with tempfile.TemporaryDirectory() as workdir:
            began = time.process_time()
            vit_jax.train(config, workdir)
            seconds = time.process_time() - began
            for change in evaluations:
                model = vit_jax.load(workdir, verbose=False, **change)
                run = _forward(model, images)
                rows.append({
                    "trained": name, "evaluated": _named(change), "mmacs": forward_macs(model.config) / 1e6,
                    "accuracy": float((run().argmax(axis=1) == labels).mean()), "training_cpu_seconds": seconds,
                })  # fmt: skip
                runs[f"{name}, {_named(change)}"] = run
    measured = timed(runs, rounds, len(images))
    return [{**row, **measured[f"{row['trained']}, {row['evaluated']}"]} for row in rows]


def _small(steps: int) -> list[str]:
    return [
        f"duration={steps} steps", "model.name=vit_mu_patch1_8", "model.stem=()", "log.progress=false",
        "log.tensorboard=false", "evaluation.every=100%", "checkpoint.every=100%", "evaluation.baselines=()",
        "evaluation.illustrate=0",
    ]  # fmt: skip


def _forward(model: Any, images: np.ndarray) -> Callable[[], np.ndarray]:
    params, apply = parameters(model), model_functions(model.config).apply
    predict = jax.jit(lambda params, images: apply(params, normalise(images, model.config.preprocessing)))
    return lambda: np.asarray(predict(params, images))


def _images(config: Any, size: int) -> jax.Array:
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (size, *config.input_shape), np.uint8))


def _named(change: Mapping[str, Any]) -> str:
    words = (f"{name}={value[0] if isinstance(value, tuple) else value}" for name, value in change.items())
    return ", ".join(words) or "plain"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="vit_small_patch16_224", help="whose speed is measured (default %(default)s)")
    add("--image-size", type=int, help="pixels (default: the model's own)")
    add("--dtype", default="float32", help="that it computes in (default %(default)s)")
    add("--batch-size", type=int, default=8, help="images (default %(default)s)")
    add("--merge", type=int, nargs="+", default=[4, 8, 13, 16], help="tokens a block (default: 4 8 13 16)")
    add("--rounds", type=int, default=5, help="of every variant (default %(default)s)")
    add("--work", nargs="+", choices=WORK, default=WORK, help="what is measured of it (default: both)")
    add("--steps", type=int, default=1000, help="of training on the digits, 0 for none (default %(default)s)")
    add("--json", type=Path, metavar="FILE", help="write every number")
    arguments = parser.parse_args(words)
    sizes = {"image_size": arguments.image_size} if arguments.image_size else {}
    config = model_config(arguments.model, dtype=arguments.dtype, **sizes)
    print(f"{arguments.model}, batch {arguments.batch_size}, {arguments.dtype}, {jax.default_backend()}\n")
    print(
        "| work | variant | GMACs | images/s | speed | speed, CPU time |\n|---|---|---|---|---|---|",
        flush=True,
    )
    rows = []
    for work in arguments.work:
        rows += speeds(work, config, arguments.batch_size, arguments.rounds, arguments.merge)
        for row in rows:
            if row["work"] == work:
                print(
                    f"| {work} | `{row['variant']}` | {row['gmacs']:.2f} | {row['images_per_second']:.1f} "
                    f"| {row['speed']:.2f} | {row['cpu_speed']:.2f} |",
                    flush=True,
                )
    digits = accuracies(arguments.steps, arguments.rounds) if arguments.steps else []
    if digits:
        print(f"\ndigits, {arguments.steps} steps\n")
        print("| trained | evaluated | MMACs | images/s | speed, CPU time | accuracy | training, CPU s |")
        print("|---|---|---|---|---|---|---|")
    for row in digits:
        print(
            f"| {row['trained']} | `{row['evaluated']}` | {row['mmacs']:.2f} | {row['images_per_second']:.0f} "
            f"| {row['cpu_speed']:.2f} | {row['accuracy']:.3f} | {row['training_cpu_seconds']:.0f} |"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps({"speed": rows, "digits": digits}, indent=1) + "\n")


if __name__ == "__main__":
    main()
