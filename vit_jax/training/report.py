"""What a run says of itself at its end: speed, baselines and a picture."""

from pathlib import Path
from typing import Any

import jax
import numpy as np

from vit_jax import trees
from vit_jax.data.base import Source
from vit_jax.errors import DataError
from vit_jax.evaluation.baselines import baseline_accuracies
from vit_jax.evaluation.figure import draw
from vit_jax.training.experiment import Experiment
from vit_jax.training.hardware import peak_flops
from vit_jax.training.metrics import Clock
from vit_jax.training.state import TrainState
from vit_jax.version import __version__


def performance(experiment: Experiment, clock: Clock, steps: int) -> dict[str, Any]:
    """Return speed and cost of `steps` steps: wall time by cause, images/s, FLOP/s and, where known, MFU.

    FLOPs are analytic: forward and backward of the model, without what checkpointing computes again.
    """
    device = jax.devices()[0]
    devices = experiment.mesh.devices.size
    images = steps * experiment.config.data.batch_size
    times = clock.seconds()
    seconds = times["step"] + times["data_wait"]
    rate = images / seconds if images and seconds else None
    flops = None if rate is None else rate * experiment.objective.train_flops
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


def write_report(experiment: Experiment, state: TrainState, workdir: Path) -> dict[str, Any]:
    """Compute the baselines and draw the figure that the configuration asks for; return what to add to the summary."""
    evaluation = experiment.config.evaluation
    added: dict[str, Any] = {}
    if evaluation.baselines and jax.process_index() == 0:
        train, test = (_arrays(source) for source in (experiment.train_source, experiment.eval_source))
        added["baselines"] = baseline_accuracies(evaluation.baselines, train, test)
    if evaluation.illustrate:
        batch = next(iter(experiment.eval_batches()))
        rows = min(evaluation.illustrate, int(np.sum(jax.device_get(batch["mask"]))))
        few = {name: values[:rows] for name, values in jax.device_get(batch).items()}
        params = state.params if state.ema is None else state.ema
        illustration = experiment.objective.illustrate(params, state.buffers, few)
        if jax.process_index() == 0:
            added["figure"] = str(draw(illustration, workdir / "illustration.png").absolute())
    return added


def _arrays(source: Source) -> tuple[np.ndarray, np.ndarray]:
    stacked = source.take(np.arange(len(source)))
    if stacked is None:
        raise DataError("evaluation.baselines need images in memory (digits or arrays); set it to ().")
    return stacked["image"], stacked["label"]
