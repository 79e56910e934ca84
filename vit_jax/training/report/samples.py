"""Samples as a run sees them, for looking at."""

import jax
import numpy as np

from vit_jax.data.images.overlays import caption, drawn
from vit_jax.data.reader import SKIPPED, BatchReader
from vit_jax.data.transforms.spec import parse
from vit_jax.errors import ConfigError
from vit_jax.objectives.images import pictures_of
from vit_jax.training.config.defaults import Config
from vit_jax.training.experiment import build


def samples(
    config: Config,
    *,
    train: bool = True,
    count: int = 32,
    step: int = 0,
    seed: int | None = None,
    repeats: int = 1,
) -> tuple[list[np.ndarray], list[str]]:
    """Return the first images of a step's batch as the transforms leave them, and what they are, in words.

    Label maps and boxes are drawn over them.

    Args:
      config: a checked configuration; how it divides devices does not matter.
      train: whether of the training or of the evaluation data.
      count: how many, as far as the data goes.
      step: which batch.
      seed: of order and transforms; by default that of the configuration.
      repeats: how often to show each training image, transformed anew each time; divides `count`. With 1 the images
        are those of the run, otherwise a selection of their own.

    Raises:
      VitError: configuration and data do not go together.
    """
    alone = config.copy_and_resolve_references()
    alone.mesh.data, alone.mesh.fsdp, alone.mesh.tensor = 1, 1, 1
    experiment = build(alone, devices=jax.devices()[:1])
    data = experiment.data
    which = 0 if train else 1
    source = (data.train_source, data.eval_source)[which]
    batch_size = (data.batch_size, data.eval_batch_size)[which]
    if repeats == 1:
        count, repeats = min(count, batch_size), data.section.repeats if train else 1
    else:
        batch_size = count
    # The first rows of the batch alone, as if the first of many hosts read them.
    rows = next(rows for rows in range(count, batch_size + 1) if not batch_size % rows)
    reader = BatchReader(
        source,
        parse(data.transforms[which]),
        batch_size,
        config.seed if seed is None else seed,
        process_count=batch_size // rows,
        shuffle=train,
        num_classes=data.num_classes,
        repeats=repeats,
        skip_bad=(data.section.bad_records, data.section.eval_bad_records)[which] == "skip",
    )
    batch = reader(step)
    if "image" not in batch:
        # Several crops are a field each: the first of them.
        crops = next(value for value in batch.values() if value.ndim >= 4)
        batch["image"] = crops.reshape(len(crops), -1, *crops.shape[-3:])[:, 0]
    shown = np.arange(rows)[batch.get("mask", np.ones(rows, np.bool_))][:count]
    if not len(shown):
        raise ConfigError(
            f"--step is {step}, but the evaluation data has only {-(-len(source) // batch_size)} batches."
        )
    if batch_size == count and repeats > 1:
        shown = shown.reshape(repeats, -1).T.reshape(-1)  # all pictures of a record side by side
    names = data.train_source.class_names
    of_records = {name: values for name, values in batch.items() if name != SKIPPED}
    images = pictures_of(batch, experiment.task.model)
    records = [
        {name: values[index] for name, values in of_records.items()} | {"image": images[index]}
        for index in shown
    ]
    return [drawn(record) for record in records], [caption(record, names) for record in records]
