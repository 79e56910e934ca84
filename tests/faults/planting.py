"""Faults planted in records: a value that is not finite in an image, or one that spoils the loss or its gradient.

Run as a program it is `vit-jax` on an npz file whose images may hold such values, which the library refuses to open:
`planting.py train --config ...`.
"""

import dataclasses
import sys
from contextlib import contextmanager
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.runs import Once
from vit_jax.data.base import Source
from vit_jax.data.reader import batch_records
from vit_jax.training import experiment, loop, step
from vit_jax.training.config import to_json
from vit_jax.training.guard import inspection, replay
from vit_jax.training.parts import task

# What a marked record has in its first pixel.
NAN, INF, LOSS, GRADIENT, SPIKE = np.nan, np.inf, 251.25, 252.25, 253.25
SHAPE = (8, 8, 1)


class Planted(Source):
    """Random float images, some of which are marked."""

    def __init__(self, marks, size=160):
        self.class_names = tuple("012345")
        self.image_shape = SHAPE
        self.labels = (np.arange(size) % 6).astype(np.int32)
        self._images = np.random.default_rng(0).uniform(0, 250, (size, *SHAPE)).astype(np.float32)
        for record, mark in marks.items():
            self._images[record, 0, 0, 0] = mark

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        return {"image": self._images[index], "label": int(self.labels[index]), "record": f"record {index}"}

    def take(self, indices):
        return {"image": self._images[indices], "label": self.labels[indices]}


@dataclasses.dataclass(frozen=True)
class Faulty:
    """An objective whose loss, or whose gradient alone, is spoiled by marked records."""

    objective: Any

    def __getattr__(self, name):
        return getattr(self.objective, name)

    def at(self, moment):
        return dataclasses.replace(self, objective=self.objective.at(moment))

    def prepare(self, batch, key):
        return {**self.objective.prepare(batch, key), "mark": batch["image"][:, 0, 0, 0]}

    def loss(self, params, buffers, batch, key):
        batch = dict(batch)
        mark = batch.pop("mark")
        loss, out = self.objective.loss(params, buffers, batch, key)
        first = jax.tree.leaves(params)[0].sum()
        marked = (mark == GRADIENT).any()
        # Zero, with an infinite slope where a record is marked, and none elsewhere.
        steep = jnp.sqrt(jnp.where(marked, first - jax.lax.stop_gradient(first), 1.0))
        loss += jnp.where(marked, steep, 0.0)
        loss = jnp.where((mark == LOSS).any(), jnp.nan, loss)
        loss *= jnp.where((mark == SPIKE).any(), 100.0, 1.0)
        return loss, dataclasses.replace(out, metrics=out.metrics | {"loss": loss})


def record_at(config, step, size=160, row=0):
    """The record in a row of the batch of a step."""
    return int(batch_records(Planted({}, size), step - 1, config.data.batch_size, config.seed)[row])


@contextmanager
def planted():
    """Make all objectives faulty where records are marked; compile what equal configurations need only once."""
    real_objective, real_build = task.build_objective, experiment.build
    real_compile, real_inspection = step.compile_step, inspection.compile_inspection
    built, compiled = {}, {}

    def build_once(config, sources, earlier=None, objective=None):
        key = to_json(config)
        if key not in built:
            built[key] = real_build(config, sources)
        data = dataclasses.replace(
            built[key].data, train_source=sources[0], eval_source=sources[1], opened=sources
        )
        return dataclasses.replace(built[key], data=data)

    def compile_once(step, *shardings):
        if step not in compiled:
            compiled[step] = Once(real_compile(step, *shardings))
        return compiled[step]

    def inspect_once(look, where):
        if look not in compiled:
            compiled[look] = real_inspection(look, where)
        return compiled[look]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(task, "build_objective", lambda *given: Faulty(real_objective(*given)))
        for module in (loop, replay):
            patch.setattr(module, "build", build_once)
            patch.setattr(module, "compile_step", compile_once)
        patch.setattr(replay, "compile_inspection", inspect_once)
        yield


if __name__ == "__main__":
    from vit_jax.cli import main
    from vit_jax.data.sources import arrays

    arrays._checked_images = lambda images, name: images
    sys.exit(main())
