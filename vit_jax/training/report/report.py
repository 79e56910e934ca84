"""What a run says of itself at its end: speed, baselines, pictures."""

import dataclasses
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from PIL import Image

from vit_jax import trees
from vit_jax.data.base import Selection, Source
from vit_jax.data.images.overlays import caption, drawn
from vit_jax.data.reader import SKIPPED, BatchReader
from vit_jax.data.transforms.base import ImageTransform, Transform
from vit_jax.data.transforms.spec import parse
from vit_jax.evaluation.baselines import baseline_accuracies
from vit_jax.evaluation.evaluator import Compiled, compile_evaluation, evaluate
from vit_jax.evaluation.examples import Examples
from vit_jax.evaluation.figure import draw
from vit_jax.evaluation.reports import Report, counts_of
from vit_jax.objectives.base import Illustration
from vit_jax.objectives.images import pictures_of
from vit_jax.objectives.pictures import to_uint8
from vit_jax.processes import is_main
from vit_jax.training.devices.hardware import peak_flops
from vit_jax.training.experiment import Experiment
from vit_jax.training.parts.treatments import treatments
from vit_jax.training.report.metrics import Clock, replace_text
from vit_jax.training.state import TrainState
from vit_jax.version import __version__

# What a summary says of a run that cannot be found out afterwards.
SPEED = ("seconds", "images_per_second", "flops_per_second", "mfu", "devices", "versions")
_LONGEST_NAME = 200  # what a file of a sample is called after its number; systems take 255 bytes


def performance(experiment: Experiment, clock: Clock, steps: int) -> dict[str, Any]:
    """Return speed and cost of `steps` steps: wall time by cause, images/s, FLOP/s and, where known, MFU.

    FLOPs are analytic: forward and backward of the model, without what checkpointing computes again. Where parameters
    are frozen, part of the backward pass is left out, and FLOP/s are not known.
    """
    device, devices = experiment.devices.first, experiment.devices.mesh.devices.size
    images = steps * experiment.data.batch_size
    times = clock.seconds()
    # What is known more finely goes to `goodput`.
    times["other"] += times.pop("startup")
    times["checkpoint"] += times.pop("restore")
    seconds = times["step"] + times["data_wait"]
    rate = images / seconds if images and seconds else None
    params, network = experiment.abstract_state.params, experiment.task.objective.network
    table = treatments(experiment.optimisation.section, params, network)
    whole = not any(how.frozen.any() for how in table.values())
    flops = rate * experiment.task.objective.train_flops if rate and whole else None
    peak = peak_flops(device)
    return {
        "parameters": trees.count(experiment.abstract_state.params),
        "seconds": {name: round(value, 3) for name, value in times.items()},
        "images_per_second": rate,
        "train_flops_per_image": experiment.task.objective.train_flops,
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


def compiled_evaluation(experiment: Experiment) -> Compiled:
    """Return the program that evaluates a run: with rows where there is a report, so that one does for both."""
    return compile_evaluation(
        experiment.task.objective,
        experiment.devices.replicated,
        experiment.devices.placement,
        experiment.devices.evaluation_options,
        end=experiment.end,
        rows=counts_of(experiment.task.objective.output) is not None,
    )


def write_report(experiment: Experiment, state: TrainState, workdir: Path, step: Compiled) -> dict[str, Any]:
    """Report on the whole evaluation set, compute the baselines and make the pictures that the configuration asks for.

    `report.json` and `report.png` say what there is to say beside the metrics, of a classifier class by class.
    `illustration.png` shows mistakes first and every class, and `samples/` holds some evaluation images of every class,
    to try predictions with.

    Args:
      experiment: that was trained.
      state: after training.
      workdir: where files go.
      step: the result of `compiled_evaluation`.

    Returns:
      What to add to the summary; files are named as they are in the workdir.
    """
    evaluation = experiment.config.evaluation
    main = is_main()
    added: dict[str, Any] = {}
    params = state.params if state.ema is None else state.ema
    objective, wanted = experiment.task.objective, evaluation.illustrate
    counts = counts_of(objective.output)
    shown = Examples(wanted, mistakes=_judged(experiment))
    samples = Examples(wanted, mistakes=False)
    if counts is not None:
        choosing = (shown, samples) if _judged(experiment) else ()

        def see(rows: dict[str, np.ndarray]) -> None:
            for each in (counts, *choosing):
                each.add(rows)

        evaluate(step, params, state.buffers, experiment.eval_batches(numbered=True), see)
        if main:
            _write_scores(counts.report(), experiment, workdir)
    if wanted and not _judged(experiment):
        rows = _strata(experiment.data.eval_source, wanted)
        shown.add(rows)
        samples.add(rows)
    if wanted:
        batch, names = read_examples(experiment, shown.chosen())
        illustration = objective.illustrate(params, state.buffers, batch, names)
        if main:
            added["figure"] = draw(_titled(illustration, experiment), workdir / "illustration.png").name
            batch, _ = read_examples(experiment, samples.chosen())
            names = experiment.data.train_source.class_names
            _write_samples(batch, experiment.task.model, names, workdir / "samples")
    # Last, for it takes its time, and one process does it alone.
    if evaluation.baselines and main:
        sources = experiment.data.train_source, experiment.data.eval_source
        added["baselines"] = baseline_accuracies(evaluation.baselines, *sources)
    return added


def _judged(experiment: Experiment) -> bool:
    """Return whether what is predicted of a record is right or wrong."""
    output = experiment.task.objective.output
    return output is not None and output.judged


def _write_scores(report: Report, experiment: Experiment, workdir: Path) -> None:
    split = None if experiment.data.given else experiment.data.section.eval_split
    said = {"split": split} | report.to_json()
    replace_text(workdir / "report.json", json.dumps(said, indent=2) + "\n")
    report.draw(workdir / "report.png", of=_origin(experiment))


def _strata(source: Source, count: int) -> dict[str, np.ndarray]:
    """Return the labels of a source, of which each is to be among examples.

    Where it does not know them, as many equal stretches stand for its classes, or `count` where it has none.
    """
    index, parts = np.arange(len(source)), source.num_classes or count
    return {"index": index, "label": index * parts // len(source) if source.labels is None else source.labels}


def read_examples(experiment: Experiment, indices: np.ndarray) -> tuple[dict[str, np.ndarray], list[str]]:
    """Return evaluation records as evaluation reads them, with their `picture`, and where they come from."""
    source, transforms = experiment.data.eval_source, parse(experiment.data.transforms[1])

    def read(transforms: Sequence[Transform]) -> dict[str, np.ndarray]:
        classes = experiment.data.num_classes
        return BatchReader(Selection(source, indices), transforms, len(indices), num_classes=classes)(0)

    batch = read(transforms)
    if "image" in batch:
        usual = [step for step in transforms if not (isinstance(step, ImageTransform) and step.colours)]
        batch["picture"] = batch["image"] if len(usual) == len(transforms) else read(usual)["image"]
    return batch, [source.name_of(int(index)) for index in indices]


def _titled(illustration: Illustration, experiment: Experiment) -> Illustration:
    count, order = len(illustration.examples), ""
    if _judged(experiment):
        order = ", mistakes first"
    title = f"{illustration.title}: {count} of the {_origin(experiment)}{order}"
    return dataclasses.replace(illustration, title=title)


def _origin(experiment: Experiment) -> str:
    count = f"{len(experiment.data.eval_source):,}"
    if experiment.data.given:  # the configuration knows no split of them
        return f"{count} given records"
    return f"{count} records of split {experiment.data.section.eval_split!r}"


def _write_samples(
    batch: dict[str, np.ndarray], model: Any, class_names: tuple[str, ...], folder: Path
) -> None:
    """Write images as `<index>_<what they are>.png`, label maps and boxes drawn over them."""
    images = pictures_of(batch, model)
    if images[0].shape[-1] not in (1, 3):
        return  # not what image files hold
    folder.mkdir(exist_ok=True)
    for index in range(len(images)):
        record = {name: values[index] for name, values in batch.items() if name not in (SKIPPED, "picture")}
        record["image"] = images[index]
        name, image = caption(record, class_names)[:_LONGEST_NAME], drawn(record)
        pixels = to_uint8(image[..., 0] if image.shape[-1] == 1 else image)
        Image.fromarray(pixels).save(
            folder / f"{index}{re.sub(r'[^A-Za-z0-9._-]', '_', name and f'_{name}')}.png"
        )
