"""What a run says of itself at its end: speed, baselines, pictures."""

import json
import re
from contextlib import closing
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from vit_jax import trees
from vit_jax.evaluation.baselines import baseline_accuracies
from vit_jax.evaluation.figure import draw
from vit_jax.objectives.images import on_host
from vit_jax.objectives.pictures import to_uint8
from vit_jax.processes import is_main
from vit_jax.training.experiment import Experiment
from vit_jax.training.hardware import peak_flops
from vit_jax.training.metrics import Clock
from vit_jax.training.optimizer import treatments
from vit_jax.training.state import TrainState
from vit_jax.version import __version__

# What a summary says of a run that cannot be found out afterwards.
SPEED = ("seconds", "images_per_second", "flops_per_second", "mfu", "devices", "versions")


def performance(experiment: Experiment, clock: Clock, steps: int) -> dict[str, Any]:
    """Return speed and cost of `steps` steps: wall time by cause, images/s, FLOP/s and, where known, MFU.

    FLOPs are analytic: forward and backward of the model, without what checkpointing computes again. Where parameters
    are frozen, part of the backward pass is left out, and FLOP/s are not known.
    """
    device, devices = experiment.mesh.devices.flat[0], experiment.mesh.devices.size
    images = steps * experiment.config.data.batch_size
    times = clock.seconds()
    # What is known more finely goes to `goodput`.
    times["other"] += times.pop("startup")
    times["checkpoint"] += times.pop("restore")
    seconds = times["step"] + times["data_wait"]
    rate = images / seconds if images and seconds else None
    table = treatments(experiment.config.optimizer, experiment.abstract_state.params)
    whole = not any(how.frozen for how in table.values())
    flops = rate * experiment.objective.train_flops if rate and whole else None
    peak = peak_flops(device)
    return {
        "parameters": trees.count(experiment.abstract_state.params),
        "seconds": {name: round(value, 3) for name, value in times.items()},
        "images_per_second": rate,
        "train_flops_per_image": experiment.objective.train_flops,
        "flops_per_second": flops,
        "mfu": None if flops is None or peak is None else flops / (peak * devices),
        "devices": f"{devices} x {device.device_kind}",
        "versions": {"vit_jax": __version__, "jax": jax.__version__},
    }


def earlier_performance(workdir: Path, summary: dict[str, Any]) -> dict[str, Any]:
    """Return what an earlier summary of the same parameters says of their training's speed; empty if there is none."""
    try:
        earlier = json.loads((workdir / "summary.json").read_bytes())
        same = earlier["fingerprint"] == summary["fingerprint"]
        return {name: earlier[name] for name in SPEED} if same else {}
    except (OSError, ValueError, KeyError, TypeError):
        return {}  # A summary can always be written anew.


def write_report(experiment: Experiment, state: TrainState, workdir: Path) -> dict[str, Any]:
    """Compute the baselines and make the pictures that the configuration asks for.

    Pictures are `illustration.png` and some evaluation images in `samples/`, to try predictions with.

    Returns:
      What to add to the summary.
    """
    evaluation = experiment.config.evaluation
    main = is_main()
    added: dict[str, Any] = {}
    if evaluation.illustrate:
        with closing(experiment.eval_batches()) as batches:
            batch = next(batches)
        params = state.params if state.ema is None else state.ema
        illustration = experiment.objective.illustrate(params, state.buffers, batch, evaluation.illustrate)
        host = on_host(batch)
        if main:
            added["figure"] = str(draw(illustration, workdir / "illustration.png").absolute())
            names = experiment.train_source.class_names
            _write_samples(host, names, evaluation.illustrate, workdir / "samples")
    # Last, for it takes its time, and one process does it alone.
    if evaluation.baselines and main:
        sources = experiment.train_source, experiment.eval_source
        added["baselines"] = baseline_accuracies(evaluation.baselines, *sources)
    return added


def _write_samples(
    batch: dict[str, np.ndarray], class_names: tuple[str, ...], count: int, folder: Path
) -> None:
    """Write the first images of an evaluation batch as `<index>_<class>.png`."""
    images = batch["image"][batch["mask"]][:count]
    if images.shape[-1] not in (1, 3):
        return  # not what image files hold
    folder.mkdir(exist_ok=True)
    for index, (image, label) in enumerate(zip(images, batch["label"])):
        name = re.sub(r"[^A-Za-z0-9._-]", "_", class_names[label])
        pixels = to_uint8(image[..., 0] if image.shape[-1] == 1 else image)
        Image.fromarray(pixels).save(folder / f"{index}_{name}.png")
